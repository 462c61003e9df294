"""The gated reward of one program after another."""

from __future__ import annotations

import math
from collections.abc import Sequence


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""

    def volume(box: Sequence[float]) -> float:
        return math.prod(max(box[i + 3] - box[i], 0.0) for i in range(3))

    shared = volume([*map(max, one[:3], other[:3]), *map(min, one[3:], other[3:])])
    union = volume(one) + volume(other) - shared
    return shared / union if union else 0.0


def gated_reward(
    runs: bool,
    boxes: tuple[Sequence[float], Sequence[float]],
    score: float,
    failures: Sequence[str],
    *,
    lambda_geom: float,
    lambda_eval: float,
    failure_penalty: float,
    score_range: tuple[float, float],
) -> tuple[float, float, float]:
    """Overlap, the judge's word and the reward."""
    if not runs:
        return 0.0, 0.0, 0.0
    low, high = score_range
    normal = min(max((score - low) / (high - low), 0.0), 1.0)
    said = min(max(normal - failure_penalty * len(set(failures)), 0.0), 1.0)
    geometric = overlap(*boxes)
    return geometric, said, lambda_geom * geometric + lambda_eval * said
