"""Return decomposition, episode by episode."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def linear(latent: Sequence[Rows], weights: Sequence[float], bias: float) -> list[list[float]]:
    """Proxy rewards of every step."""
    return [[math.fsum(w * z for w, z in zip(weights, step, strict=True)) + bias for step in row] for row in latent]


def loss(kind: str, proxies: Rows, returns: Sequence[float], sampled: Sequence[Sequence[int]] | None = None) -> float:
    """``rd``, ``rrd`` or ``rrd_unbiased`` with the steps drawn of every episode."""
    terms = []
    for i, (row, total) in enumerate(zip(proxies, returns, strict=True)):
        used = list(row) if kind == "rd" else [row[t] for t in (sampled or [])[i]]
        mean = math.fsum(used) / len(used)
        term = (mean - total / len(row)) ** 2
        if kind == "rrd_unbiased":
            count = len(used)
            variance = math.fsum((x - mean) ** 2 for x in used) / (count - 1)
            term -= variance * (1 - count / len(row)) / count
        terms.append(term)
    return math.fsum(terms) / len(terms)


def returns_to_go(rewards: Sequence[float], gamma: float) -> list[float]:
    """``G_t = r_t + gamma G_{t+1}``."""
    result: list[float] = []
    for reward in reversed(rewards):
        result.append(reward + gamma * (result[-1] if result else 0.0))
    return result[::-1]


def against_others(rows: Rows, groups: Sequence[int]) -> list[list[float]]:
    """Minus the mean of the group's other rows at the same place; 0 in a group of one, and as it is if alone there."""
    result = []
    for i, row in enumerate(rows):
        others = [k for k in range(len(rows)) if k != i and groups[k] == groups[i]]
        compared = []
        for t, value in enumerate(row):
            there = [rows[k][t] for k in others if t < len(rows[k])]
            compared.append((value - math.fsum(there) / len(there) if there else value) if others else 0.0)
        result.append(compared)
    return result
