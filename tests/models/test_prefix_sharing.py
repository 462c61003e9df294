"""Training with shared prefixes computed once is training on independent rows: the same statistics and gradients."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.models.critic import critic_for
from apportion.models.huggingface import HuggingFacePolicy
from apportion.models.measuring import measure, micro_batches
from apportion.models.packing.forward import NAME, Unsupported
from apportion.models.packing.support import check_shareable
from apportion.models.reward_model import reward_model_for
from apportion.models.tabular import TabularPolicy
from apportion.objectives import Objective
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate
from builders import gradients, small_llama

CLIP = objectives.add(objectives.clip(0.2, 0.28), objectives.kl(0.3), objectives.entropy_bonus(0.05))
TEMPERATURES = [1.0, 0.7]
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def branching(seed: int, temperatures: bool = False, holes: bool = True) -> Rollouts:
    """Groups whose responses leave one another's path somewhere; advantages and old log-probs differ by response."""
    draw = torch.Generator().manual_seed(seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=draw))

    ids, prompts, groups, trained, old = [], [], [], [], []
    common = [integer(1, 22) for _ in range(2)]
    for group in range(integer(1, 4)):
        prompt = common[: integer(0, 3)] + [integer(1, 22) for _ in range(integer(1, 5))]
        rows: list[list[int]] = []
        for _ in range(integer(1, 6)):
            start = rows[integer(0, len(rows))][: integer(0, 12)] if rows else []
            rows.append(start + [integer(1, 22) for _ in range(integer(1, 8))])
        ids += rows
        prompts += [prompt] * len(rows)
        groups += [group] * len(rows)
        trained += [[int(not holes or integer(0, 5) > 0) for _ in row] for row in rows]
        old += [[-0.1 - integer(0, 40) / 10 for _ in row] for row in rows]
    rewards = [integer(0, 4) / 3 for _ in ids]
    rollouts = Rollouts.from_lists(
        ids,
        groups=groups,
        rewards=rewards,
        trained=trained,
        prompts=prompts,
        log_probs_old=old,
        log_probs_reference=old,
    )
    if temperatures:
        values = torch.tensor([TEMPERATURES[integer(0, 2)] for _ in ids], dtype=torch.float64)
        rollouts = rollouts.with_column("response:temperature", values)
    return rollouts


def gradient_of(policy: Any, objective: Objective, rollouts: Rollouts, parts: list[Tensor]) -> dict[str, Tensor]:
    given_credit = METHODS["grpo"]()(rollouts)
    loss = accumulate(policy, objective, rollouts, given_credit, parts)
    return {"loss": loss.value.detach().reshape(1), **gradients(policy)}


def same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, slope in expected.items():
        error = (found[name] - slope).norm() / slope.norm().clamp(min=1e-12 if tolerance < 1e-8 else 1e-6)
        assert float(error) <= tolerance, (name, float(error))


def with_lora(policy: HuggingFacePolicy) -> HuggingFacePolicy:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        adapters = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False)
        return HuggingFacePolicy(get_peft_model(policy.model, adapters), policy.tokenizer)


def with_checkpointing(policy: HuggingFacePolicy) -> HuggingFacePolicy:
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.model.train()
    return policy


KINDS = {
    "plain": lambda dtype: small_llama(dtype),
    "tied": lambda dtype: small_llama(dtype, tied=True),
    "lora": lambda dtype: with_lora(small_llama(dtype)),
    "checkpointing": lambda dtype: with_checkpointing(small_llama(dtype)),
    "lora, checkpointing": lambda dtype: with_checkpointing(with_lora(small_llama(dtype))),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_gradients_are_those_of_rows(kind: str, dtype: str, tolerance: float) -> None:
    policy = KINDS[kind](dtype)
    for seed in range(4):
        rollouts = branching(seed, temperatures=bool(seed % 2))
        alone = [torch.tensor([b]) for b in range(rollouts.n_responses)]
        policy.prefix_sharing = False
        expected = gradient_of(policy, CLIP, rollouts, alone)
        policy.share_prefixes()
        for budget in (1, 30, 1 << 14):
            found = gradient_of(policy, CLIP, rollouts, micro_batches(rollouts, budget, shared=True))
            same(found, expected, tolerance)
    assert expected["loss"].abs() > 1e-3


@settings(max_examples=30)
@given(seed=st.integers(0, 2**20), budget=st.sampled_from([1, 25, 1 << 14]), by=st.sampled_from(["token", "episode"]))
def test_any_tree_any_cut_gives_the_gradient_of_rows(seed: int, budget: int, by: str) -> None:
    policy, rollouts = small_llama("float64"), branching(seed, temperatures=bool(seed % 2))
    objective = CLIP if by == "token" else objectives.OBJECTIVES["segment_clip"](unit="episode")
    expected = gradient_of(policy, objective, rollouts, [torch.tensor([b]) for b in range(rollouts.n_responses)])
    policy.share_prefixes()
    same(gradient_of(policy, objective, rollouts, micro_batches(rollouts, budget, shared=True)), expected, 1e-10)


def test_statistics_are_those_of_rows_in_their_order() -> None:
    policy, rollouts = small_llama("float64"), branching(7, temperatures=True)
    names = [*policy.provides, "log_prob_of/greedy/old"]
    every = [torch.arange(rollouts.n_responses).flip(0)]
    greedy = measure(policy, rollouts, ["greedy"], every)["greedy"]
    rollouts = rollouts.with_statistic("greedy/old", greedy, "trainer")
    expected = measure(policy, rollouts, names, every)
    policy.share_prefixes()
    for parts in (every, micro_batches(rollouts, 20, shared=True)):
        for name, values in measure(policy, rollouts, names, parts).items():
            torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [critic_for, reward_model_for])
