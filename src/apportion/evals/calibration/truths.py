"""What theory says must come out: if one of these fails, it is the calibration that is wrong.

Each looks at the cells it is about and says nothing where they were not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.evals.calibration.measure import Measured
from apportion.evals.calibration.run import Row
from apportion.evals.calibration.theory import turn_index_limit
from apportion.evals.calibration.worlds import WORLDS

GRADED = ("graded_outcome", "dense_rewards", "stopping")
"""Worlds of one prompt with more than two returns."""


@dataclass(frozen=True)
class Truth:
    """Something known, and what was measured of it."""

    statement: str
    holds: bool
    figures: str


def truths(rows: Sequence[Row]) -> list[Truth]:
    """Those whose cells were run."""
    cells = {(row.spec, row.world, row.size): row.measured for row in rows if row.measured is not None}
    every = [*_leave_one_out(cells), *_division(cells), *_turns(cells), *_prefixes(cells)]
    return every


Cells = dict[tuple[str, str, int], Measured]


def _of(cells: Cells, spec: str) -> Cells:
    """Those of one method."""
    return {key: measured for key, measured in cells.items() if key[0] == spec}


def _leave_one_out(cells: Cells) -> list[Truth]:
    cosines = {key: m.cosine for key, m in _of(cells, "rloo").items() if m.cosine is not None}
    if not cosines:
        return []
    outside = [key for key, cosine in cosines.items() if cosine.excludes(1.0)]
    lowest = min(cosines, key=lambda key: cosines[key].value)
    worst = cosines[lowest]
    figures = f"lowest of {len(cosines)}: {worst.value:.4f} [{worst.low:.4f}, {worst.high:.4f}] in {lowest[1]}"
    return [Truth("leave-one-out points along the exact gradient in every world", not outside, figures)]


def _division(cells: Cells) -> list[Truth]:
    """With the smallest groups: as they grow, the deviation depends less and less on one's own reward."""
    smallest = min((key[2] for key in cells if key[0] == "grpo" and key[1] in GRADED), default=0)
    found = {w: m.cosine for w in GRADED if (m := cells.get(("grpo", w, smallest))) and m.cosine}
    if not found:
        return []
    figures = ", ".join(f"{world} {cosine.value:.3f}" for world, cosine in found.items())
    what = "grpo's division by the group's deviation turns the gradient where rewards are graded"
    return [Truth(what, all(c.high < 1 for c in found.values()), f"cosine with groups of {smallest}: {figures}")]


def _turns(cells: Cells) -> list[Truth]:
    result = []
    for world in ("stopping", "all_returns_equal"):
        sizes = [key[2] for key in cells if key[:2] == ("turn_index", world)]
        if not sizes:
            continue
        size = max(sizes)
        tree = WORLDS[world]().tree
        gradient = tree.values().gradient
        length = float(gradient.norm())
        foretold = float((turn_index_limit(tree)[1] - gradient).norm()) / (length if length > 1e-9 else 1.0)
        bias = cells["turn_index", world, size].bias
        near = abs(bias.value / foretold - 1) < 2 / size
        result.append(
            Truth(
                f"means by turn are biased as in closed form, up to the group's finite size, in {world}",
                bias.excludes(0.0) and near,
                f"bias {bias.value:.4f} with groups of {size}, {foretold:.4f} with infinite ones",
            )
        )
    return result


def _prefixes(cells: Cells) -> list[Truth]:
    result = []
    for world, closer in (("shared_prefixes", True), ("unique_nonce", False)):
        for pair in (("tempo", "grpo"), ("tempo(norm_by_std=False)", "dr_grpo")):
            sizes = [key[2] for key in cells if key[:2] == (pair[0], world) and (pair[1], world, key[2]) in cells]
            found = {n: [cells[spec, world, n].correlation or 0.0 for spec in pair] for n in sizes}
            if not found:
                continue
            holds = all((a > b) is closer for a, b in found.values())
            what = "is closer to" if closer else "is further from"
            where = "where prefixes are shared" if closer else "where a nonce makes them unique"
            figures = ", ".join(f"{a:.3f} against {b:.3f} with groups of {n}" for n, (a, b) in found.items())
            result.append(Truth(f"{pair[0]} {what} the exact advantage than {pair[1]} {where}", holds, figures))
    return result
