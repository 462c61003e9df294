"""Any Hugging Face causal language model as a policy.

The output head runs only at positions whose next token is trained, in chunks, so that the [tokens, vocabulary] matrix
is never whole.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from apportion.errors import InputError
from apportion.models.codec import TokenizerCodec
from apportion.models.head import logits_of
from apportion.models.statistics import LOG_PROB_OF, STATISTICS, chunk_size, from_logits, id_columns
from apportion.models.trunk import TrunkModel
from apportion.models.value_heads import VALUES, ValueHeads, heads_in, linear_head, worth
from apportion.rollouts import Rollouts

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class HuggingFacePolicy(TrunkModel):
    """A causal language model and its tokenizer.

    Args:
        model: a transformers causal language model, or a peft model around one.
        tokenizer: its tokenizer.
        autocast: dtype of the training forward pass where the parameters are wider; None: the parameters' own.

    Raises:
        InputError: the model's logits are not its output head applied to its trunk (a soft cap, a scale), or it has
            dropout, or mixture-of-experts losses, under which cut batches would not give the gradient of whole ones.
    """

    provides = tuple(STATISTICS)
    families = (LOG_PROB_OF,)

    def __init__(self, model: Any, tokenizer: Any, autocast: torch.dtype | None = None) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        super().__init__(model, inner.base_model, autocast)
        self.model, self.tokenizer = model, tokenizer
        self.head: Module = inner.get_output_embeddings()
        self.config = inner.config
        self.value_heads = ValueHeads()
        self.chunk = chunk_size(self.vocabulary, self.device)
        self.context = int(getattr(self.config, "max_position_embeddings", None) or 1 << 30)
        _refuse_unsupported(model, self)

    @property
    def vocabulary(self) -> int:
        return int(self.config.vocab_size)

    def codec(self, instruction: str = "{prompt}", chat: bool | None = None) -> TokenizerCodec:
        """How this model reads tasks; responses end at the tokens its generation settings or tokenizer name."""
        named = getattr(self.model, "generation_config", None) and self.model.generation_config.eos_token_id
        ends = [*(named if isinstance(named, list) else [named]), self.tokenizer.eos_token_id]
        end_ids = tuple(sorted({int(i) for i in ends if i is not None}))
        return TokenizerCodec(self.tokenizer, end_ids, instruction, chat)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters that train, those of value heads last."""
        yield from super().named_parameters()
        yield from ((f"values.{n}", p) for n, p in self.value_heads.named_parameters() if p.requires_grad)

    def add_value_head(self, head: str) -> None:
        """Give the statistic ``values/<head>``: a linear map of the trunk's states that begins at 0."""
        self.value_heads[head] = linear_head(self.config.hidden_size, next(self.trunk.parameters()))
        self.provides = (*self.provides, f"{VALUES}{head}")

    def read(self, hidden: Tensor, tokens: Tensor, rollouts: Rollouts, names: Sequence[str]) -> Mapping[str, Tensor]:
        values = {f"{VALUES}{head}": worth(self.value_heads[head], hidden) for head in heads_in(names)}
        of_logits = [name for name in names if name not in values]
        if not of_logits:
            return values
        with self.precision():
            logits = logits_of(self.head, hidden)
        temperature = rollouts.temperature[rollouts.response_of_token[tokens]]
        others = {name: rollouts.column(name, tokens)[tokens] for name in id_columns(of_logits)}
        return {**values, **from_logits(logits, rollouts.ids[tokens], temperature, of_logits, others)}

    def save(self, folder: Path) -> None:
        with _quietly():
            self.model.save_pretrained(folder, max_shard_size="1000GB")  # one file: load_weights reads one
            self.tokenizer.save_pretrained(folder)
        self.value_heads.save(folder)

    def load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.value_heads.load(folder)
        name = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors"
        state = load_file(folder / name)
        if name == "adapter_model.safetensors":
            if not hasattr(self.model, "peft_config"):
                raise InputError(f"{folder} holds adapters and this model has none: give the settings of its run.")
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.model, state)
            return
        _check_weights(folder, self.model.state_dict(), state)
        self.model.load_state_dict(state, strict=False)  # tied weights are stored once
        self.model.tie_weights()

    def clone(self) -> HuggingFacePolicy:
        """A copy with weights of its own."""
        twin = HuggingFacePolicy(copy.deepcopy(self.model), self.tokenizer, self.autocast)
        twin.value_heads, twin.provides = copy.deepcopy(self.value_heads), self.provides
        twin.prefix_sharing = self.prefix_sharing
        return twin

    def frozen_copy(self) -> HuggingFacePolicy:
        """The reference policy: with adapters the same weights with adapters off, else a copy that does not train."""
        if hasattr(self.model, "disable_adapter"):
            off = _AdaptersOff(self.model, self.tokenizer, self.autocast)
            off.prefix_sharing = self.prefix_sharing
            return off
        twin = self.clone()
        twin.model.requires_grad_(False)
        twin.value_heads.requires_grad_(False)
        return twin


