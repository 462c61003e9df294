"""Sampling and scoring together: tasks in, rollouts with text and rewards out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from apportion.environments import Environment
from apportion.models.codec import Codec
from apportion.rewards.verdict import Verdict, Verifier
from apportion.rollouts import Rollouts, ragged
from apportion.sampling import Engine, SamplingSettings, sample_groups
from apportion.sampling.episodes import sample_episodes
from apportion.tasks.task import Task


def sample(
    engine: Engine,
    codec: Codec,
    tasks: Sequence[Task],
    group_size: int,
    settings: SamplingSettings,
    generator: torch.Generator,
    first_group: int = 0,
    policy_version: int = 0,
) -> Rollouts:
    """Draw responses to every task, with their text beside the tokens."""
    prompts = [codec.encode(task) for task in tasks]
    rollouts = sample_groups(engine, prompts, group_size, settings, generator, first_group, policy_version)
    return with_texts(rollouts, codec, tasks)


def with_texts(rollouts: Rollouts, codec: Codec, tasks: Sequence[Task]) -> Rollouts:
    """Text beside the tokens, and what was asked; prompts are numbered as ``tasks``."""
    texts = [codec.decode(row) for row in ragged.unflatten(rollouts.ids, rollouts.token_offsets)]
    of_response = [tasks[i] for i in rollouts.prompts.tolist()]
    return (
        rollouts.with_column("response:text", texts, maker="sampling")
        .with_column("response:prompt_text", [task.text for task in of_response], maker="sampling")
        .with_column("response:answer", [task.answer for task in of_response], maker="tasks")
        .with_column("response:task_source", [task.source for task in of_response], maker="tasks")
    )


def score(rollouts: Rollouts, tasks: Sequence[Task], verifiers: Mapping[str, Verifier]) -> Rollouts:
    """Ask the verifier of every task's source; no verdict is unknown, not 0.

    Args:
        rollouts: one response an episode, prompts numbered as ``tasks``.
        tasks: what was asked.
        verifiers: by task source.
    """
    texts = [text or "" for text in rollouts.columns["response:text"].text]
    given = verdicts_on([tasks[i] for i in rollouts.prompts.tolist()], texts, verifiers)
    values = torch.tensor([0.0 if v.score is None else v.score for v in given], dtype=torch.float64)
    scored = torch.tensor([v.known for v in given])
    rollouts = rollouts.with_reward("outcome", values.to(rollouts.device), scored.to(rollouts.device), maker="verifier")
    return rollouts.with_column("episode:reason", [v.reason for v in given], maker="verifier")


def verdicts_on(tasks: Sequence[Task], responses: Sequence[str], verifiers: Mapping[str, Verifier]) -> list[Verdict]:
    """One verdict a response, of the verifier of its task's source; unknown where there is none."""
    verdicts: list[Verdict | None] = [None] * len(tasks)
    for source, verifier in verifiers.items():
        rows = [i for i, task in enumerate(tasks) if task.source == source]
        answers = verifier([tasks[i] for i in rows], [responses[i] for i in rows])
        for i, verdict in zip(rows, answers, strict=True):
            verdicts[i] = verdict
    return [verdict or Verdict(None, "no verifier for this task source") for verdict in verdicts]


class Collector(Protocol):
    """Turns tasks into scored rollouts, a group a task."""

    @property
    def engine(self) -> Engine: ...

    def __call__(
        self,
        tasks: Sequence[Task],
        group_size: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        first_group: int = 0,
        policy_version: int = 0,
    ) -> Rollouts: ...


@runtime_checkable
class TakesMoreRoom(Protocol):
    """A collector whose prompts or responses can become longer than those of plain groups."""

    def longest(self, tasks: Sequence[Task], max_new_tokens: int) -> tuple[Sequence[Task], int]:
        """The tasks as they may be asked at their longest, and the most tokens drawn behind a prompt of theirs."""
        ...


@dataclass(frozen=True, eq=False)
class AnswerCollector:
    """One response a task, checked by the verifier of the task's source.

    Attributes:
        engine: samples from the policy.
        codec: reads tasks, writes answers.
        verifiers: by task source.
    """

    engine: Engine
    codec: Codec
    verifiers: Mapping[str, Verifier]

    def __call__(
        self,
        tasks: Sequence[Task],
        group_size: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        first_group: int = 0,
        policy_version: int = 0,
    ) -> Rollouts:
        drawn = sample(self.engine, self.codec, tasks, group_size, settings, generator, first_group, policy_version)
        return score(drawn, tasks, self.verifiers)


@dataclass(frozen=True, eq=False)
class EpisodeCollector:
    """Attempts of several turns, rewarded by the environment.

    Attributes:
        engine: samples from the policy.
        codec: reads observations, writes actions.
        environment: what is acted in.
    """

    engine: Engine
    codec: Codec
    environment: Environment

    def __call__(
        self,
        tasks: Sequence[Task],
        group_size: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        first_group: int = 0,
        policy_version: int = 0,
    ) -> Rollouts:
        return sample_episodes(
            self.engine,
            self.codec,
            self.environment,
            tasks,
            group_size,
            settings,
            generator,
            first_group,
            policy_version,
        )
