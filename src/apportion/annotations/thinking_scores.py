"""Scores of the thinking: a judge reads how a response reasons, whatever its answer."""

from __future__ import annotations

import re
from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.judging import Tags, ask, build_judge
from apportion.annotations.scripted_judges import JUDGES
from apportion.annotations.transcripts import GUARD, presence, problems_of
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from apportion.rollouts.makers import maker_of

REPLY = "score"
_SCORE = re.compile(r"0|1|[01]?\.[0-9]{1,30}|[01]\.")


def thinking_scores(
    judge: str = "running_sum_thinking",
    retries: int = 1,
    answer_after: str = "</think>",
    component: str = "thinking",
) -> Annotator:
    """A score from 0 to 1 of the thinking in every response; unknown where the judge's reply cannot be read.

    Args:
        judge: a scripted judge by name, or ``package.module:name``; see :mod:`apportion.annotations.judging`.
        retries: how often an unreadable reply is asked for again.
        answer_after: the text that ends the thinking; a response without it is thinking throughout.
        component: name of the reward.

    Makes ``response:reward/<component>``.

    Source: arXiv 2505.17018.
    """
    if not answer_after:
        raise InputError("answer_after is empty, expected the text that ends the thinking, such as '</think>'.")
    asked = build_judge(judge, JUDGES)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        problems = problems_of(rollouts, "thinking_scores")
        if not rollouts.has("response:text"):
            raise MissingColumn("response:text", "thinking_scores", maker_of("response:text"))
        texts = rollouts.columns["response:text"].text
        lost = sum(texts[b] is None for b in problems)
        if lost:
            raise InputError(f"{lost} responses have no text, expected one of every response whose thinking is judged.")
        thinking = [_thinking(str(texts[b]), answer_after) for b in problems]
        tags = Tags.apart_from([*problems.values(), *thinking], ["problem", "thinking", REPLY])
        both = zip(problems.values(), thinking, strict=True)
        given = ask(asked, [thinking_prompt(*one, tags) for one in both], lambda reply: score_in(reply, tags), retries)

        values = torch.zeros(rollouts.n_responses, dtype=torch.float64)
        scored = torch.zeros(rollouts.n_responses, dtype=torch.bool)
        for b, score in zip(problems, given, strict=True):
            if score is not None:
                values[b], scored[b] = score, True
        device = rollouts.device
        present = presence(problems, rollouts.n_responses, device)
        return rollouts.with_reward(
            component, values.to(device), scored.to(device), present, level="response", maker="thinking_scores"
        )

    return Annotator(apply, (f"reward/{component}", f"response:reward/{component}"), reads_policy=False)


def thinking_prompt(problem: str, thinking: str, tags: Tags) -> str:
    """What the judge is asked about one response."""
    return f"""Below is a problem and the thinking of somebody who was asked to solve it. {GUARD}

{tags.around("problem", problem)}
{tags.around("thinking", thinking)}

Judge the thinking alone, whether or not it led to the right answer: is it sound in its logic, does every step follow \
from what comes before, does it keep to the problem, and is it free of contradictions, repetition and guessing? Give \
it one score from 0 (worthless) to 1 (flawless), with up to two decimals.
End with the score between tags:
{tags.opening(REPLY)}number{tags.closing(REPLY)}"""


def score_in(reply: str, tags: Tags) -> float:
    """The score between tags, or a reply that is nothing but a score.

    A number anywhere else is not taken for one: replies number their remarks.

    Raises:
        ValueError: there is none from 0 to 1.

    Example:
        >>> score_in("1. Sound. <score>0.75</score>", Tags()), score_in("0.5", Tags())
        (0.75, 0.5)
    """
    text = reply.strip()
    if not _SCORE.fullmatch(text):
        text = tags.last(REPLY, reply).strip()
    score = float(text) if _SCORE.fullmatch(text) else -1.0
    if not 0 <= score <= 1:
        raise ValueError(f"{text!r} is no score from 0 to 1")
    return score


def _thinking(text: str, answer_after: str) -> str:
    """What comes before the written answer."""
    before, marker, _ = text.rpartition(answer_after)
    return before if marker else text