def _check_weights(folder: Path, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Refuse weights of another model: some too many, too few, or of other shapes. Tied weights may be there once."""
    loaded = {own[name].data_ptr() for name in state if name in own}
    for what, names in (
        ("weights this model does not have", [name for name in state if name not in own]),
        ("weights of other shapes", [name for name in state if name in own and own[name].shape != state[name].shape]),
        ("no value of some weights", [n for n in own if n not in state and own[n].data_ptr() not in loaded]),
    ):
        if names:
            raise InputError(f"{folder} holds {what}, such as {names[0]!r}: it is a checkpoint of another model.")


class _AdaptersOff(HuggingFacePolicy):
    """The model under its adapters."""

    def statistics(self, rollouts: Rollouts, responses: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        with self.model.disable_adapter():
            return super().statistics(rollouts, responses, names)

    def hidden_sums(self, rollouts: Rollouts, responses: Tensor) -> Tensor:
        with self.model.disable_adapter():
            return super().hidden_sums(rollouts, responses)

    def load_weights(self, folder: Path) -> None:
        """Nothing to read: the weights under the adapters never change."""


def _refuse_unsupported(model: Any, policy: HuggingFacePolicy) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            raise InputError(
                f"the model has dropout {module.p} at {name!r}, expected 0: the two passes of a step must "
                "agree; set the dropout of the model (or of LoRA) to 0."
            )
    if getattr(policy.config, "router_aux_loss_coef", 0) and getattr(policy.config, "output_router_logits", False):
        raise InputError("the model adds a mixture-of-experts auxiliary loss, which this trainer does not compute.")
    ids = torch.arange(1, 9, device=policy.device)[None] % policy.vocabulary
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % policy.vocabulary
    loud = policy.head.register_forward_hook(
        lambda module, inputs, output: 1000 * output
    )  # a cap shows on large logits
    try:
        with torch.no_grad():
            states = policy.trunk(input_ids=ids, use_cache=False)[0]
            changed = policy.trunk(input_ids=other, use_cache=False)[0]
            whole = model(input_ids=ids, use_cache=False).logits
            parts = policy.head(states)
    finally:
        loud.remove()
    tolerance = 1e-2 if states.dtype == torch.bfloat16 else 1e-4
    if not torch.allclose(states[:, :-1], changed[:, :-1], rtol=tolerance, atol=tolerance):
        raise InputError(
            f"in {type(model).__name__} tokens see what comes after them, expected a causal language model: choose a "
            "decoder."
        )
    if whole.shape != parts.shape or not torch.allclose(whole, parts.to(whole.dtype), rtol=1e-2, atol=1e-2):
        raise InputError(
            f"{type(model).__name__} changes its logits after the output head (a soft cap or a scale), expected "
            "logits = head(trunk): this model is not supported, choose another."
        )


def load(
    path: str | Path, *, device: str = "cpu", dtype: str = "float32", autocast: str | None = None
) -> HuggingFacePolicy:
    """Load a policy from a folder or, where a hub is reachable, by name.

    Args:
        path: folder with a model and a tokenizer, or a hub name.
        device: where to put it.
        dtype: of the parameters: float32, bfloat16 or float64.
        autocast: dtype of the training forward pass, or None.

    Raises:
        InputError: no such model, no tokenizer beside it, or an architecture that is not a causal language model.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "config.json")):
        raise InputError(f"{path} has no config.json, expected a Hugging Face model folder: save the model there.")
    if not os.path.isdir(path) and (os.path.isabs(path) or os.path.exists(path) or str(path).startswith(".")):
        raise InputError(f"there is no model folder {str(path)!r}: give a folder with a model, or a name.")
    with _quietly():
        try:
            config = AutoConfig.from_pretrained(path)
        except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
            raise InputError(
                f"cannot load a model from {str(path)!r} ({_first_line(error)}): give a folder with a model, or a name."
            ) from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{str(path)!r} has no tokenizer that can be loaded ({_first_line(error)}): save the tokenizer into "
                "the same folder."
            ) from None
        if not len(tokenizer):
            raise InputError(f"{str(path)!r} has no tokenizer: save the tokenizer into the same folder.")
        try:
            model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=DTYPES[dtype])
        except ValueError as error:
            raise InputError(
                f"{str(path)!r} is a {config.model_type} model, which is not supported: choose a causal language model "
                f"({_first_line(error)})."
            ) from None
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"the weights in {str(path)!r} cannot be loaded ({_first_line(error)}): save the model anew."
            ) from None
    model.to(device).eval()
    return HuggingFacePolicy(model, tokenizer, None if autocast is None else DTYPES[autocast])


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' bars and warnings: what is wrong is said in one sentence of our own."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160]
