"""Small real parts that training tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module

from apportion.models.huggingface import HuggingFacePolicy
from apportion.rollouts import Rollouts


def exact_norms(model: Module) -> Module:
    """Replace RMS norms that round to float32 by torch's, which keep float64."""
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm") and not isinstance(module, torch.nn.RMSNorm):
            exact = torch.nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon).to(module.weight)
            exact.weight = module.weight
            model.set_submodule(name, exact)
    return model


def small_llama(dtype: str = "float32", scale: float = 2.0, tied: bool = False) -> HuggingFacePolicy:
    """A two-layer Llama with grouped-query attention and weights large enough for attention to matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from apportion.models.digits import digit_llama

    config = LlamaConfig(
        vocab_size=23,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        eos_token_id=22,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
    if dtype == "float64":
        exact_norms(model)
    return HuggingFacePolicy(model, digit_llama().tokenizer)


def random_rollouts(
    groups: int = 3, size: int = 4, seed: int = 0, holes: bool = True, dtype: str = "float64"
) -> Rollouts:
    """Ragged groups with graded rewards, untrained tokens in the middle, and old log-probs of no model."""
    generator = torch.Generator().manual_seed(seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    ids, trained, prompts, group_ids, rewards, old, reference = [], [], [], [], [], [], []
    for group in range(groups):
        prompt = [integer(1, 22) for _ in range(integer(2, 6))]
        for _ in range(size):
            length = integer(1, 9)
            ids.append([integer(1, 22) for _ in range(length)])
            trained.append([int(not holes or integer(0, 5) > 0) for _ in range(length)])
            prompts.append(prompt)
            group_ids.append(group)
            rewards.append(integer(0, 4) / 3)
            old.append([-0.1 - integer(0, 40) / 10 for _ in range(length)])
            reference.append([-0.1 - integer(0, 40) / 10 for _ in range(length)])
    rollouts = Rollouts.from_lists(
        ids,
        groups=group_ids,
        rewards=rewards,
        trained=trained,
        prompts=prompts,
        log_probs_old=old,
        log_probs_reference=reference,
    )
    temperature = torch.tensor([0.5 + integer(0, 10) / 10 for _ in ids])
    rollouts = rollouts.with_column("response:temperature", temperature)
    if dtype == "float64":
        return rollouts
    for name in ("log_probs/old", "log_probs/reference"):
        rollouts = rollouts.with_column(name, rollouts.column(name).float())
    return rollouts


def gradients(policy: Any) -> dict[str, torch.Tensor]:
    """The gradient of every parameter, taken off it."""
    result = {}
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        result[name] = parameter.grad.clone()
        parameter.grad = None
    return result
