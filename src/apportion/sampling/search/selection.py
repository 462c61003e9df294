"""Which child a search goes down to: exploration bonuses on top of values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apportion.errors import InputError

CLOSED = -1.0
"""The score of a child that is not to be chosen."""


@dataclass(frozen=True)
class Child:
    """What selection rules know of a child.

    Attributes:
        value: as the backup rule left it.
        visits: likewise.
        finish: it states a final answer.
        correct: and that is right.
        completed: nothing below it is left to try.
        refine_count: how often a wrong answer was already tried to be mended.
    """

    value: float
    visits: int
    finish: bool = False
    correct: bool = False
    completed: bool = False
    refine_count: int = 0


Selection = Callable[[Sequence[Child], int], list[float]]
"""``(children, visits of their parent) -> score of every child``."""


def uct(c: float = 1.414, sign: float = 1.0) -> Selection:
    """Value and a bonus for children that were visited less than their siblings.

        s V_i + c sqrt(ln(N_parent + 1) / (N_i + 1))

    A completed child has minus infinity, for values may be negative.

    Args:
        c: of the bonus.
        sign: s; -1 looks for low values.

    Source: arXiv 2510.14942; JerryPlain/GroundedPRMCode, best_child.
    """

    def scores(children: Sequence[Child], parent_visits: int) -> list[float]:
        _check(children, parent_visits, least=0)
        return [
            -math.inf
            if child.completed
            else sign * child.value + c * math.sqrt(math.log(parent_visits + 1) / (child.visits + 1))
            for child in children
        ]

    return scores


def ucb(c: float = 2.0, unvisited: float = math.inf, low_gate: float = 0.5, refine_limit: int = 0) -> Selection:
    """Value and a bonus, for children that may be finished; the first rule that fits a child gives its score.

        never visited                                                 unvisited
        a right answer                                                CLOSED
        a wrong answer, V < low_gate, mended fewer than refine_limit  V + c sqrt(ln N_parent / N)
        completed                                                     CLOSED
        otherwise                                                     V + c sqrt(ln N_parent / N)

    Args:
        c: of the bonus.
        unvisited: score of children without a visit.
        low_gate: answers worth less may be mended.
        refine_limit: how often.

    Source: arXiv 2501.12051; pixas/MedSSS, select_child.
    """

    def score(child: Child, parent_visits: int) -> float:
        if not child.visits:
            return unvisited
        mendable = child.finish and child.value < low_gate and child.refine_count < refine_limit
        if (child.finish and child.correct) or (child.completed and not mendable):
            return CLOSED
        return child.value + c * math.sqrt(math.log(parent_visits) / child.visits)

    def scores(children: Sequence[Child], parent_visits: int) -> list[float]:
        _check(children, parent_visits, least=1)
        return [score(child, parent_visits) for child in children]

    return scores


SELECTIONS: dict[str, Callable[..., Selection]] = {"uct": uct, "ucb": ucb}
"""Selection rules by name, each built from its settings."""


def all_best(scores: Sequence[float]) -> list[int]:
    """Every child with the highest score, among those that may be chosen.

    Example:
        >>> all_best([0.5, 1.0, 1.0]), all_best([float("-inf")])
        ([1, 2], [])
    """
    highest = max(scores)
    return [] if highest == -math.inf else [i for i, score in enumerate(scores) if score == highest]


def first_best(scores: Sequence[float]) -> int | None:
    """The first child with the highest score; None where all are :data:`CLOSED`.

    Example:
        >>> first_best([CLOSED, 0.5, 0.5]), first_best([CLOSED])
        (1, None)
    """
    place = max(range(len(scores)), key=lambda i: scores[i])
    return None if scores[place] == CLOSED else place


def _check(children: Sequence[Child], parent_visits: int, least: int) -> None:
    if not children:
        raise InputError("a selection has no children to choose from, expected at least one: expand the node first.")
    if parent_visits < least:
        raise InputError(f"a parent has {parent_visits} visits, expected at least {least}.")
