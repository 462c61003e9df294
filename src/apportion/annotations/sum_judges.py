"""A scripted judge that scores running sums on three dimensions: it reads its prompt and replies as a model would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from apportion.annotations.judging import Judge
from apportion.annotations.partial_sums import step_scores
from apportion.errors import InputError

SUM_DIMENSIONS = {
    "right_sums": "which share of the partial sums follows from the one before",
    "length": "how near the answer is to one digit a partial sum and a full stop in length",
    "form": "is it digits and, at its end only, a full stop",
}
"""What it knows of an answer such as ``6058217.`` to ``0453496=6``."""


def running_sum_dimensions() -> Judge:
    """Scores an answer by counting; other dimensions than those of :data:`SUM_DIMENSIONS` it refuses."""

    def running_sum_dimensions(prompts: Sequence[str]) -> list[str]:
        return [_reply(prompt) for prompt in prompts]

    return running_sum_dimensions


def _reply(prompt: str) -> str:
    asked = re.search(r"<scores(-[0-9]+|)>\{([^{}]*)\}</scores\1>\s*$", prompt)
    ranges = re.findall(r"from (\S+) \(worst\) to (\S+) \(best\)", prompt)
    if asked is None or not ranges:
        raise _refusal("something else")
    suffix, names = asked.group(1), re.findall(r'"([^"]*)": number', asked.group(2))
    for name in names:
        if name not in SUM_DIMENSIONS:
            raise _refusal(repr(name))
    turn = re.search(rf"<heard_0{suffix}>(.*?)</heard_0{suffix}>\n<utterance_0{suffix}>(.*?)</", prompt, re.DOTALL)
    if turn is None or not re.fullmatch("[0-9]+=[0-9]", turn.group(1), re.ASCII):
        raise _refusal("something else")
    low, high = map(float, ranges[-1])  # the last is the question's
    shares = sum_shares(*turn.groups())
    scores = {name: round(low + (high - low) * shares[name], 6) for name in names}
    return f"Counted.\n<scores{suffix}>{json.dumps(scores)}</scores{suffix}>"


def _refusal(what: str) -> InputError:
    return InputError(
        "the scripted judge running_sum_dimensions reads running sums such as 0453496=6 and knows "
        f"{', '.join(SUM_DIMENSIONS)}, and was asked about {what}: name a judge of your own, with "
        "judge='package.module:name'."
    )


def sum_shares(problem: str, answer: str) -> dict[str, float]:
    """Each dimension of an answer, from 0 to 1.

    Example:
        >>> sum_shares("111=0", "124.")
        {'right_sums': 0.6666666666666666, 'length': 1.0, 'form': 1.0}
    """
    sums = len(problem.partition("=")[0])
    right = sum(score == 1 for score in step_scores(problem, answer)[:sums])
    return {
        "right_sums": right / sums,
        "length": max(0.0, 1 - abs(len(answer) - sums - 1) / (sums + 1)),
        "form": float(re.fullmatch(r"[0-9]+\.", answer, re.ASCII) is not None),
    }


SUM_JUDGES: dict[str, Callable[..., Judge]] = {"running_sum_dimensions": running_sum_dimensions}
"""Scripted judges by name."""
