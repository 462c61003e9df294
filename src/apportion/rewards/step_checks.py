"""Verifiers of single steps: asked about one, with the prompt and the steps before it as the task's prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apportion import registry
from apportion.errors import InputError
from apportion.rewards.each import paired, shown
from apportion.rewards.verdict import Verdict, Verifier
from apportion.tasks.task import Task

TopLogProbs = Sequence[Mapping[str, float]]
"""By position of a judgement, the likeliest tokens with their log-probs."""


def partial_sums() -> Verifier:
    """Steps of a running-sum answer: right where every character follows from the one before it.

    Example:
        >>> partial_sums()([Task("0453496=6" + "60", "7", "running_sum")], ["58"])
        [Verdict(score=1.0, reason="'58' follows")]
    """

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        return [_follows(task.text, step) for task, step in paired(tasks, responses)]

    return verify


def _follows(text: str, step: str) -> Verdict:
    prompt, equals, before = text.partition("=")
    said = before[:1] and step_scores(f"{prompt}={before[0]}", before[1:] + step)[len(before) - 1 :]
    if not equals or not said or said[0] is None:
        return Verdict(None, f"there is no total before {shown(step)}")
    if -1.0 in said:
        return Verdict(0.0, f"{shown(step[said.index(-1.0)])} does not follow")
    return Verdict(1.0, f"{shown(step)} follows")


def step_scores(prompt: str, answer: str) -> list[float | None]:
    """+1 or -1 a character of a running-sum answer; None where the total before it is not a digit.

    Example:
        >>> step_scores("45=6", "05.")
        [1.0, 1.0, 1.0]
    """
    rest, _, first = prompt.partition("=")
    total: str | None = first
    scores: list[float | None] = []
    for i, character in enumerate(answer):
        if total is None or not total.isdecimal():
            scores.append(None)
        elif i < len(rest):
            scores.append(1.0 if character == str((int(total) + int(rest[i])) % 10) else -1.0)
        else:
            scores.append(1.0 if character == "." else -1.0)
        total = character if i < len(rest) else total
    return scores


def judged(judge: str) -> Verifier:
    """Steps judged by a generative process reward model: the score is :func:`right_probability` of its judgement.

    Args:
        judge: ``package.module:name`` of a function that is given (text before the step, step) pairs and returns, for
            each, the likeliest tokens with their log-probs at every position of its judgement.

    Raises:
        InputError: the name cannot be imported, or is no function; when asked, not one judgement a step.
    """
    function: Callable[..., Any] = registry.lookup(judge, {}, "judge")
    if not callable(function):
        raise InputError(f"judge names {judge!r}, a {type(function).__name__}, expected a function of pairs of texts.")

    def verify(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        pairs = [(task.text, step) for task, step in paired(tasks, responses)]
        judgements: Sequence[TopLogProbs] = function(pairs)
        if len(judgements) != len(pairs):
            raise InputError(f"{judge} returned {len(judgements)} judgements of {len(pairs)} steps, expected one each.")
        return [Verdict(right_probability(judgement), f"judged by {judge}") for judgement in judgements]

    return verify


def right_probability(top_log_probs: TopLogProbs, right: str = "Right", wrong: str = "Wrong") -> float:
    """How probable a judge finds a step right, by the last position at which it was about to say so or the contrary.

        p(Right) / (p(Right) + p(Wrong))

    A word that is not among the likeliest has the probability of the least likely of them; 0.5 where neither is
    anywhere.

    Args:
        top_log_probs: by position, the likeliest tokens.
        right: one word.
        wrong: the other.

    Raises:
        InputError: a log-prob that is none.

    Source: arXiv 2510.14942; JerryPlain/GroundedPRMCode, reward of the PRM.

    Example:
        >>> round(right_probability([{"Right": -0.3, "the": -4.0, "a": -5.5}, {"x": -0.1}]), 4)
        0.9945
    """
    for tokens in reversed(top_log_probs):
        if right in tokens or wrong in tokens:
            least = min(tokens.values())
            if not least > -math.inf or max(tokens.values()) > 0:
                raise InputError(f"a judgement has log-probs {dict(tokens)}, expected finite numbers up to 0.")
            a, b = tokens.get(right, least), tokens.get(wrong, least)
            return 1 / (1 + math.exp(min(b - a, 700.0)))
    return 0.5
