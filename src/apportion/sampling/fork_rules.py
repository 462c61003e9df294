"""Where to fork: rules that mark tokens before which further continuations are drawn.

A rule says what it looks at. One that looks at the ``prefix`` decides on every token from the tokens before it alone,
so the continuation that was there is as good a sample as any new one; one that looks ``ahead`` (at later tokens, at
outcomes) has selected that continuation by what it saw of it. Which prefix values are unbiased follows from that
(:mod:`apportion.credit.trees`).

Rules are functions of columns: chance comes from columns too, ``coin`` uniform in [0, 1) for every token and every
response, so that a rule asked twice answers the same.

Suffix legend: N tokens, B responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from apportion import registry
from apportion.errors import InputError, check_share
from apportion.rollouts import Rollouts, ragged

ENTROPY = "entropy/behaviour"
TEXT = "text/token"


@dataclass(frozen=True, eq=False)
class ForkRule:
    """Where to fork.

    Attributes:
        choose: ``rollouts -> bool [N]``: fork before this token. The rollouts are the newest responses, whole; tokens
            they inherited are untrained and not asked about.
        looks: ``prefix`` or ``ahead``.
        needs: columns it reads beside ``coin`` and ``response:coin``: ``entropy/behaviour`` (engines record it),
            ``text/token`` (what every token alone decodes to), ``values/<head>`` (the policy's), ``reward/outcome``.
    """

    choose: Callable[[Rollouts], Tensor]
    looks: Literal["prefix", "ahead"]
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.looks not in ("prefix", "ahead"):
            raise InputError(f"a fork rule looks at {self.looks!r}, expected 'prefix' or 'ahead'.")
        late = [name for name in self.needs if name.startswith(("response:", "episode:", "reward/"))]
        if late and self.looks == "prefix":
            raise InputError(
                f"a fork rule that looks at the prefix needs {late[0]!r}, which is known when a response has ended "
                "only: declare looks='ahead'."
            )


def uniform(rate: float = 0.1) -> ForkRule:
    """Fork before every token with the same probability.

    Args:
        rate: the probability, above 0.
    """
    check_share("rate", rate)

    def choose(rollouts: Rollouts) -> Tensor:
        return rollouts.column("coin") < rate

    return ForkRule(choose, "prefix")


def high_entropy(threshold: float = 0.5) -> ForkRule:
    """Fork before tokens that were drawn from an uncertain distribution.

    The threshold is the same for all: the most uncertain token *of a response* is known only when the response has
    ended (``highest_entropy``).

    Args:
        threshold: of the entropy, in nats.
    """
    if not threshold >= 0:
        raise InputError(f"threshold is {threshold}, expected 0 or more.")

    def choose(rollouts: Rollouts) -> Tensor:
        return rollouts.column(ENTROPY) > threshold

    return ForkRule(choose, "prefix", (ENTROPY,))


def highest_entropy() -> ForkRule:
    """Fork before the most uncertain token of every response, the first of equals."""

    def choose(rollouts: Rollouts) -> Tensor:
        chosen = torch.zeros_like(rollouts.trained)
        for candidates in _ranked(rollouts, rollouts.column(ENTROPY), eligible=_after_first(rollouts)):
            chosen[candidates[:1]] = True
        return chosen

    return ForkRule(choose, "ahead", (ENTROPY,))


def step_boundary(separator: str = "\n", rate: float = 1.0) -> ForkRule:
    """Fork where a step begins: before a token that follows one with the separator in its text.

    Args:
        separator: text that ends steps.
        rate: the share of steps that are forked.
    """
    if not separator:
        raise InputError("separator is empty, expected the text that ends a step.")
    check_share("rate", rate)

    def choose(rollouts: Rollouts) -> Tensor:
        ends = [separator in (text or "") for text in rollouts.columns[f"token:{TEXT}"].text]
        after = torch.tensor([False, *ends[:-1]][: len(ends)], dtype=torch.bool, device=rollouts.device)
        first = ragged.position_in_row(rollouts.token_offsets) == 0
        return after & ~first & (rollouts.column("coin") < rate)

    return ForkRule(choose, "prefix", (TEXT,))


def uncertain_value(head: str = "policy", threshold: float = 0.15) -> ForkRule:
    """Fork where a value head on the policy is unsure of the outcome: ``v (1 - v) > threshold``.

    Args:
        head: of the statistic ``values/<head>``, which an objective of the run trains.
        threshold: below 0.25, which a value of one half has.
    """
    if not 0 <= threshold < 0.25:
        raise InputError(f"threshold is {threshold}, expected 0 or more and below 0.25.")
    column = f"values/{head}"

    def choose(rollouts: Rollouts) -> Tensor:
        value = rollouts.column(column)
        return value * (1 - value) > threshold

    return ForkRule(choose, "prefix", (column,))


def cure(top_k: int = 20, shortest: int = 2, control: bool = False) -> ForkRule:
    """CURE: fork every response before one of its critical tokens, drawn among the most uncertain ones.

    A response without a critical token is forked at its very beginning: drawn anew.

    Args:
        top_k: how many tokens are critical, see :func:`critical_tokens`.
        shortest: characters a token's text must have, white space left out.
        control: take positions in a random order in place of that of entropy, the paper's control.

    Source: arXiv 2508.11016; bytedance/CURE.
    """
    if top_k < 1:
        raise InputError(f"top_k is {top_k}, expected at least 1.")

    def choose(rollouts: Rollouts) -> Tensor:
        keys = rollouts.column("coin") if control else rollouts.column(ENTROPY)
        chosen = torch.zeros_like(rollouts.trained)
        coins = rollouts.columns["response:coin"].tensor.tolist()
        starts = rollouts.token_offsets.tolist()
        for row, candidates in enumerate(_critical(rollouts, keys, top_k, shortest)):
            if len(candidates):
                chosen[candidates[int(coins[row] * len(candidates))]] = True
            elif starts[row] < starts[row + 1]:
                chosen[starts[row]] = True
        return chosen

    return ForkRule(choose, "ahead", (ENTROPY, TEXT))


def critical_tokens(
    entropies: Sequence[float], texts: Sequence[str], special: Sequence[bool], top_k: int, shortest: int = 2
) -> list[int]:
    """CURE's candidates among the tokens of one response, the most uncertain first.

    Skipped are the first token, special tokens, and tokens whose text, stripped of white space, is shorter than
    ``shortest``. Of equal entropies the earlier comes first.

    Args:
        entropies: of the distribution every token was drawn from, in nats.
        texts: of every token.
        special: which tokens are special.
        top_k: the most candidates.
        shortest: characters.

    Raises:
        InputError: lists of different lengths, an entropy that is negative or not finite, or ``top_k`` below 1.

    Example:
        >>> critical_tokens([9.0, 1.0, 8.0, 3.0], ["Let", " because", ",", " wait"], [False] * 4, top_k=2)
        [3, 1]
    """
    if not len(entropies) == len(texts) == len(special):
        raise InputError(
            f"got {len(entropies)} entropies, {len(texts)} texts and {len(special)} marks, expected one a token."
        )
    values = torch.tensor(entropies, dtype=torch.float64)
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise InputError("an entropy is negative or not finite, expected nats from 0.")
    shown = ["" if mark else text for text, mark in zip(texts, special, strict=True)]
    row = Rollouts.from_lists([[0] * len(texts)], groups=[0]).with_column(TEXT, shown)
    return _critical(row, values, top_k, shortest)[0].tolist()


def _critical(rollouts: Rollouts, keys: Tensor, top_k: int, shortest: int) -> list[Tensor]:
    if top_k < 1:
        raise InputError(f"top_k is {top_k}, expected at least 1.")
    texts = rollouts.columns[f"token:{TEXT}"].text
    if None in texts:
        raise InputError(f"a token has no entry in {TEXT!r}, expected the text of every token.")
    long = torch.tensor([len((text or "").strip()) >= shortest for text in texts], device=rollouts.device)
    return [best[:top_k] for best in _ranked(rollouts, keys, eligible=_after_first(rollouts) & long)]


def _after_first(rollouts: Rollouts) -> Tensor:
    """Own tokens that are not the first of their response."""
    return rollouts.trained & (ragged.position_in_row(rollouts.token_offsets) > 0)


def _ranked(rollouts: Rollouts, keys: Tensor, eligible: Tensor) -> list[Tensor]:
    """Eligible tokens of every response, those of the largest key first, the earlier of equals first."""
    tokens = eligible.nonzero().squeeze(1)
    order = tokens[torch.argsort(keys[tokens], descending=True, stable=True)]
    row = rollouts.response_of_token[order]
    by_row = order[torch.argsort(row, stable=True)]
    counts = torch.bincount(row, minlength=rollouts.n_responses)
    return list(torch.split(by_row, counts.tolist()))


FORK_RULES: dict[str, Callable[..., ForkRule]] = {
    "uniform": uniform,
    "high_entropy": high_entropy,
    "highest_entropy": highest_entropy,
    "step_boundary": step_boundary,
    "uncertain_value": uncertain_value,
    "cure": cure,
}


def build_rule(spec: str | ForkRule) -> ForkRule:
    """The rule a spec names: ``high_entropy(threshold=0.7)`` or ``package.module:name(...)``.

    Raises:
        InputError: it does not make a rule.
    """
    rule = registry.build(spec, FORK_RULES, "fork rule") if isinstance(spec, str) else spec
    if not isinstance(rule, ForkRule):
        raise InputError(f"{spec!r} made a {type(rule).__name__}, expected a sampling.fork_rules.ForkRule.")
    return rule