def test_models_beside_the_policy_share_too(make: Any) -> None:
    rollouts = branching(3)
    policy = small_llama("float64")
    rows = make(policy, "head")
    with torch.no_grad():
        for parameter in rows.module.parameters():
            parameter.add_(0.1)
    policy.share_prefixes()
    tree = make(policy, "head")
    tree.module.load_state_dict(rows.module.state_dict())
    assert (rows.prefix_sharing, tree.prefix_sharing) == (False, True)
    every = torch.arange(rollouts.n_responses)
    for name, values in tree.statistics(rollouts, every, tree.provides).items():
        torch.testing.assert_close(values, rows.statistics(rollouts, every, rows.provides)[name], rtol=0, atol=1e-10)
    torch.testing.assert_close(tree.states_at_end(rollouts, every), rows.states_at_end(rollouts, every))
    torch.testing.assert_close(policy.hidden_sums(rollouts, every), small_llama("float64").hidden_sums(rollouts, every))


def test_a_shared_node_is_read_once_and_rows_of_another_temperature_by_themselves() -> None:
    policy = small_llama("float64")
    rollouts = Rollouts.from_lists([[5, 6], [5, 7], [5, 6]], groups=[0] * 3, prompts=[[1, 2]] * 3, rewards=[0.0] * 3)
    policy.share_prefixes()
    sizes: list[int] = []
    read = policy.read

    def counting(hidden: Tensor, *rest: Any) -> Any:
        sizes.append(len(hidden))
        return read(hidden, *rest)

    policy.read = counting  # type: ignore[method-assign]
    policy.statistics(rollouts, torch.arange(3), ["log_probs"])
    warm = rollouts.with_column("response:temperature", torch.tensor([1.0, 1.0, 0.5]))
    policy.statistics(warm, torch.arange(3), ["log_probs"])
    assert sizes == [3, 5]


def test_a_sibling_does_not_leak_and_the_check_would_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.models.packing import forward

    policy = small_llama("float32")

    def leaky(tree: Any) -> Any:
        return lambda q, k, v, scale: torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], is_causal=True, scale=scale, enable_gqa=True
        )[0]

    monkeypatch.setattr(forward, "attention_over", leaky)
    with pytest.raises(Unsupported, match="states on a tree are off"):
        policy.share_prefixes()
    assert not policy.prefix_sharing


def refused(config: Any, model: Any) -> str:
    built = model(config)
    with pytest.raises(InputError) as caught:
        check_shareable(built.base_model, built.config, nullcontext())
    message = str(caught.value)
    assert message.endswith("train it with --prefix-sharing False.")
    assert built.config._attn_implementation != NAME  # it is as it was
    return message


def test_models_it_cannot_serve_are_refused_by_name_of_what_they_do() -> None:
    import transformers as t

    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}
    assert "looks back 4 positions" in refused(t.MistralConfig(**SHAPE, sliding_window=4), t.MistralForCausalLM)
    assert "caps its attention" in refused(t.Gemma2Config(**SHAPE, head_dim=8), t.Gemma2ForCausalLM)
    assert "attention sinks" in refused(t.GptOssConfig(**SHAPE, **experts), t.GptOssForCausalLM)
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert "rotary positions (dynamic)" in refused(t.LlamaConfig(**SHAPE, rope_parameters=dynamic), t.LlamaForCausalLM)
    linear = t.Qwen3NextConfig(**SHAPE, head_dim=8, num_experts=2, num_experts_per_tok=1)
    assert "0 have attention" in refused(linear, t.Qwen3NextForCausalLM)
    mamba = t.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2)
    assert "does not run on one" in refused(mamba, t.MambaForCausalLM)


def test_a_window_shorter_than_a_row_is_refused_when_such_a_row_comes() -> None:
    import transformers as t

    model = t.MistralForCausalLM(t.MistralConfig(**SHAPE, sliding_window=8, eos_token_id=22)).eval()
    mistral = HuggingFacePolicy(model, small_llama().tokenizer)
    mistral.share_prefixes()
    short = Rollouts.from_lists([[5] * 5, [6] * 5], groups=[0, 0], prompts=[[1, 2, 3]] * 2)
    long = Rollouts.from_lists([[5] * 6, [6] * 5], groups=[0, 0], prompts=[[1, 2, 3]] * 2)
    mistral.statistics(short, torch.arange(2), ["log_probs"])
    with pytest.raises(InputError, match="looks back 8 positions and the longest row has 9"):
        mistral.statistics(long, torch.arange(2), ["log_probs"])


def test_cuts_hold_so_many_distinct_prefixes_and_keep_what_shares_together() -> None:
    rollouts = Rollouts.from_lists(
        [[5, 6, 7], [8, 9], [5, 6, 4], [8, 3]], groups=[0, 1, 0, 1], prompts=[[1, 1], [2, 2], [1, 1], [2, 2]]
    )
    parts = [sorted(part.tolist()) for part in micro_batches(rollouts, 6, shared=True)]
    assert parts == [[0, 2], [1, 3]]
    assert sorted(b for part in micro_batches(rollouts, 1, shared=True) for b in part.tolist()) == [0, 1, 2, 3]


def test_a_table_has_no_prefixes_to_share() -> None:
    assert not TabularPolicy(vocabulary=3, depth=2).prefix_sharing
