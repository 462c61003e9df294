"""Attention of every node to the nodes above it, forward and backward, by the blocks of a plan.

Blocks that look at different keys are merged by their log-sum-exp, as flash attention merges tiles:

    lse = log(exp(lse_1) + exp(lse_2)),   out = out_1 exp(lse_1 - lse) + out_2 exp(lse_2 - lse)

and the backward pass of a block, given the final ``out`` and ``lse``, gives its share of the gradients of queries, keys
and values. Torch's flash attention for the CPU exposes both passes with ``lse``.

Suffix legend: U nodes, H heads, K key-value heads, M = H / K heads that share one, E head size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.models.packing.plan import Causal, Masked, Plan, visible
from apportion.models.packing.tree import PrefixTree, Segment


def by_blocks(query: Tensor, key: Tensor, value: Tensor, blocks: Plan, scale: float) -> Tensor:
    """Attention over a tree on the CPU.

    Args:
        query: ``[H, U, E]``.
        key: ``[K, U, E]``, K divides H.
        value: ``[K, U, E]``.
        blocks: the tree's plan.
        scale: of the scores.

    Returns:
        ``[H, U, E]``.
    """
    return _Blocks.apply(query, key, value, blocks, scale)


def by_paths(query: Tensor, key: Tensor, value: Tensor, tree: PrefixTree, scale: float) -> Tensor:
    """The same by public operators, on any device: every chain looks at the nodes of its path, gathered.

    Args:
        query: ``[H, U, E]``.
        key: ``[K, U, E]``.
        value: ``[K, U, E]``.
        tree: the tree.
        scale: of the scores.
    """
    outputs: list[Tensor] = []
    path: list[Segment] = []
    for segment in tree.segments:
        path = [above for above in path if above.last > segment.start] + [segment]
        nodes = torch.cat([torch.arange(above.start, above.end, device=query.device) for above in path])
        length, before = segment.end - segment.start, len(nodes) - (segment.end - segment.start)
        mask = torch.ones((length, len(nodes)), dtype=torch.bool, device=query.device).tril(before)
        outputs.append(
            F.scaled_dot_product_attention(
                query[None, :, segment.start : segment.end],
                key[None, :, nodes],
                value[None, :, nodes],
                attn_mask=mask,
                scale=scale,
                enable_gqa=query.shape[0] != key.shape[0],
            )[0]
        )
    return torch.cat(outputs, 1)


def by_mask(query: Tensor, key: Tensor, value: Tensor, tree: PrefixTree, scale: float) -> Tensor:
    """The same by one masked call: quadratic in the tree's size, and what the others are tested against."""
    mask = visible(tree, 0, len(tree))
    heads = (query[None], key[None], value[None])
    return F.scaled_dot_product_attention(
        *heads, attn_mask=mask, scale=scale, enable_gqa=query.shape[0] != key.shape[0]
    )[0]


@cache
def blocks_work() -> bool:
    """Whether this torch has the pair of operators that :func:`by_blocks` calls, and they do what is expected.

    They are not part of torch's public interface, so a small case is compared with a public operator once.
    """
    try:
        draw = torch.Generator().manual_seed(0)
        query, key, value, slope = (torch.randn((1, 2, 5, 4), generator=draw, dtype=torch.float64) for _ in range(4))
        out, lse = _forward(query, key, value, 0.5, causal=True)
        gradients = _backward(slope, query, key, value, out, lse, 0.5, causal=True)
    except (AttributeError, RuntimeError, TypeError):
        return False
    with torch.enable_grad():
        q, k, v = leaves = [x.clone().requires_grad_() for x in (query, key, value)]
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5)
        slopes = torch.autograd.grad(expected, leaves, slope)
    pairs = zip((out, *gradients), (expected.detach(), *slopes), strict=True)
    return all(bool(torch.allclose(one, other)) for one, other in pairs)


