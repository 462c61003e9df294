"""The search sampler: trees of all prompts grow together, with one call of the engine for all that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apportion.errors import InputError
from apportion.rollouts import Rollouts, ragged
from apportion.sampling.engine import Engine, ForkingEngine, Forks, Generated, SamplingSettings
from apportion.sampling.search.grounded import grounded_prm
from apportion.sampling.search.med_s3 import med_s3
from apportion.sampling.search.paths import rollouts_of
from apportion.sampling.search.requests import (
    CheckAnswers,
    Checked,
    CheckSteps,
    Cut,
    Draw,
    Growth,
    Path,
    Request,
    Row,
    SearchRule,
    Step,
)

SEARCHES: dict[str, Callable[..., SearchRule]] = {"grounded_prm": grounded_prm, "med_s3": med_s3}
"""Searches by name, each built from its settings."""


@dataclass(frozen=True)
class Checks:
    """Who is asked about what a search drew; one verdict each, in order.

    Attributes:
        answers: about whole responses.
        steps: about steps; None where the rule asks about none.
    """

    answers: Callable[[Sequence[Row]], Sequence[Checked]]
    steps: Callable[[Sequence[Step]], Sequence[Checked]] | None = None


def sample_searched(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    rule: SearchRule,
    cut: Cut,
    checks: Checks,
    settings: SamplingSettings,
    generator: torch.Generator,
    most: int,
    first_group: int = 0,
    policy_version: int = 0,
) -> Rollouts:
    """Search below every prompt; the paths to one prompt are a group.

    A node is a step of a response that was drawn to its end at once, so expanding and simulating take one call, and
    what was read is kept wherever the engine keeps it. In every round all trees go on until each needs further
    responses; those are drawn together.

    Args:
        engine: what draws; it must be able to continue from the middle.
        prompts: token ids of every prompt.
        rule: how trees grow.
        cut: where steps end.
        checks: verifiers.
        settings: how to draw; ``max_new_tokens`` is the length of a path.
        generator: source of randomness; the same state gives the same trees.
        most: paths a prompt, at most.
        first_group: id of the first group; the others follow.
        policy_version: which weights drew them, in updates since the start.

    Returns:
        what :func:`apportion.sampling.search.paths.rollouts_of` records.

    Raises:
        InputError: an engine that cannot fork, or a rule that checks steps and nobody to ask.
    """
    if not isinstance(engine, ForkingEngine):
        raise InputError(
            f"a {type(engine).__name__} cannot continue responses from the middle, expected an engine with forks(): "
            "sample with --sampling groups, or from a local model."
        )
    if rule.checks_steps and checks.steps is None:
        raise InputError("this search checks steps and was told no verifier of them: name one with steps=...")
    forks = engine.forks(settings, generator)
    found = _Searches(forks, prompts, rule, cut, checks, settings, generator, most).grow()
    return rollouts_of(found, prompts, settings.temperature or 1.0, first_group, policy_version)


class _Searches:
    """The searches of all prompts while they grow."""

    def __init__(
        self,
        forks: Forks,
        prompts: Sequence[Sequence[int]],
        rule: SearchRule,
        cut: Cut,
        checks: Checks,
        settings: SamplingSettings,
        generator: torch.Generator,
        most: int,
    ) -> None:
        self.forks, self.prompts, self.rule, self.cut = forks, prompts, rule, cut
        self.settings, self.generator, self.most = settings, generator, most
        self.drawn = 0
        self.serve: dict[type, Callable[[list[Any]], Sequence[Any]]] = {
            CheckAnswers: lambda asked: checks.answers([row for one in asked for row in one.items]),
            Draw: self._fork,
        }
        if checks.steps is not None:
            ask = checks.steps
            self.serve[CheckSteps] = lambda asked: ask([step for one in asked for step in one.items])

    def grow(self) -> list[list[Path]]:
        """Serve requests until every search has returned its paths."""
        begun = self._begin()
        growths = [self.rule.grow(rows, self._coin, self.most) for rows in begun]
        found: dict[int, list[Path]] = {}
        asked: dict[int, Request] = {}
        for prompt, growth in enumerate(growths):
            self._go_on(prompt, growth, None, asked, found)
        while asked:
            # Verdicts first: a search that gets one may ask for responses in the same round.
            kind = next(
                (kind for kind in (CheckSteps, CheckAnswers) if any(type(a) is kind for a in asked.values())), Draw
            )
            served = {prompt: request for prompt, request in sorted(asked.items()) if type(request) is kind}
            replies = self.serve[kind](list(served.values()))
            before = 0
            for prompt, request in served.items():
                size = len(request.items)
                self._go_on(prompt, growths[prompt], replies[before : before + size], asked, found)
                before += size
        return [found[prompt] for prompt in range(len(growths))]

    @staticmethod
    def _go_on(
        prompt: int, growth: Growth, reply: Any, asked: dict[int, Request], found: dict[int, list[Path]]
    ) -> None:
        try:
            asked[prompt] = growth.send(reply)
        except StopIteration as stop:
            asked.pop(prompt, None)
            found[prompt] = stop.value

    def _coin(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.generator, device=self.generator.device))

    def _begin(self) -> list[list[Row]]:
        drawn = self.forks.begin(self.prompts, self.rule.children, self.settings.max_new_tokens)
        rows = self._rows(
            drawn, [(prompt, None, 0) for prompt in range(len(self.prompts)) for _ in range(self.rule.children)]
        )
        return [rows[i : i + self.rule.children] for i in range(0, len(rows), self.rule.children)]

    def _fork(self, asked: list[Draw]) -> list[Row]:
        forks = [fork for one in asked for fork in one.items]
        device = self.generator.device
        numbers = torch.tensor([fork.row.number for fork in forks], device=device)
        places = torch.tensor([fork.place for fork in forks], device=device)
        drawn = self.forks.fork(numbers, places, 1, self.settings.max_new_tokens - places)
        return self._rows(drawn, [(fork.row.prompt, fork.row, fork.place) for fork in forks])

    def _rows(self, drawn: Generated, origins: Sequence[tuple[int, Row | None, int]]) -> list[Row]:
        lengths = ragged.lengths_of(drawn.offsets).tolist()
        own_ids, own_log_probs = torch.split(drawn.ids, lengths), torch.split(drawn.log_probs, lengths)
        rows = []
        for i, ((prompt, parent, place), truncated) in enumerate(zip(origins, drawn.truncated.tolist(), strict=True)):
            ids, log_probs, ends = tuple(own_ids[i].tolist()), own_log_probs[i], []
            if parent is not None:
                ids = (*parent.ids[:place], *ids)
                log_probs = torch.cat([parent.log_probs[:place], log_probs])
                ends = [end for end in parent.ends if end <= place]
            rows.append(Row(prompt, self.drawn + i, ids, log_probs, (*ends, *self.cut(ids, place)), truncated))
        self.drawn += len(rows)
        return rows
