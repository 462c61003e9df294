"""Subgoals: a judge looks at every decision and says which of them it achieved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.corridor_judges import CORRIDOR, CORRIDOR_JUDGES, CORRIDOR_SUBGOALS
from apportion.annotations.dialogues import Dialogue, dialogues, tags_for
from apportion.annotations.judging import Tags, ask, build_judge
from apportion.annotations.transcripts import GUARD, numbers_in, presence
from apportion.errors import InputError
from apportion.rollouts import Rollouts, steps

REPLY = "achieved"
TAGS = ("subgoal_", "observation", "action", "next_observation", REPLY)


def subgoals(
    judge: str = "corridor_subgoals",
    subgoals: Sequence[str] = CORRIDOR_SUBGOALS,
    task: str = CORRIDOR,
    retries: int = 1,
    component: str = "subgoals",
) -> Annotator:
    """Whether every decision achieved each of some subgoals: 1 or 0, and no verdict where a reply cannot be read.

    The judge sees one decision at a time, without what came of it later: observation, action and next observation. The
    last observation of an episode is not stored; the judge is told that the episode ended there, or was cut off.

    Args:
        judge: a scripted judge by name, or ``package.module:name``; see :mod:`apportion.annotations.judging`.
        subgoals: what to achieve, in words and, for ``ordered`` credit, in order.
        task: what the judge should know of it: the agent's role, the rules, and what observations and actions mean.
        retries: how often an unreadable reply is asked for again.
        component: name of the reward.

    Makes ``reward/<component>`` ``[T, G]`` of decisions, at the level they live at.

    Source: arXiv 2409.12798; its prompts were not found, so this one is the library's.
    """
    if isinstance(subgoals, str) or not subgoals or not all(isinstance(goal, str) and goal for goal in subgoals):
        raise InputError(f"got subgoals {subgoals!r}, expected a list of texts, at least one.")
    goals, asked = tuple(subgoals), build_judge(judge, CORRIDOR_JUDGES)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        judged, table = dialogues(rollouts, "subgoals"), steps(rollouts)
        tags = tags_for(judged, [*goals, task], TAGS)
        prompts = [transition_prompt(one, t, goals, task, tags) for one in judged for t in range(len(one.turns))]
        given = ask(asked, prompts, lambda reply: _achieved(reply, tags, len(goals)), retries)

        values = torch.zeros((len(table), len(goals)), dtype=torch.float64)
        scored = torch.zeros_like(values, dtype=torch.bool)
        rows = [turn.row for one in judged for turn in one.turns]
        for row, achieved in zip(rows, given, strict=True):
            if achieved is not None:
                values[row, sorted(achieved)], scored[row] = 1.0, True
        device = rollouts.device
        present = presence(rows, len(table), device)
        return rollouts.with_reward(
            component, values.to(device), scored.to(device), present, level=table.level, maker="subgoals"
        )

    levels = ("", "turn:", "response:")
    return Annotator(apply, tuple(f"{level}reward/{component}" for level in levels), reads_policy=False)


def transition_prompt(one: Dialogue, number: int, goals: Sequence[str], task: str, tags: Tags) -> str:
    """What the judge is asked about one decision of an episode."""
    turn, later = one.turns[number], one.turns[number + 1 :]
    after = tags.around("next_observation", later[0].heard) if later else one.ending
    listed = "\n".join(tags.around(f"subgoal_{g}", goal) for g, goal in enumerate(goals))
    return f"""An agent acts in an environment, one action at a time. {GUARD}

{task}

The subgoals, numbered 0 to {len(goals) - 1}:
{listed}

One transition:
{tags.around("observation", turn.heard)}
{tags.around("action", turn.said)}
{after}

Which of the subgoals did this very transition achieve? A subgoal counts if it did not hold before the action and \
holds after it; one that held already, or that was merely approached, does not count.
End with the numbers of the subgoals achieved between tags, separated by commas, or with nothing between them if there \
are none:
{tags.opening(REPLY)}numbers{tags.closing(REPLY)}"""


def _achieved(reply: str, tags: Tags, count: int) -> set[int]:
    achieved = numbers_in(tags.last(REPLY, reply))
    if not achieved <= set(range(count)):
        raise ValueError("a subgoal that there is not")
    return achieved
