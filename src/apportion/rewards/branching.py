"""Trees of responses, sampled and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.models.codec import Codec
from apportion.rewards.collect import score, with_texts
from apportion.rewards.verdict import Verifier
from apportion.rollouts import Rollouts
from apportion.sampling import Engine, SamplingSettings
from apportion.sampling.branching import Limits, sample_branching
from apportion.sampling.fork_rules import TEXT, ForkRule
from apportion.tasks.task import Task

Measure = Callable[[Rollouts, Sequence[str]], Mapping[str, Tensor]]
"""``(rollouts, names) -> values [N] by name``: statistics of the policy at trained tokens, of those it can give."""


@dataclass(frozen=True, eq=False)
class BranchingCollector:
    """A tree of responses a task, every one of them checked by the verifier of the task's source.

    Attributes:
        engine: samples from the policy.
        codec: reads tasks, writes answers.
        verifiers: by task source.
        measure: statistics of the policy, for rules that fork by a value head.
        rule: where to fork.
        limits: how far trees may grow, from the group size and the longest response.
        weigh: record sampling weights.
    """

    engine: Engine
    codec: Codec
    verifiers: Mapping[str, Verifier]
    measure: Measure
    rule: ForkRule
    limits: Callable[[int, int], Limits]
    weigh: bool = True

    def __call__(
        self,
        tasks: Sequence[Task],
        group_size: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        first_group: int = 0,
        policy_version: int = 0,
    ) -> Rollouts:
        def annotate(rollouts: Rollouts, names: Sequence[str]) -> Rollouts:
            return self._annotate(rollouts, names, tasks)

        drawn = sample_branching(
            self.engine,
            [self.codec.encode(task) for task in tasks],
            self.rule,
            self.limits(group_size, settings.max_new_tokens),
            settings,
            generator,
            annotate,
            self.weigh,
            first_group,
            policy_version,
        )
        return score(with_texts(drawn, self.codec, tasks), tasks, self.verifiers)

    def longest(self, tasks: Sequence[Task], max_new_tokens: int) -> tuple[Sequence[Task], int]:
        """A branch that may be as long as a response goes on behind all but the last token of one."""
        whole = self.limits(2, max_new_tokens).whole
        return tasks, 2 * max_new_tokens - 1 if whole else max_new_tokens

    def _annotate(self, rollouts: Rollouts, names: Sequence[str], tasks: Sequence[Task]) -> Rollouts:
        if TEXT in names:
            texts = {token: self.codec.decode([token]) for token in rollouts.ids.unique().tolist()}
            rollouts = rollouts.with_column(TEXT, [texts[token] for token in rollouts.ids.tolist()], maker="sampling")
        if "reward/outcome" in names:
            rollouts = score(with_texts(rollouts, self.codec, tasks), tasks, self.verifiers)
        for name, values in self.measure(rollouts, [n for n in names if n.startswith("values/")]).items():
            rollouts = rollouts.with_statistic(name, values, "sampling")
        return rollouts
