"""GiGPO: scores of attempts, and returns of steps in the same state, in loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference.outcome import deviation, mean
from reference.returns import discounted

Rows = list[list[float]]


def against(value: float, members: Sequence[float], mode: str, eps: float, alone: float) -> float:
    """A value against those that make the statistic; ``alone`` with one, 0 where they are all equal and F divides."""
    if len(members) <= 1:
        return alone if members else 0.0
    if mode == "mean_norm":
        return value - mean(members)
    scale = deviation(members)
    return (value - mean(members)) / (scale + eps) if scale > 0 else 0.0


def gigpo(
    rewards: Sequence[Sequence[float]],
    states: Sequence[Sequence[str]],
    groups: Sequence[int],
    penalties: Sequence[Sequence[float]],
    discounts: Sequence[Sequence[float]],
    *,
    mode: str,
    eps: float,
    episode_stats: str,
) -> tuple[Rows, Rows, Rows]:
    """Returns, advantages of attempts and advantages within states, of every step; 0 in groups of one attempt."""
    attempts = range(len(rewards))
    returns = [
        [g - p for g, p in zip(discounted(row, a), pen, strict=True)]
        for row, a, pen in zip(rewards, discounts, penalties, strict=True)
    ]
    scores = [[math.fsum(row) - p for p in pen] for row, pen in zip(rewards, penalties, strict=True)]
    by_attempt: Rows = []
    by_state: Rows = []
    for i in attempts:
        mine = [j for j in attempts if groups[j] == groups[i]]
        rows = [scores[j][:1] if episode_stats == "trajectory" else scores[j] for j in mine]
        members = [s for row in rows for s in row]
        steps = [(states[j][t], returns[j][t]) for j in mine for t in range(len(rewards[j]))]
        keep = len(mine) > 1
        by_attempt.append([against(s, members, mode, eps, 0.0) if keep else 0.0 for s in scores[i]])
        by_state.append(
            [
                against(g, [r for s, r in steps if s == state], mode, eps, 0.0) if keep else 0.0
                for g, state in zip(returns[i], states[i], strict=True)
            ]
        )
    return returns, by_attempt, by_state
