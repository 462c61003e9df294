"""What the common suite needs of LaRe: the naive loop on the process rewards of the suite."""

from __future__ import annotations

from collections.abc import Callable

from credit.columns import cut, score_of
from credit.worlds import Flat
from reference import decomposition, returns

Naive = Callable[[Flat], list[list[float]]]


def lare(gamma: float = 1.0, baseline: str = "group") -> Naive:
    """The naive loop with these settings; steps end with a 1, or with the response."""

    def advantages(world: Flat) -> list[list[float]]:
        steps = [list(zip([0, *cut(ids)], cut(ids), strict=False)) for ids in world.ids]
        scores = [[score_of(ids[a:b]) for a, b in row] for ids, row in zip(world.ids, steps, strict=True)]
        to_go = [decomposition.returns_to_go(row, gamma) for row in scores]
        values = decomposition.against_others(to_go, world.groups) if baseline == "group" else to_go
        result = []
        for row, spans, trained in zip(values, steps, world.trained, strict=True):
            result.append([value if trained[t] else 0.0 for value, (a, b) in zip(row, spans, strict=True)
                           for t in range(a, b)])  # fmt: skip
        inside = sum(sum(row) for row in world.trained)
        return returns.whiten(result, world.trained) if baseline == "batch" and inside > 1 else result

    return advantages
