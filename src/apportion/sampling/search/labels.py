"""From a path of a search tree to labels of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apportion.errors import InputError, unknown_name

ROUNDING = 1e-9
"""Differences of shares that are equal come out this far apart at most."""


def signed(scores: Sequence[float], verdicts: Sequence[int], right: bool) -> list[int]:
    """The sign of every step's score, where all agree with the verdicts; a path that ends wrong is cut.

    A score of 0, or of another sign than its step's verdict, drops the whole path. A wrong path is cut before the first
    score >= 0 behind its first score <= 0: from there on it mends what it broke.

    Args:
        scores: values of the nodes of a path, without the root.
        verdicts: 1 right, -1 wrong, 0 undecided, one a step.
        right: whether the path's final answer is.

    Returns:
        1 or -1 of every step up to the cut; nothing where the path is dropped.

    Raises:
        InputError: a path without steps, not one verdict a step, or a verdict that is none.

    Source: arXiv 2510.14942; JerryPlain/GroundedPRMCode, truncate_steps and convert_to_binary_label. A negative score
    with a right verdict drops the path too; the authors keep it.

    Example:
        >>> signed([1.3, -0.7, -1.0, 1.0], [1, -1, -1, 1], right=False)
        [1, -1, -1]
    """
    if not scores or len(scores) != len(verdicts):
        raise InputError(
            f"a path has {len(scores)} scores and {len(verdicts)} verdicts, expected one of each a step, and a step."
        )
    for verdict in verdicts:
        if verdict not in (-1, 0, 1):
            raise InputError(f"the verdict of a step is {verdict}, expected 1, 0 or -1.")
    if any(score * verdict <= 0 for score, verdict in zip(scores, verdicts, strict=True)):
        return []
    kept = len(scores)
    if not right:
        broken = next((i for i, score in enumerate(scores) if score <= 0), kept)
        kept = next((i for i in range(broken + 1, len(scores)) if scores[i] >= 0), len(scores))
    return [1 if score > 0 else -1 for score in scores[:kept]]


@dataclass(frozen=True)
class LookedBack:
    """Labels of a path's steps, and what was taken off for looking back; one each a step."""

    labels: list[float]
    penalties: list[float]


Penalty = Callable[[Sequence[float], int, float], float]
"""``(values v_0 .. v_n, step i, label of step i - 1) -> penalty before lam``."""


def _none(values: Sequence[float], i: int, before: float) -> float:
    return 0.0


def _hard(values: Sequence[float], i: int, before: float) -> float:
    return before - values[i]


def _soft_code(values: Sequence[float], i: int, before: float) -> float:
    if i == len(values) - 1:
        return 0.0
    dips = values[i] < before and values[i] < values[i + 1]
    return before - (values[i + 1] if dips else values[i])


def _soft_paper(values: Sequence[float], i: int, before: float) -> float:
    after = values[min(i + 1, len(values) - 1)]
    return max(0.0, values[i - 1] - after) if values[i] < values[i - 1] else 0.0


LOOK_BACKS: dict[str, Penalty] = {"hard": _hard, "none": _none, "soft_code": _soft_code, "soft_paper": _soft_paper}
"""Ways to see whether a step lowered the value."""


def look_back(values: Sequence[float], rule: str = "soft_paper", lam: float = 1.0) -> LookedBack:
    """Labels that look both ways: what a prefix is worth, less what its last step lost.

        y_i = v_i - lam p_i,   p_1 = 0
        none         p_i = 0
        hard         p_i = y_{i-1} - v_i
        soft_code    p_i = y_{i-1} - v_{i+1} if v_i < y_{i-1} and v_i < v_{i+1}, else y_{i-1} - v_i;   p_n = 0
        soft_paper   p_i = max(0, v_{i-1} - v_{i+1}) if v_i < v_{i-1}, else 0;   v_{n+1} = v_n

    Args:
        values: v_0 of the root to v_n of the leaf, from 0 to 1.
        rule: one of :data:`LOOK_BACKS`.
        lam: of the penalty.

    Returns:
        y_1 .. y_n and lam p_1 .. lam p_n; y may leave 0 to 1 under ``hard`` and ``soft_code``, where a rise is a bonus.

    Raises:
        InputError: a value outside 0 to 1, fewer than two, a negative ``lam``, an unknown rule.

    Source: arXiv 2501.12051 (``soft_paper`` as a summary of it prints it); pixas/MedSSS, format_one_item.

    Example:
        >>> look_back([0.5, 0.75, 0.25, 0.5], "soft_paper").labels
        [0.75, 0.0, 0.5]
    """
    if rule not in LOOK_BACKS:
        raise unknown_name("look-back rule", rule, LOOK_BACKS)
    if len(values) < 2:
        raise InputError(f"a path has {len(values)} values, expected the root's and at least one step's.")
    if not lam >= 0:
        raise InputError(f"lam is {lam}, expected 0 or more.")
    for value in values:
        if not 0 <= value <= 1:
            raise InputError(f"a path has the value {value}, expected shares from 0 to 1.")
    labels, penalties = [values[1]], [0.0]
    for i in range(2, len(values)):
        penalties.append(lam * LOOK_BACKS[rule](values, i, labels[-1]))
        labels.append(values[i] - penalties[-1])
    return LookedBack(labels, penalties)


def thresholded(labels: Sequence[float], threshold: float = 0.0) -> list[float]:
    """1 where a label is above the threshold, by more than rounding, else 0."""
    return [1.0 if label > threshold + ROUNDING else 0.0 for label in labels]


def clipped(labels: Sequence[float]) -> list[float]:
    """Labels brought into 0 to 1."""
    return [min(1.0, max(0.0, label)) for label in labels]
