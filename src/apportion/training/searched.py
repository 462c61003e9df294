"""The sampling strategy that searches: paths of trees, with labels of their steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from apportion import registry
from apportion.errors import InputError
from apportion.rewards import build_verifier
from apportion.rewards.collect import Collector
from apportion.rewards.searched import SearchCollector
from apportion.sampling.search import SEARCHES
from apportion.sampling.search.requests import SearchRule

if TYPE_CHECKING:
    from apportion.training.strategies import Source, Strategy


@runtime_checkable
class MakesColumns(Protocol):
    """A strategy that makes more than every strategy does: full names, and ``reward/<component>`` without a level."""

    makes: tuple[str, ...]


def search(
    rule: str = "grounded_prm", steps: str | None = None, delimiter: str | None = "\n", step_tokens: int = 64
) -> Strategy:
    """Paths of a search tree, ``group_size`` a prompt at most, see :mod:`apportion.sampling.search`.

    Args:
        rule: how trees grow and what their paths say, a spec: ``grounded_prm`` or ``med_s3``, with settings.
        steps: spec of a verifier of steps, such as ``partial_sums``; a rule that checks steps needs one.
        delimiter: text that ends a step; None: the number of tokens alone does.
        step_tokens: the most tokens of a step.

    Raises:
        InputError: a rule that checks steps and no verifier, or the other way round; a number out of range.
    """
    chosen: SearchRule = registry.build(rule, SEARCHES, "search rule")
    if chosen.checks_steps and steps is None:
        raise InputError(
            f"the search {rule!r} checks steps and was told no verifier: name one, as steps='partial_sums'."
        )
    if steps is not None and not chosen.checks_steps:
        raise InputError(f"steps is {steps!r}, but the search {rule!r} checks none: leave it out.")
    if step_tokens < 1:
        raise InputError(f"step_tokens is {step_tokens}, expected at least 1.")
    if delimiter == "":
        raise InputError("delimiter is empty, expected text that ends a step, or None.")
    return _Search(chosen, steps, delimiter, step_tokens)


@runtime_checkable
class Forgets(Protocol):
    """A strategy whose rollouts cannot hold what else a token might have been when it was drawn."""

    forgets: bool


class _Search:
    forgets = True
    makes = (
        "reward/prm",
        *(f"step:{name}" for name in ("reward/prm", "node", "parent", "value", "visits", "kind")),
    )

    def __init__(self, rule: SearchRule, steps: str | None, delimiter: str | None, step_tokens: int) -> None:
        self.rule, self.delimiter, self.step_tokens = rule, delimiter, step_tokens
        self.steps = None if steps is None else build_verifier(steps)

    def __call__(self, source: Source) -> Collector:
        return SearchCollector(
            source.engine,
            source.codec,
            source.verifiers,
            self.rule,
            self.steps,
            self.delimiter,
            self.step_tokens,
        )
