"""Group statistics and the outcome methods made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """0 without values."""
    return math.fsum(values) / len(values) if values else 0.0


def deviation(values: Sequence[float], ddof: int = 1) -> float:
    """Standard deviation with divisor ``n - ddof``; 0 where that is not positive."""
    if len(values) <= ddof:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - ddof))


def group_statistics(
    values: Sequence[float],
    groups: Sequence[int],
    members: Sequence[bool] | None = None,
    leave_one_out: bool = False,
    ddof: int = 1,
) -> tuple[list[float], list[float], list[int]]:
    """For every row, the mean, deviation and number of the members of its group, perhaps without itself."""
    makes = members if members is not None else [True] * len(values)
    means, deviations, counts = [], [], []
    for i, group in enumerate(groups):
        others = [
            values[j] for j in range(len(values)) if groups[j] == group and makes[j] and not (leave_one_out and j == i)
        ]
        means.append(mean(others))
        deviations.append(deviation(others, ddof))
        counts.append(len(others))
    return means, deviations, counts


def grpo(
    rewards: Sequence[float], groups: Sequence[int], *, norm_by_std: bool, eps: float, singleton: str = "zero"
) -> list[float]:
    """Advantage of every response."""
    advantages = []
    for reward, group in zip(rewards, groups, strict=True):
        mine = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        if len(mine) == 1:
            centre, scale = 0.0, 1.0
            reward = reward if singleton == "raw" else 0.0
        elif max(mine) == min(mine):
            centre, scale = reward, 1.0
        else:
            centre, scale = mean(mine), deviation(mine)
        advantages.append((reward - centre) / (scale + eps) if norm_by_std else reward - centre)
    return advantages


def rloo(rewards: Sequence[float], groups: Sequence[int], *, singleton: str = "zero") -> list[float]:
    """Advantage of every response."""
    advantages = []
    for i, group in enumerate(groups):
        others = [rewards[j] for j in range(len(rewards)) if groups[j] == group and j != i]
        alone = rewards[i] if singleton == "raw" else 0.0
        advantages.append(rewards[i] - mean(others) if others else alone)
    return advantages


def on_tokens(advantages: Sequence[float], trained: Sequence[Sequence[bool]]) -> list[list[float]]:
    """Every response's advantage at its trained tokens, 0 elsewhere."""
    return [[a if t else 0.0 for t in row] for a, row in zip(advantages, trained, strict=True)]
