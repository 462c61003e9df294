"""HICRA: planning phrases by trying every place, and the advantages they raise."""

from __future__ import annotations

import math
from collections.abc import Sequence

Ids = Sequence[int]


def places(ids: Ids, gram: Ids) -> list[int]:
    """Where a phrase begins."""
    return [t for t in range(len(ids) - len(gram) + 1) if list(ids[t : t + len(gram)]) == list(gram)]


def planning(ids: Ids, grams: Sequence[Ids]) -> list[bool]:
    """Which tokens lie inside any phrase."""
    inside = {t + i for gram in grams for t in places(ids, gram) for i in range(len(gram))}
    return [t in inside for t in range(len(ids))]


def counts(rows: Sequence[Ids], grams: Sequence[Ids]) -> list[int]:
    """How often every phrase occurs."""
    return [sum(len(places(ids, gram)) for ids in rows) for gram in grams]


def entropy(numbers: Sequence[int]) -> float:
    """Of the distribution of phrases, in nats."""
    total = sum(numbers)
    return -math.fsum(n / total * math.log(n / total) for n in numbers if n)


def hicra(advantages: Sequence[float], plans: Sequence[bool], alpha: float) -> list[float]:
    """Advantages of one response's tokens."""
    return [a + alpha * abs(a) if plan else a for a, plan in zip(advantages, plans, strict=True)]


def document_frequency(solutions: Sequence[Ids], clusters: Sequence[Sequence[Ids]]) -> list[int]:
    """In how many solutions any phrase of a cluster occurs."""
    return [sum(any(places(ids, gram) for gram in cluster) for ids in solutions) for cluster in clusters]


def selected(numbers: Sequence[int], fraction: float) -> list[int]:
    """The most frequent clusters, the earlier of equal ones."""
    size = max(1, math.ceil(fraction * len(numbers) - 1e-12))
    return sorted(sorted(range(len(numbers)), key=lambda c: (-numbers[c], c))[:size])
