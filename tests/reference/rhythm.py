"""Attention rhythm: measures of maps and factors of tokens, entry by entry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Map = Sequence[Sequence[float]]


def head_span(attention: Map, prompt: int) -> float:
    """Mean distance looked back from response positions."""
    size = len(attention)
    total = math.fsum(attention[t][s] * (t - s) for t in range(prompt, size) for s in range(t + 1))
    return total / (size - prompt)


def waad(attention: Map, prompt: int, window: int) -> list[float]:
    """Distance looked back, counted up to the window."""
    return [
        math.fsum(attention[t][s] * min(t - s, window) for s in range(t + 1)) for t in range(prompt, len(attention))
    ]


def fai(attention: Map, prompt: int, low: int, high: int) -> list[float]:
    """How much later response positions within the horizon look back."""
    size, result = len(attention), []
    for s in range(prompt, size):
        seen = [attention[t][s] for t in range(s + low, min(size - 1, s + high) + 1)]
        result.append(math.fsum(seen) / len(seen) if seen else 0.0)
    return result


def choose(spans: Sequence[float], fraction: float) -> tuple[list[int], list[int]]:
    """Near-sighted and far-sighted heads."""
    order = sorted(range(len(spans)), key=lambda h: (spans[h], h))
    count = max(1, math.floor(fraction * len(spans) + 1e-12))
    return sorted(order[:count]), sorted(order[-count:])


def changes(values: Sequence[float]) -> list[float]:
    """Absolute difference to the next; 0 at the end."""
    return [abs(a - b) for a, b in itertools.pairwise(values)] + [0.0] * bool(values)


def top(values: Sequence[float], share: float) -> list[int]:
    """Places of the largest share, the earlier of equal ones."""
    count = max(1, math.ceil(share * len(values) - 1e-12))
    return sorted(sorted(range(len(values)), key=lambda t: (-values[t], t))[:count])


def median(values: Sequence[float]) -> float:
    """As numpy's."""
    ordered = sorted(values)
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2


def gamma(
    waads: Sequence[float],
    fais: Sequence[float],
    *,
    rhythm: str,
    quantile: float = 0.4,
    amp: float = 1.5,
    alpha: float = 0.5,
    k: int = 3,
    tau_waad: float | None = None,
    tau_delta: float | None = None,
) -> list[float]:
    """Factor of every token of one response."""
    if not waads:
        return []
    bonus, delta = amp - 1, changes(waads)
    if rhythm == "local":
        return [1 + bonus * (t in top(delta, quantile)) for t in range(len(waads))]
    anchors = top(fais, quantile)
    if rhythm == "global":
        return [1 + bonus * (t in anchors) for t in range(len(waads))]
    low = median(waads) if tau_waad is None else tau_waad
    high = median(delta) if tau_delta is None else tau_delta
    dominated, intros = set(), set()
    for t in anchors:
        before = range(max(0, t - k), t)
        if before and waads[t] <= low and max(delta[u] for u in before) >= high:
            dominated.add(t)
            intros.add(max(before, key=lambda u: (delta[u], u)))
    return [
        1
        + bonus * (t in anchors and t not in dominated)
        + (1 - alpha) * bonus * (t in dominated)
        + alpha * bonus * (t in intros)
        for t in range(len(waads))
    ]


def scaled(advantages: Sequence[float], factors: Sequence[float], scale_sign: str = "both") -> list[float]:
    """Advantages times their factors, perhaps only where they are not negative."""
    return [a * g if scale_sign == "both" or a >= 0 else a for a, g in zip(advantages, factors, strict=True)]
