"""Several rewards mixed by multipliers, and the step of the multipliers, number by number."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = list[list[float]]


def standardised(rows: Rows, trained: Sequence[Sequence[bool]]) -> Rows:
    """All trained tokens together to mean 0 and sample deviation 1."""
    inside = [x for row, mask in zip(rows, trained, strict=True) for x, train in zip(row, mask, strict=True) if train]
    mean = math.fsum(inside) / len(inside)
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in inside) / (len(inside) - 1))
    return [
        [(x - mean) / (std + 1e-8) if train else 0.0 for x, train in zip(row, mask, strict=True)]
        for row, mask in zip(rows, trained, strict=True)
    ]


def multipliers(raw: Sequence[float], constraint: str) -> list[float]:
    """Squashed."""
    return [math.tanh(x) if constraint == "equality" else 1 / (1 + math.exp(-x)) for x in raw]


def mixed(task: Rows, parts: Sequence[Rows], weights: Sequence[float], sign: int = 1) -> Rows:
    """``(K - sum m) A_0 + sign sum_i m_i A_i``, token by token."""
    left = len(parts) - sum(weights)
    return [
        [left * a + sign * sum(m * p[i][t] for m, p in zip(weights, parts, strict=True)) for t, a in enumerate(row)]
        for i, row in enumerate(task)
    ]


def dual_step(
    raw: Sequence[float],
    buffer: Sequence[float],
    mean_to_go: Sequence[float],
    thresholds: Sequence[float],
    *,
    constraint: str,
    lr: float,
    momentum: float,
    max_norm: float,
) -> tuple[list[float], list[float]]:
    """Raw multipliers and momentum after one step."""
    slopes = []
    for x, total, threshold in zip(multipliers(raw, constraint), mean_to_go, thresholds, strict=True):
        slope = 1 - x * x if constraint == "equality" else x * (1 - x)
        slopes.append(slope * (threshold - total if constraint == "upper_bound" else total - threshold))
    norm = math.sqrt(sum(g * g for g in slopes))
    shrink = min(1.0, max_norm / (norm + 1e-6))
    after = [momentum * b + shrink * g for b, g in zip(buffer, slopes, strict=True)]
    return [x - lr * b for x, b in zip(raw, after, strict=True)], after
