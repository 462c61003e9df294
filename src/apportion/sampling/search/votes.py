"""Which of several answers, by the scores of the steps that led to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apportion.errors import InputError, unknown_name

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "mean": lambda scores: sum(scores) / len(scores),
    "min": min,
    "prod": math.prod,
}
"""From the scores of a sample's steps, the first left out, to one."""


@dataclass(frozen=True)
class Vote:
    """What was chosen.

    Attributes:
        answer: the winner.
        scores: of every sample.
        table: summed score of every answer, in the order they were seen.
    """

    answer: str
    scores: list[float]
    table: Mapping[str, float]


def _best_of_n(answers: Sequence[str], scores: Sequence[float], table: Mapping[str, float]) -> str:
    return answers[max(range(len(scores)), key=lambda i: scores[i])]


def _vote_sum(answers: Sequence[str], scores: Sequence[float], table: Mapping[str, float]) -> str:
    return max(table, key=lambda answer: table[answer])


MODES = {"best_of_n": _best_of_n, "vote_sum": _vote_sum}
"""The sample with the highest score, or the answer whose samples have the highest sum; the first of equals."""


def vote(
    answers: Sequence[str], step_scores: Sequence[Sequence[float]], mode: str = "vote_sum", aggregate: str = "min"
) -> Vote:
    """Choose among sampled answers by the scores of their steps.

    Args:
        answers: one a sample.
        step_scores: of every sample's steps; the first restates the problem and is left out, except by ``last``.
        mode: ``best_of_n`` or ``vote_sum``.
        aggregate: ``last``, ``mean``, ``min`` or ``prod``.

    Raises:
        InputError: no answers, not as many lists of scores, a sample with too few, an unknown name.

    Source: pixas/MedSSS, vote rules.

    Example:
        >>> vote(["A", "B", "A"], [[0.9, 0.4], [0.9, 0.7], [0.1, 0.35]]).answer
        'A'
    """
    if mode not in MODES:
        raise unknown_name("way to vote", mode, MODES)
    if aggregate not in AGGREGATES:
        raise unknown_name("aggregate", aggregate, AGGREGATES)
    if not answers or len(answers) != len(step_scores):
        raise InputError(
            f"there are {len(answers)} answers and scores of {len(step_scores)} samples, expected one each, and one."
        )
    least = 1 if aggregate == "last" else 2
    scores = []
    for of_sample in step_scores:
        if len(of_sample) < least:
            raise InputError(
                f"a sample has {len(of_sample)} step scores, expected at least {least} for {aggregate!r}: the first "
                "restates the problem."
            )
        scores.append(AGGREGATES[aggregate](of_sample[1:] or of_sample))
    table: dict[str, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        table[answer] = table.get(answer, 0.0) + score
    return Vote(MODES[mode](answers, scores, table), scores, table)
