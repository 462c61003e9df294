"""Clipped surrogate, KL estimates and aggregation."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]
Masks = Sequence[Sequence[bool]]


def bounded(value: float, low: float, high: float) -> float:
    """The value, moved to the nearer bound if outside."""
    return min(max(value, low), high)


def clip_term(
    log_prob: float, old: float, advantage: float, *, low: float, high: float, dual: float | None = None
) -> float:
    """Loss of one token."""
    ratio = math.exp(bounded(log_prob - old, -20, 20))
    loss = max(-advantage * ratio, -advantage * bounded(ratio, 1 - low, 1 + high))
    return min(loss, -advantage * dual) if dual is not None and advantage < 0 else loss


def kl_term(log_prob: float, reference: float, estimator: str) -> float:
    """Estimate of KL(pi || reference) at one token."""
    d = log_prob - reference
    if estimator == "k3":
        x = bounded(-d, -20, 20)
        return bounded(math.exp(x) - x - 1, -10, 10)
    return {"k1": d, "abs": abs(d), "k2": d * d / 2}[estimator]


def aggregate(
    terms: Rows,
    trained: Masks,
    counted: Masks,
    mode: str,
    *,
    weight: Rows | None = None,
    length: float | None = None,
    per_episode: bool = True,
    divisor: float | None = None,
    omega: Rows | None = None,
) -> float:
    """One number from the terms of tokens; one row an episode.

    A term enters where ``trained``; normalisers count where ``counted``. With ``omega`` the mean over the tokens of an
    episode is weighted.
    """
    weight = weight if weight is not None else [[1.0] * len(row) for row in terms]
    sums = [
        math.fsum(w * x for w, x, t in zip(*row, strict=True) if t) for row in zip(weight, terms, trained, strict=True)
    ]
    counts = [sum(row) for row in counted]
    episodes = max(sum(count > 0 for count in counts), 1)
    if omega is not None:
        sums = [
            math.fsum(o * x for o, x, t in zip(*row, strict=True) if t)
            for row in zip(omega, terms, trained, strict=True)
        ]
        totals = [math.fsum(o for o, c in zip(*row, strict=True) if c) for row in zip(omega, counted, strict=True)]
        return math.fsum(s / (total or 1) for s, total in zip(sums, totals, strict=True)) / (divisor or episodes)
    if mode == "token_mean":
        total = math.fsum(w for row in zip(weight, counted, strict=True) for w, c in zip(*row, strict=True) if c)
        return math.fsum(sums) / total if total else 0.0
    if mode == "seq_mean_token_sum":
        return math.fsum(sums) / episodes
    if mode == "seq_mean_token_mean":
        return math.fsum(s / max(count, 1) for s, count in zip(sums, counts, strict=True)) / (divisor or episodes)
    if mode == "seq_mean_token_sum_norm":
        scale = length if length is not None else max(len(row) for row in terms)
        return math.fsum(sums) / scale / (episodes if per_episode else 1)
    raise ValueError(f"unknown mode {mode!r}, expected an aggregation")
