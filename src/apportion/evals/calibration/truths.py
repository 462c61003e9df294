"""What theory says must come out: if one of these fails, it is the calibration that is wrong.

Each looks at the cells it is about and says nothing where they were not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.evals.calibration.branching import Branched
from apportion.evals.calibration.measure import Interval, Measured
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


def truths_of_forks(rows: Sequence[Branched]) -> list[Truth]:
    """What the declaration of a fork rule promises; nothing where none was looked at."""
    if not rows:
        return []
    right = [row for row in rows if row.prescribed]
    values = [(row.rule, row.value) for row in right]
    gradients = [(row.rule, row.from_prompt or row.gradient) for row in right]
    leaves = [(row.rule, row.value) for row in rows if row.backup == "leaves" and row.looks == "prefix"]
    return [
        Truth(
            "the backup for what a fork rule looks at gives the prompt's value without bias",
            not any(value.excludes(0.0) for _, value in values),
            _furthest(values),
        ),
        Truth(
            "with siblings as baseline it gives the exact gradient: of all draws where rules look at the prefix, of "
            "the responses from the prompt where they look ahead",
            not any(gradient.excludes(0.0) for _, gradient in gradients),
            _furthest(gradients),
        ),
        Truth(
            "means over leaves are biased under some rule that looks at the prefix alone",
            any(value.excludes(0.0) for _, value in leaves),
            _furthest(leaves),
        ),
    ]


def _furthest(figures: Sequence[tuple[str, Interval]]) -> str:
    name, worst = max(figures, key=lambda figure: abs(figure[1].value))
    return f"furthest of {len(figures)}: {worst.value:+.4f} [{worst.low:+.4f}, {worst.high:+.4f}] with {name}"


Cells = dict[tuple[str, str, int], Measured]


def _of(cells: Cells, spec: str) -> dict[tuple[str, int], Measured]:
    """A method's cells, by world and group size."""
    return {key[1:]: found for key, found in cells.items() if key[0] == spec}


def _leave_one_out(cells: Cells) -> list[Truth]:
    cosines = {key: m.cosine for key, m in _of(cells, "rloo").items() if m.cosine is not None}
    if not cosines:
        return []
    outside = [key for key, cosine in cosines.items() if cosine.excludes(1.0)]
    lowest = min(cosines, key=lambda key: cosines[key].value)
    worst = cosines[lowest]
    figures = f"lowest of {len(cosines)}: {worst.value:.4f} [{worst.low:.4f}, {worst.high:.4f}] in {lowest[0]}"
    return [Truth("leave-one-out points along the exact gradient in every world", not outside, figures)]


def _division(cells: Cells) -> list[Truth]:
    """With the smallest groups: as they grow, the deviation depends less and less on one's own reward."""
    own = _of(cells, "grpo")
    smallest = min((size for world, size in own if world in GRADED), default=0)
    found = {w: m.cosine for w in GRADED if (m := own.get((w, smallest))) and m.cosine}
    if not found:
        return []
    figures = ", ".join(f"{world} {cosine.value:.3f}" for world, cosine in found.items())
    what = "grpo's division by the group's deviation turns the gradient where rewards are graded"
    return [Truth(what, all(c.high < 1 for c in found.values()), f"cosine with groups of {smallest}: {figures}")]


def _turns(cells: Cells) -> list[Truth]:
    result, own = [], _of(cells, "turn_index")
    for world in ("stopping", "all_returns_equal"):
        sizes = [size for where, size in own if where == world]
        if not sizes:
            continue
        size = max(sizes)
        tree = WORLDS[world]().tree
        gradient = tree.values().gradient
        length = float(gradient.norm())
        foretold = float((turn_index_limit(tree)[1] - gradient).norm()) / (length if length > 1e-9 else 1.0)
        bias = own[world, size].bias
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
            one, other = (_of(cells, spec) for spec in pair)
            sizes = [size for where, size in one if where == world and (where, size) in other]
            found = {n: [of[world, n].correlation or 0.0 for of in (one, other)] for n in sizes}
            if not found:
                continue
            holds = all((a > b) is closer for a, b in found.values())
            what = "is closer to" if closer else "is further from"
            where = "where prefixes are shared" if closer else "where a nonce makes them unique"
            figures = ", ".join(f"{a:.3f} against {b:.3f} with groups of {n}" for n, (a, b) in found.items())
            result.append(Truth(f"{pair[0]} {what} the exact advantage than {pair[1]} {where}", holds, figures))
    return result
