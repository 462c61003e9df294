"""How far methods agree, pair by pair and token by token, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference.outcome import mean

Values = Sequence[float]


def pearson(x: Values, y: Values) -> float | None:
    """Correlation; None where one of them does not vary."""
    if min(x) == max(x) or min(y) == max(y):
        return None
    of_x, of_y = mean(x), mean(y)
    together = sum((a - of_x) * (b - of_y) for a, b in zip(x, y, strict=True))
    alone = sum((a - of_x) ** 2 for a in x) * sum((b - of_y) ** 2 for b in y)
    return together / math.sqrt(alone)


def ranks(x: Values) -> list[float]:
    """From 1; equal values share the mean of the places they take."""
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def spearman(x: Values, y: Values) -> float | None:
    """Correlation of ranks."""
    return pearson(ranks(x), ranks(y))


def spearman_of_parts(parts: Sequence[tuple[Values, Values]]) -> float | None:
    """Correlation of ranks within parts, as shares of the part."""
    shares = [
        [(r - 0.5) / len(x) for x, _ in parts for r in ranks(x)],
        [(r - 0.5) / len(y) for _, y in parts for r in ranks(y)],
    ]
    return pearson(*shares)


def same_sign(x: Values, y: Values) -> float | None:
    """Share of equal signs where neither is 0; None where there is no such token."""
    both = [(a, b) for a, b in zip(x, y, strict=True) if a != 0 and b != 0]
    return sum((a > 0) == (b > 0) for a, b in both) / len(both) if both else None


def earning(x: Values) -> float:
    """Share of values other than 0."""
    return sum(a != 0 for a in x) / len(x)


def rms(x: Values) -> float:
    """Root mean square."""
    return math.sqrt(mean([a * a for a in x]))


def disagreement(rows: Sequence[Values]) -> list[float]:
    """For every token, the range over methods of credit in units of the method's RMS."""
    units = [rms(column) for column in zip(*rows, strict=True)]
    scaled = [[v / u if u else 0.0 for v, u in zip(row, units, strict=True)] for row in rows]
    return [max(row) - min(row) for row in scaled]