class _Blocks(torch.autograd.Function):
    """Queries as ``[K, M, U, E]``, keys and values as ``[K, 1, U, E]`` that every head of a group reads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Plan, scale: float) -> Tensor:
        q, k, v = _by_key_heads(query, key), key[:, None], value[:, None]
        wide = torch.promote_types(query.dtype, torch.float32)
        out = torch.empty(q.shape, dtype=wide, device=q.device)
        lse = torch.empty(q.shape[:-1], dtype=wide, device=q.device)
        for block in blocks.own:
            rows = _rows(block)
            part, part_lse = _forward(*_own(q, k, v, block), scale, **_looks(block, q.dtype))
            out[:, :, rows], lse[:, :, rows] = _back(part, block, k), _back(part_lse, block, k)
        for below in blocks.below:
            rows, above = slice(below.end, below.last), slice(below.start, below.end)
            part, part_lse = _forward(q[:, :, rows], *_shared(k, v, above, q), scale)
            merged = torch.logaddexp(lse[:, :, rows], part_lse)
            out[:, :, rows] *= (lse[:, :, rows] - merged).exp()[..., None]
            out[:, :, rows].addcmul_(part, (part_lse - merged).exp()[..., None])
            lse[:, :, rows] = merged
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.blocks, ctx.scale = blocks, scale
        return out.reshape(query.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        q, k, v, g = _by_key_heads(query, key), key[:, None], value[:, None], _by_key_heads(grad, key)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(key), torch.zeros_like(value)
        for block in ctx.blocks.own:
            rows, of = _rows(block), (lambda x, block=block: _own_queries(x, block))
            inside = _own(q, k, v, block)
            parts = _backward(of(g), *inside, of(out), of(lse), ctx.scale, **_looks(block, q.dtype))
            dq[:, :, rows] += _back(parts[0], block, k)
            dk[:, rows] += _back(parts[1], block, k).sum(1)
            dv[:, rows] += _back(parts[2], block, k).sum(1)
        for block in ctx.blocks.below:
            rows, above = slice(block.end, block.last), slice(block.start, block.end)
            parts = _backward(
                g[:, :, rows], q[:, :, rows], *_shared(k, v, above, q), out[:, :, rows], lse[:, :, rows], ctx.scale
            )
            dq[:, :, rows] += parts[0]
            dk[:, above] += parts[1].sum(1)
            dv[:, above] += parts[2].sum(1)
        return dq.reshape(query.shape), dk, dv, None, None


def _by_key_heads(heads: Tensor, key: Tensor) -> Tensor:
    """``[H, U, ...]`` as ``[K, M, U, ...]``."""
    return heads.unflatten(0, (key.shape[0], -1))


def _rows(block: Causal | Masked) -> slice:
    if isinstance(block, Masked):
        return slice(block.start, block.end)
    return slice(block.start, block.start + block.length * block.count)


def _looks(block: Causal | Masked, dtype: torch.dtype) -> dict[str, Any]:
    return {"causal": True} if isinstance(block, Causal) else {"mask": block.mask.to(dtype)}


def _own_queries(x: Tensor, block: Causal | Masked) -> Tensor:
    """``[K, M, U, ...]`` at a block: ``[K count, M, length, ...]``, every chain a batch of its own."""
    x = x[:, :, _rows(block)]
    if isinstance(block, Masked) or block.count == 1:
        return x
    return x.unflatten(2, (block.count, block.length)).transpose(1, 2).flatten(0, 1)


def _own(q: Tensor, k: Tensor, v: Tensor, block: Causal | Masked) -> tuple[Tensor, Tensor, Tensor]:
    shared = q.shape[1]
    keys, values = (_own_queries(x, block) for x in (k, v))
    return _own_queries(q, block), keys.expand(-1, shared, -1, -1), values.expand(-1, shared, -1, -1)


def _back(x: Tensor, block: Causal | Masked, k: Tensor) -> Tensor:
    """The inverse of :func:`_own_queries`: ``[K, M, nodes of the block, ...]``."""
    if isinstance(block, Masked) or block.count == 1:
        return x
    return x.unflatten(0, (k.shape[0], block.count)).transpose(1, 2).flatten(2, 3)


def _shared(k: Tensor, v: Tensor, above: slice, q: Tensor) -> tuple[Tensor, Tensor]:
    shared = q.shape[1]
    return k[:, :, above].expand(-1, shared, -1, -1), v[:, :, above].expand(-1, shared, -1, -1)


def _forward(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=mask, scale=scale
    )


def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, out, lse, 0.0, causal, attn_mask=mask, scale=scale
    )
