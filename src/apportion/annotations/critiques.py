"""Critiques: a judge reads a response once a critique and lists the steps that are wrong in themselves."""

from __future__ import annotations

from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.judging import Tags, ask, build_judge
from apportion.annotations.scripted_judges import JUDGES
from apportion.annotations.transcripts import (
    GUARD,
    Transcript,
    numbers_in,
    presence,
    rows_of,
    tags_for,
    transcripts,
    with_counts,
)
from apportion.errors import InputError
from apportion.rollouts import Rollouts

REPLY = "wrong_steps"


def critiques(
    judge: str = "running_sum_critic",
    k: int = 4,
    retries: int = 1,
    reference: bool = True,
    kind: str = "step",
    component: str = "critique",
) -> Annotator:
    """Several critiques of every response: 1 for each step one calls wrong, 0 for the others.

    Steps are judged all in one reply and each on its own, not by what came of it. A reply that cannot be read, again
    after ``retries``, leaves that critique of the response without a verdict. Numbers of steps that do not exist are
    left out and counted.

    Args:
        judge: a scripted judge by name, or ``package.module:name``; see :mod:`apportion.annotations.judging`. One that
            samples gives k different critiques; a greedy one should be asked once.
        k: critiques a response.
        retries: how often an unreadable reply is asked for again.
        reference: show the judge the task's answer, where there is one.
        kind: of the spans that are steps; an annotator before this one makes them.
        component: name of the reward.

    Makes ``<kind>:reward/<component>`` ``[S, k]``, and ``response:outside/<component>``, how many
    numbers were left out.

    Source: arXiv 2508.02298.
    """
    if type(k) is not int or k < 1:
        raise InputError(f"k is {k}, expected a whole number of at least one critique a response.")
    asked = build_judge(judge, JUDGES)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        judged = transcripts(rollouts, policy, kind, "critiques")
        tags = tags_for(judged, [REPLY])
        prompts = [critique_prompt(one, tags, reference) for one in judged for _ in range(k)]
        named = ask(asked, prompts, lambda reply: numbers_in(tags.last(REPLY, reply)), retries)

        values = torch.zeros((rollouts.rows(kind), k), dtype=torch.float64)
        scored = torch.zeros_like(values, dtype=torch.bool)
        outside = {one.response: 0 for one in judged}
        rows = rows_of(rollouts, kind)
        for i, one in enumerate(judged):
            steps = rows[one.response]
            for critique, wrong in enumerate(named[i * k : (i + 1) * k]):
                if wrong is None:
                    continue
                scored[steps.start : steps.stop, critique] = True
                for number in wrong:
                    if 0 <= number < len(steps):
                        values[steps[number], critique] = 1.0
                    else:
                        outside[one.response] += 1

        device = rollouts.device
        present = presence((row for b in outside for row in rows[b]), len(values), device)
        rollouts = rollouts.with_reward(
            component, values.to(device), scored.to(device), present, level=kind, maker="critiques"
        )
        return with_counts(rollouts, f"outside/{component}", outside, "critiques")

    return Annotator(apply, (f"reward/{component}", f"{kind}:reward/{component}"))


def critique_prompt(judged: Transcript, tags: Tags, reference: bool = True) -> str:
    """What the judge is asked about one response."""
    last = len(judged.steps) - 1
    return f"""Below is a problem and a solution to it. The solution is cut into steps, numbered 0 to {last}. {GUARD}

{judged.tagged(tags, reference)}

First decide whether the solution as a whole is right. Then check every step independently. A step is wrong if what it \
says or does is wrong in itself, even where no harm comes of it; a step that follows correctly from an earlier mistake \
is not wrong.
End with the numbers of the wrong steps between tags, separated by commas, or with nothing between them if no step is \
wrong:
{tags.opening(REPLY)}numbers{tags.closing(REPLY)}"""
