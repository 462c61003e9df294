"""How a run draws its batches: flat groups, trees, CURE's two stages, hints.

A strategy is made from a spec, ``branching(rule='high_entropy')``, and turns what every strategy draws from into a
collector. Evaluations always draw flat samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from apportion import registry
from apportion.curricula.guidance import LEAD, GuidedCollector, check_guidance
from apportion.errors import InputError
from apportion.models.codec import Codec
from apportion.rewards.branching import BranchingCollector, Measure
from apportion.rewards.collect import AnswerCollector, Collector, TakesMoreRoom
from apportion.rewards.verdict import Verifier
from apportion.rollouts import Rollouts
from apportion.sampling import Engine, SamplingSettings
from apportion.sampling.branching import Limits
from apportion.sampling.fork_rules import build_rule
from apportion.sampling.fork_rules import cure as critical
from apportion.tasks.task import Task
from apportion.training.searched import search


@dataclass(frozen=True, eq=False)
class Source:
    """What strategies draw from.

    Attributes:
        engine: samples from the policy.
        codec: reads tasks, writes answers.
        verifiers: by task source.
        measure: statistics of the policy.
    """

    engine: Engine
    codec: Codec
    verifiers: Mapping[str, Verifier]
    measure: Measure


Strategy = Callable[[Source], Collector]


def groups() -> Strategy:
    """``group_size`` independent responses to every prompt."""

    def make(source: Source) -> Collector:
        return AnswerCollector(source.engine, source.codec, source.verifiers)

    return make


def branching(
    rule: str = "high_entropy",
    budget: int | None = None,
    roots: int | None = None,
    children: int = 1,
    forks: int | None = 1,
    max_depth: int = 1,
    max_width: int | None = None,
    weigh: bool = True,
) -> Strategy:
    """Responses that fork, see :func:`apportion.sampling.branching.sample_branching`.

    Args:
        rule: where, a spec of a fork rule.
        budget: tokens a prompt; None: what ``group_size`` flat responses may take.
        roots: responses drawn from the prompt; None: half of ``group_size``, at least 1.
        children: continuations drawn at a fork, beside the one that was there.
        forks: the most forks of one response; None: as many as the rule says.
        max_depth: rounds of forking.
        max_width: the most responses a prompt; None: as many as the budget allows.
        weigh: record the weights that make up for forced branching.
    """
    chosen = build_rule(rule)

    def limits(group_size: int, longest: int) -> Limits:
        total = group_size * longest if budget is None else budget
        begun = max(group_size // 2, 1) if roots is None else roots
        return Limits(total, begun, children, forks, max_depth, max_width)

    limits(2, 1 if budget is None else max(budget // 2, 1))  # refused now, not at the first step

    def make(source: Source) -> Collector:
        return BranchingCollector(source.engine, source.codec, source.verifiers, source.measure, chosen, limits, weigh)

    return make


def cure(
    n1: int = 4,
    n2: int = 3,
    top_k: int = 20,
    shortest: int = 2,
    control: bool = False,
    second_stage: int | None = None,
) -> Strategy:
    """CURE: every response is branched before one of its critical tokens; from a step on, plain groups.

    Originals and branches are one group, every drawn token weighs 1, and a branch may be ``max_new_tokens`` long
    without its prefix. The paper goes with credit ``dapo`` and DAPO's loss. In the second stage ``group_size``
    responses are drawn from every prompt.

    Args:
        n1: responses from the prompt.
        n2: branches of each.
        top_k: how many tokens of a response are critical.
        shortest: characters a critical token's text must have.
        control: places in a random order instead of that of entropy.
        second_stage: step from which plain groups are drawn; None: never.

    Source: arXiv 2508.11016; bytedance/CURE.
    """
    for name, value in (("n1", n1), ("n2", n2), ("second_stage", 1 if second_stage is None else second_stage)):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1.")
    rule = critical(top_k, shortest, control)

    def limits(group_size: int, longest: int) -> Limits:
        return Limits(n1 * (1 + n2) * longest, n1, n2, 1, max_depth=1, whole=True)

    def make(source: Source) -> Collector:
        first = BranchingCollector(
            source.engine, source.codec, source.verifiers, source.measure, rule, limits, weigh=False
        )
        return first if second_stage is None else Staged(first, groups()(source), second_stage)

    return make


@dataclass(frozen=True, eq=False)
class Staged:
    """One collector, and another from a step on."""

    first: Collector
    second: Collector
    start: int

    @property
    def engine(self) -> Engine:
        return self.first.engine

    def __call__(
        self,
        tasks: Sequence[Task],
        group_size: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        first_group: int = 0,
        policy_version: int = 0,
    ) -> Rollouts:
        collect = self.first if policy_version < self.start else self.second
        return collect(tasks, group_size, settings, generator, first_group, policy_version)

    def longest(self, tasks: Sequence[Task], max_new_tokens: int) -> tuple[Sequence[Task], int]:
        """That of the first; the second is plain groups."""
        if isinstance(self.first, TakesMoreRoom):
            return self.first.longest(tasks, max_new_tokens)
        return tasks, max_new_tokens


def ghpo(
    stages: tuple[float, ...] = (0.25, 0.5, 0.75),
    start: int = 20,
    solutions: str | None = None,
    lead: str = LEAD,
) -> Strategy:
    """GHPO: tasks that all responses of a group fail are asked again with the beginning of their solution.

    Args:
        stages: shares of a solution, growing.
        start: steps before the first hint, so that early slips of form are not taken for difficulty.
        solutions: ``package.module:name`` of a function from a prompt's text to its solution; None: the ``solution`` in
            a task's metadata.
        lead: what stands between a prompt and a hint.

    Source: arXiv 2507.10628; hkgc-1/GHPO.
    """
    check_guidance(stages, start)
    written = None if solutions is None else registry.lookup(solutions, {}, "function of solutions")
    if written is not None and not callable(written):
        raise InputError(f"solutions names {solutions!r}, which is no function: expected one from text to text.")

    def solution(task: Task) -> str | None:
        found = task.metadata.get("solution") if written is None else written(task.text)
        return None if found is None else str(found)

    def make(source: Source) -> Collector:
        return GuidedCollector(source.engine, source.codec, source.verifiers, solution, tuple(stages), start, lead)

    return make


SAMPLING: dict[str, Callable[..., Strategy]] = {
    "groups": groups,
    "branching": branching,
    "cure": cure,
    "ghpo": ghpo,
    "search": search,
}
