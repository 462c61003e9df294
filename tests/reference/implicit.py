"""OPRL: log-ratios of turns, compared within groups, in loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference.outcome import deviation, mean


def compare(value: float, members: Sequence[float], estimator: str, eps: float) -> float:
    """A value against those that make the statistic; 0 with fewer than two, and where they are all equal."""
    n = len(members)
    if n < 2:
        return 0.0
    centred = value - mean(members)
    if estimator == "rloo":
        return centred * n / (n - 1)
    if estimator == "grpo_mean":
        return centred
    scale = deviation(members)
    return centred / (scale + eps) if scale > 0 else 0.0


def oprl(
    prm: Sequence[Sequence[Sequence[float]]],
    old: Sequence[Sequence[Sequence[float]]],
    rewards: Sequence[float],
    groups: Sequence[int],
    *,
    beta: float,
    alpha: float,
    estimator: str,
    norm: str,
    step_baseline: str,
    eps: float,
) -> list[list[float]]:
    """Advantage of every turn, from the log-probs of its trained tokens ``[attempt][turn][token]``.

    A turn without trained tokens is not compared and gets 0; so does a group of one attempt.
    """
    scores = [
        [beta * math.fsum(a - b for a, b in zip(mine, other, strict=True)) for mine, other in zip(p, o, strict=True)]
        for p, o in zip(prm, old, strict=True)
    ]
    if norm == "batch_max":
        largest = max((abs(s) for row in scores for s in row), default=0.0) + 1e-6
        scores = [[s / largest for s in row] for row in scores]
    result = []
    for i, group in enumerate(groups):
        mine = [j for j, g in enumerate(groups) if g == group]
        outcome = compare(rewards[i], [rewards[j] for j in mine], estimator, eps)
        members = [
            scores[j][t]
            for j in mine
            for t in range(len(scores[j]))
            if prm[j][t] and (step_baseline == "all_rows" or t == 0)
        ]
        result.append(
            [
                outcome + alpha * compare(s, members, estimator, eps) if turn and len(mine) > 1 else 0.0
                for s, turn in zip(scores[i], prm[i], strict=True)
            ]
        )
    return result
