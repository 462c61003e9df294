"""Attention over a prefix tree on a GPU, by FlexAttention: one call whose mask is two comparisons.

Suffix legend: U nodes, H heads, K key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.models.packing.attention import by_mask
from apportion.models.packing.tree import PrefixTree, prefix_tree

BLOCK = 128
"""Nodes are filled up to a multiple of this, so that trees of many sizes share few compiled kernels."""


def by_flex(tree: PrefixTree, compiled: bool = True) -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    """Attention over a tree: ``(query [H, U, E], key [K, U, E], value [K, U, E], scale) -> [H, U, E]``.

    A node sees those with ``k <= q < lasts[k]``; blocks in which nobody sees anybody are not computed.

    Args:
        tree: which nodes.
        compiled: through ``torch.compile``; otherwise torch computes all scores, which is for tests.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    nodes = len(tree)
    size = -(-nodes // BLOCK) * BLOCK
    # A node that only fills up sees itself, so that no row is without keys.
    own = torch.arange(nodes + 1, size + 1, device=tree.lasts.device)
    lasts = torch.cat([tree.lasts, own])

    def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < lasts[k])

    mask = create_block_mask(sees, None, None, size, size, device=str(lasts.device))

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        rows = [F.pad(x, (0, 0, 0, size - nodes))[None] for x in (query, key, value)]
        grouped = query.shape[0] != key.shape[0]
        out: Tensor = _flex(compiled)(*rows, block_mask=mask, scale=scale, enable_gqa=grouped)
        return out[0, :, :nodes]

    return attend


@cache
def _flex(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    call: Any = torch.compile(flex_attention) if compiled else flex_attention
    return cast(Callable[..., Any], call)


@cache
def flex_works(device: str) -> bool:
    """Whether this torch has FlexAttention with a backward pass on a type of device, and both do what is expected.

    Asked once: a small case is compared with a public operator, outputs and gradients.
    """
    ids, offsets = torch.tensor([1, 2, 3, 1, 2, 4, 5, 1, 6]), torch.tensor([0, 3, 7, 9])
    tree = prefix_tree(ids.to(device), offsets.to(device))
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn((heads, len(tree), 16), generator=draw).to(device) for heads in (2, 1, 1)]
    slope = torch.randn((2, len(tree), 16), generator=draw).to(device)
    try:
        found = _with_gradients(by_flex(tree), inputs, slope)
    except (ImportError, NotImplementedError, RuntimeError):
        return False
    expected = _with_gradients(lambda q, k, v, scale: by_mask(q, k, v, tree, scale), inputs, slope)
    # Kernels may multiply in TF32, of ten bits.
    return all(float((a - b).norm() / b.norm()) < 1e-2 for a, b in zip(found, expected, strict=True))


def _with_gradients(
    attend: Callable[[Tensor, Tensor, Tensor, float], Tensor], inputs: list[Tensor], slope: Tensor
) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = attend(leaves[0], leaves[1], leaves[2], 0.25)
        return [out.detach(), *torch.autograd.grad(out, leaves, slope)]
