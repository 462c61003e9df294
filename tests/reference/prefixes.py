"""Prefix values by looking every prefix up in a dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from reference.outcome import deviation, mean

Prefix = tuple[int, tuple[int, ...]]


def passers(ids: Sequence[Sequence[int]], groups: Sequence[int]) -> dict[Prefix, list[int]]:
    """For every group and prefix (the empty one included), the responses that begin with it."""
    through: dict[Prefix, list[int]] = {}
    for i, (row, group) in enumerate(zip(ids, groups, strict=True)):
        for length in range(len(row) + 1):
            through.setdefault((group, tuple(row[:length])), []).append(i)
    return through


def prefix_values(ids: Sequence[Sequence[int]], rewards: Sequence[float], groups: Sequence[int]) -> list[list[float]]:
    """For every response, the value before any token and after each token."""
    through = passers(ids, groups)
    return [
        [mean([rewards[k] for k in through[group, tuple(row[:length])]]) for length in range(len(row) + 1)]
        for row, group in zip(ids, groups, strict=True)
    ]


def tempo(
    ids: Sequence[Sequence[int]],
    rewards: Sequence[float],
    groups: Sequence[int],
    trained: Sequence[Sequence[bool]],
    *,
    norm_by_std: bool,
    eps: float,
) -> list[list[float]]:
    """Advantage of every token."""
    values = prefix_values(ids, rewards, groups)
    advantages = []
    for i, (row, group) in enumerate(zip(ids, groups, strict=True)):
        mine = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        equal = max(mine) == min(mine)
        scale = deviation(mine) + eps if norm_by_std else 1.0
        advantages.append(
            [
                (rewards[i] - mean(mine) + values[i][t + 1] - values[i][t]) / scale
                if trained[i][t] and not equal
                else 0.0
                for t in range(len(row))
            ]
        )
    return advantages
