"""Attention over a prefix tree as few, large blocks.

A chain looks at itself causally, and all its descendants look at all of it: two blocks without a mask a chain. Chains
of equal length next to each other share one call; a subtree so small that calls would cost more than they compute is
one block with a mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.models.packing.tree import PrefixTree, Segment

SMALL = 160
"""Nodes of the largest subtree that is computed with a mask."""


@dataclass(frozen=True)
class Causal:
    """``count`` chains of ``length`` nodes each, end to end from ``start``; each looks at itself."""

    start: int
    length: int
    count: int


@dataclass(frozen=True, eq=False)
class Masked:
    """A subtree ``[start, end)`` that looks at itself, with the mask ``[n, n]`` added to the scores."""

    start: int
    end: int
    mask: Tensor


@dataclass(frozen=True)
class Below:
    """The descendants ``[end, last)`` of the chain ``[start, end)`` look at all of it."""

    start: int
    end: int
    last: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Blocks that together are the attention of a tree.

    Attributes:
        own: every node is in exactly one of them, with itself.
        below: the rest, by chains from the root on.
    """

    own: tuple[Causal | Masked, ...]
    below: tuple[Below, ...]


def plan(tree: PrefixTree, small: int = SMALL) -> Plan:
    """The blocks of a tree.

    Args:
        tree: any.
        small: subtrees of at most so many nodes, forks inside, are one block with a mask.

    Example:
        >>> from apportion.models.packing import prefix_tree
        >>> tree = prefix_tree(torch.tensor([5, 6, 7, 5, 6, 8]), torch.tensor([0, 3, 6]))
        >>> blocks = plan(tree, small=0)
        >>> blocks.own
        (Causal(start=0, length=2, count=1), Causal(start=2, length=1, count=2))
        >>> blocks.below
        (Below(start=0, end=2, last=4),)
        >>> [(block.start, block.end) for block in plan(tree).own]
        [(0, 4)]
    """
    own: list[Causal | Masked] = []
    below: list[Below] = []
    for segment in _outside_small(tree.segments, small):
        forks = segment.last > segment.end
        if forks and segment.last - segment.start <= small:
            own.append(Masked(segment.start, segment.last, _mask(tree, segment.start, segment.last)))
            continue
        own.append(Causal(segment.start, segment.end - segment.start, 1))
        if forks:
            below.append(Below(segment.start, segment.end, segment.last))
    return Plan(tuple(_joined(own)), tuple(below))


def visible(tree: PrefixTree, start: int, end: int) -> Tensor:
    """Bool ``[n, n]``: whether a node of ``[start, end)``, a row, sees another, a column: itself and those above it."""
    nodes = torch.arange(start, end, device=tree.ids.device)
    return (nodes[None, :] <= nodes[:, None]) & (nodes[:, None] < tree.lasts[start:end][None, :])


def _mask(tree: PrefixTree, start: int, end: int) -> Tensor:
    seen = visible(tree, start, end)
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)


def _outside_small(segments: Sequence[Segment], small: int) -> Iterator[Segment]:
    """Segments that do not lie inside a small subtree that another began."""
    covered = 0
    for segment in segments:
        if segment.start < covered:
            continue
        if segment.last - segment.start <= small:
            covered = segment.last
        yield segment


def _joined(own: Sequence[Causal | Masked]) -> Iterator[Causal | Masked]:
    """Chains of equal length next to each other in one block."""
    for key, run in itertools.groupby(own, key=lambda block: block.length if isinstance(block, Causal) else None):
        blocks = list(run)
        if key is None:
            yield from blocks
        else:
            yield Causal(blocks[0].start, key, len(blocks))
