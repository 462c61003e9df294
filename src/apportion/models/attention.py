"""Look at attention maps, one at a time, as a Hugging Face model makes them.

Attached through transformers' attention interface under a name of its own: the model's own modules run, nothing is
patched. Layers that nobody asked about go the fast way; of the others one head's map exists at a time.

Suffix legend: T tokens of one row, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from apportion.errors import InputError
from apportion.models.huggingface import HuggingFacePolicy

NAME = "apportion_observed"

Observe = Callable[[int, int, Tensor], None]
"""``(layer, head, map [T, T])``; rows sum to 1, nothing above the diagonal."""


def observe_attention(policy: HuggingFacePolicy, ids: Tensor, layers: Collection[int], observe: Observe) -> None:
    """Run one row through the model and show the attention maps of some layers.

    Args:
        policy: whose model.
        ids: token ids of the row ``[T]``.
        layers: which layers, from 0.
        observe: called for every head of these layers, in order.

    Raises:
        InputError: a layer the model does not have, or attention that does not go through the interface.
    """
    depth = policy.config.num_hidden_layers
    if not set(layers) <= set(range(depth)):
        raise InputError(f"layers {sorted(layers)} were asked for, expected some of 0..{depth - 1}.")
    seen: set[int] = set()

    def watching(layer: int, head: int, attention: Tensor) -> None:
        seen.add(layer)
        observe(layer, head, attention)

    with torch.no_grad(), _attached(policy, set(layers), watching):
        policy.trunk(input_ids=ids[None], use_cache=False)
    if seen != set(layers):
        raise InputError(
            f"the attention of layers {sorted(set(layers) - seen)} of {type(policy.model).__name__} does not go "
            "through transformers' attention interface, so it cannot be looked at: use a model whose attention does."
        )


@contextmanager
def _attached(policy: HuggingFacePolicy, layers: set[int], observe: Observe) -> Iterator[None]:
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    fast = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(
        module: Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **arguments: Any
    ) -> tuple[Tensor, None]:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        if layer not in layers:
            output, _ = fast(module, query, key, value, attention_mask, **arguments)
            return output, None
        return _one_head_at_a_time(layer, query, key, value, arguments.get("scaling"), observe), None

    AttentionInterface.register(NAME, attend)
    before = policy.config._attn_implementation
    policy.config._attn_implementation = NAME
    try:
        yield
    finally:
        policy.config._attn_implementation = before


def _one_head_at_a_time(
    layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, observe: Observe
) -> Tensor:
    """Causal attention of one row; ``query [1, heads, T, D]``, keys and values perhaps with fewer heads."""
    heads, length = query.shape[1], query.shape[2]
    shared = heads // key.shape[1]
    above = torch.ones((length, length), dtype=torch.bool, device=query.device).triu(1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    outputs = []
    for head in range(heads):
        scores = (query[0, head] @ key[0, head // shared].T) * scale
        attention = scores.float().masked_fill(above, -torch.inf).softmax(-1)
        observe(layer, head, attention)
        outputs.append(attention.to(value.dtype) @ value[0, head // shared])
    return torch.stack(outputs, 1)[None]
