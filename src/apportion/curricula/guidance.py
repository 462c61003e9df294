"""GHPO: what nobody solves is asked again with the beginning of its solution.

A group without a right response says nothing about right and wrong. Its task is asked again with the first part of a
reference solution behind the prompt, and with more of it, until a response is right. The responses that are kept are
those to the prompt they were drawn from, and so are trained under it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from apportion.errors import InputError
from apportion.models.codec import Codec
from apportion.rewards.collect import AnswerCollector
from apportion.rewards.verdict import Verifier
from apportion.rollouts import Rollouts, join
from apportion.sampling import Engine, SamplingSettings
from apportion.tasks.task import Task

LEAD = "\nThe beginning of the answer is:\n"
"""What stands between a prompt and a hint."""

Outcomes = Sequence[float | None]
"""Correctness of a group's responses; None is unknown."""


def check_guidance(stages: Sequence[float], start: int) -> None:
    """Refuse settings that cannot be.

    Args:
        stages: shares of a solution.
        start: steps before the first hint.

    Raises:
        InputError: no stages, or not strictly increasing in (0, 1]; a negative start.
    """
    if start < 0:
        raise InputError(f"start is {start}, expected a step from 0.")
    if not stages or any(not 0 < share <= 1 for share in stages) or any(b <= a for a, b in pairwise(stages)):
        raise InputError(f"stages are {tuple(stages)}, expected shares that grow, above 0 and at most 1.")


def hint(solution: str, share: float) -> str:
    """The first part of a solution, by characters; halves go to the even number.

    Example:
        >>> hint("abcdefghij", 0.25), hint("", 0.5)
        ('ab', '')
    """
    return solution[: round(len(solution) * share)]


def all_wrong(outcomes: Outcomes) -> bool:
    """Whether no response is right. One that is unknown might be: it makes the group none to be helped."""
    return all(outcome is not None and outcome <= 0 for outcome in outcomes)


def escalate(
    groups: int, ask: Callable[[int, Sequence[int]], Sequence[Outcomes]], stages: int, started: bool = True
) -> list[int]:
    """Ask everything plainly, then what is all wrong again, stage by stage.

    Args:
        groups: how many there are.
        ask: ``(stage, groups) -> outcomes of each``; stage 0 is the plain prompt.
        stages: how many stages of hints there are.
        started: hints may be given yet.

    Returns:
        the stage of every group's last responses.

    Raises:
        InputError: a group has fewer than two responses.
    """
    final, wrong = [0] * groups, list(range(groups))
    for stage in range(1 + (stages if started else 0)):
        if not wrong:
            break
        outcomes = ask(stage, wrong)
        if any(len(each) < 2 for each in outcomes):
            raise InputError("a group has fewer than two responses, expected at least two to compare.")
        for group in wrong:
            final[group] = stage
        wrong = [group for group, each in zip(wrong, outcomes, strict=True) if all_wrong(each)]
    return final


@dataclass(frozen=True, eq=False)
class GuidedCollector:
    """Groups of responses, drawn again under a hint where all are wrong.

    Beside what the group sampler records: ``response:origin`` is ``hinted`` under a hint, and ``response:hint_stage``
    says which, 0 without; the prompt, and ``response:prompt_text``, are those the kept responses were drawn from.

    Attributes:
        engine: samples from the policy.
        codec: reads tasks, writes answers.
        verifiers: by task source; their verdict alone decides who needs help.
        solution: the reference solution of a task, None where it has none.
        stages: shares of a solution, growing.
        start: steps before the first hint.
        lead: what stands between a prompt and a hint.

    Raises:
        InputError: stages that do not grow, or a negative start.
    """

    engine: Engine
    codec: Codec
    verifiers: Mapping[str, Verifier]
    solution: Callable[[Task], str | None]
    stages: tuple[float, ...] = (0.25, 0.5, 0.75)
    start: int = 20
    lead: str = LEAD

    def __post_init__(self) -> None:
        check_guidance(self.stages, self.start)

    def __call__(
        self,
        tasks: Sequence[Task],
        group_size: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        first_group: int = 0,
        policy_version: int = 0,
    ) -> Rollouts:
        plain = AnswerCollector(self.engine, self.codec, self.verifiers)
        drawn: dict[int, Rollouts] = {}

        def ask(stage: int, groups: Sequence[int]) -> list[list[float | None]]:
            asked = [self.hinted(tasks[group], stage) for group in groups]
            batch = plain(asked, group_size, settings, generator, 0, policy_version)
            numbers = torch.tensor(groups, device=batch.device)
            drawn[stage] = batch.with_groups(numbers[batch.group_ids] + first_group)
            return _outcomes(batch)

        final = torch.tensor(escalate(len(tasks), ask, len(self.stages), policy_version >= self.start))
        kept = []
        for stage, batch in drawn.items():
            part = batch.select(final.to(batch.device)[batch.group_ids - first_group] == stage)
            if part.n_responses:
                kept.append(_marked(part, stage))
        return join(kept)

    def longest(self, tasks: Sequence[Task], max_new_tokens: int) -> tuple[Sequence[Task], int]:
        """Every task with its longest hint."""
        return [self.hinted(task, len(self.stages)) for task in tasks], max_new_tokens

    def hinted(self, task: Task, stage: int) -> Task:
        """A task as it is asked at a stage.

        Raises:
            InputError: a hint is due and the task has no solution.
        """
        if stage == 0:
            return task
        solution = self.solution(task)
        if solution is None:
            raise InputError(
                f"the task {task.text[:40]!r} needs a hint and has no solution: give its metadata a 'solution', or "
                "name a function with --sampling \"ghpo(solutions='package.module:name')\"."
            )
        text = self.lead + hint(solution, self.stages[stage - 1])
        if isinstance(task.prompt, str):
            return replace(task, prompt=task.prompt + text)
        *before, last = task.prompt
        return replace(task, prompt=(*before, {**last, "content": last["content"] + text}))


def _outcomes(batch: Rollouts) -> list[list[float | None]]:
    """Outcomes of every group, in order of id."""
    reward = batch.columns["episode:reward/outcome"].tensor.tolist()
    scored = batch.columns["episode:scored/outcome"].tensor.tolist()
    found: list[list[float | None]] = [[] for _ in range(batch.n_groups)]
    for group, value, known in zip(batch.group_of_episode.tolist(), reward, scored, strict=True):
        found[group].append(value if known else None)
    return found


def _marked(part: Rollouts, stage: int) -> Rollouts:
    stages = torch.full((part.n_responses,), stage, device=part.device)
    origin = ["hinted" if stage else "policy"] * part.n_responses
    return part.with_column("response:origin", origin, maker="sampling").with_column(
        "response:hint_stage", stages, maker="sampling"
    )
