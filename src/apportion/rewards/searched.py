"""Search trees of responses: answers and steps checked by verifiers while the trees grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from apportion.models.codec import Codec
from apportion.rewards.collect import verdicts_on, with_texts
from apportion.rewards.verdict import Verdict, Verifier
from apportion.rollouts import Rollouts
from apportion.sampling import Engine, SamplingSettings
from apportion.sampling.search import Checks, sample_searched
from apportion.sampling.search.requests import Checked, Row, SearchRule, Step, at_delimiter, every
from apportion.tasks.task import Task


@dataclass(frozen=True, eq=False)
class SearchCollector:
    """Paths of a search tree a task, their steps labelled by the search.

    Attributes:
        engine: samples from the policy.
        codec: reads tasks, writes answers.
        verifiers: of answers, by task source.
        rule: how trees grow.
        steps: verifier of steps, asked about the step alone, with what stands before it as the task's prompt; None
            where the rule asks about none.
        delimiter: text that ends a step; None: the number of tokens alone does.
        step_tokens: the most tokens of a step.
    """

    engine: Engine
    codec: Codec
    verifiers: Mapping[str, Verifier]
    rule: SearchRule
    steps: Verifier | None
    delimiter: str | None
    step_tokens: int

    def __call__(
        self,
        tasks: Sequence[Task],
        group_size: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        first_group: int = 0,
        policy_version: int = 0,
    ) -> Rollouts:
        steps = self.steps

        def on_answers(rows: Sequence[Row]) -> list[Checked]:
            texts = [self.codec.decode(row.ids) for row in rows]
            return _checked(verdicts_on([tasks[row.prompt] for row in rows], texts, self.verifiers))

        def on_steps(asked: Sequence[Step]) -> list[Checked]:
            return [] if steps is None else self._on_steps(steps, tasks, asked)

        cut = every(self.step_tokens)
        if self.delimiter is not None:
            cut = at_delimiter(self.codec.decode, self.delimiter, self.step_tokens)
        drawn = sample_searched(
            self.engine,
            [self.codec.encode(task) for task in tasks],
            self.rule,
            cut,
            Checks(on_answers, None if steps is None else on_steps),
            settings,
            generator,
            group_size,
            first_group,
            policy_version,
        )
        return with_texts(drawn, self.codec, tasks)

    def _on_steps(self, verifier: Verifier, tasks: Sequence[Task], asked: Sequence[Step]) -> list[Checked]:
        """A step without text, such as an end token alone, claims nothing and is not asked about: it is right."""
        texts = [self.codec.decode(step.row.ids[step.start : step.end]) for step in asked]
        found = [Checked(1.0, "the step has no text")] * len(asked)
        said = [i for i, text in enumerate(texts) if text.strip()]
        before = [self.codec.decode(asked[i].row.ids[: asked[i].start]) for i in said]
        of_step = [tasks[asked[i].row.prompt] for i in said]
        continued = [replace(task, prompt=task.text + text) for task, text in zip(of_step, before, strict=True)]
        for i, check in zip(said, _checked(verifier(continued, [texts[i] for i in said])), strict=True):
            found[i] = check
        return found


def _checked(verdicts: Sequence[Verdict]) -> list[Checked]:
    return [Checked(verdict.score, verdict.reason) for verdict in verdicts]
