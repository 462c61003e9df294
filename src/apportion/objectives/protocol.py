"""What is minimised, as a function of the current policy's per-token scalars.

An objective reads ``now`` (statistics of the policy being trained), columns of the rollouts and the credit, and
returns a :class:`Loss`. It sees parameters only through ``now``, so the trainer can evaluate it once on a whole
update batch, take the gradient with respect to ``now``, and push that through the model in any cut.

Objectives of scope ``token`` are sums over trained tokens of ``weight_t * term_t`` where the term at t reads ``now``
and columns at t only; they are written as plain functions of token tensors and may also be evaluated inside the
model's head, chunk by chunk. Both paths give the same gradient.

Suffix legend: N tokens, n the tokens at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import split_name

Scope = Literal["token", "episode", "group", "pair"]
SCOPES: tuple[Scope, ...] = ("token", "episode", "group", "pair")
"""Units an optimiser step may not split, narrowest first."""

Now = Mapping[str, Tensor]
"""Statistics of the current policy by name, ``[N]`` each; only entries at trained tokens may be read."""


@dataclass(frozen=True, eq=False)
class Loss:
    """A scalar to minimise, and scalars to report."""

    value: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Terms:
    """What a token objective returns: one loss term a token ``[n]``, and what to report as means over tokens."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


TermFunction = Callable[[Now, Mapping[str, Tensor]], Terms]
Weights = Callable[[Rollouts, Credit], Tensor]


@dataclass(frozen=True, eq=False)
class TokenPart:
    """One summand of a token objective.

    Attributes:
        terms: of the tokens it is given.
        weights: the weight of every token's term ``[N]``.
        needs: columns the terms read.
        covers: the episodes it is about, as a mask ``[E]``; None: all. Weights are then computed on those episodes
            alone, and at the tokens of others neither columns nor the policy are read.
    """

    terms: TermFunction
    weights: Weights
    needs: tuple[str, ...]
    covers: Callable[[Rollouts], Tensor] | None = None


Evaluate = Callable[[Now, Rollouts, Credit, Clock | None], Loss]


@dataclass(frozen=True, eq=False)
class Objective:
    """Something to minimise.

    Attributes:
        scope: the unit an optimiser step may not split.
        now: statistics of the current policy it differentiates through.
        needs: columns of the rollouts (``log_probs/old``) and of the credit (``credit/advantages``) it reads.
        evaluate: ``(now, rollouts, credit, clock) -> Loss``, for objectives that are not sums over tokens.
        parts: the summands of a token objective, in place of ``evaluate``.
        watches: statistics it reads without differentiating.
    """

    scope: Scope
    now: tuple[str, ...]
    needs: tuple[str, ...] = ()
    evaluate: Evaluate | None = None
    parts: tuple[TokenPart, ...] = ()
    watches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise InputError(f"scope is {self.scope!r}, expected one of {', '.join(SCOPES)}.")
        if (self.scope == "token") != bool(self.parts) or (self.evaluate is None) != bool(self.parts):
            raise InputError("an objective has either token parts (scope 'token') or an evaluate function, not both.")

    def __call__(self, now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None = None) -> Loss:
        """The loss of a whole update batch."""
        if self.evaluate is not None:
            return self.evaluate(now, rollouts, credit, clock)
        tokens = credit.trained.nonzero().squeeze(1)
        bound = bind(self, rollouts, credit)
        at = {name: values[tokens] for name, values in now.items()}
        return Loss(*bound(at, tokens))


BoundTerms = Callable[[Now, Tensor], tuple[Tensor, dict[str, Tensor]]]


def bind(objective: Objective, rollouts: Rollouts, credit: Credit) -> BoundTerms:
    """A token objective tied to an update batch: a function of any part of its tokens.

    Args:
        objective: of scope token.
        rollouts: the update batch.
        credit: its credit.

    Returns:
        ``(now at n tokens, token numbers [n]) -> (summed weighted terms, shares of the metrics)``. Called on a
        partition of the trained tokens, the sums add up to the loss of the whole batch and the shares to the means of
        the metrics over the tokens each part is about.
    """
    if objective.scope != "token":
        raise InputError(f"an objective of scope {objective.scope} is not a sum over tokens, expected scope token.")
    parts = [bound for part in objective.parts if (bound := _bind_part(part, rollouts, credit)) is not None]

    def evaluate(now: Now, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        value: Any = torch.zeros((), device=tokens.device)
        metrics: dict[str, Tensor] = {}
        for part in parts:
            loss, shares = part(now, tokens)
            value = value + loss
            metrics |= shares
        return value, metrics

    return evaluate


def _bind_part(part: TokenPart, rollouts: Rollouts, credit: Credit) -> BoundTerms | None:
    """The same for one summand; None when it is about episodes of which this batch has none."""
    if part.covers is None:
        used, weight = credit.trained, part.weights(rollouts, credit)
    else:
        covered = part.covers(rollouts)
        inside = covered[rollouts.episode_of_token]
        used = credit.trained & inside
        if not bool(used.any()):
            return None
        weight = torch.zeros_like(rollouts.weight)
        weight[inside] = part.weights(rollouts.select(covered), credit.select(covered)).to(weight.dtype)
    columns = {name: read(name, rollouts, credit, used) for name in part.needs}
    count = max(int(used.sum()), 1)

    def evaluate(now: Now, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if part.covers is not None:
            mine = used[tokens]
            tokens, now = tokens[mine], {name: values[mine] for name, values in now.items()}
        terms = part.terms(now, {name: column[tokens] for name, column in columns.items()})
        value = (terms.loss * weight[tokens].to(terms.loss.dtype)).sum()
        return value, {name: metric.detach().sum() / count for name, metric in terms.metrics.items()}

    return evaluate


def read(name: str, rollouts: Rollouts, credit: Credit, used: Tensor | None = None) -> Tensor:
    """A column an objective named: of the credit if it starts with ``credit/``, else of the rollouts.

    Args:
        name: of the column.
        rollouts: the update batch.
        credit: its credit.
        used: of a token column, the tokens that will be used ``[N]``; default: those the credit trains.

    Raises:
        MissingColumn: it is not there.
        InputError: it is missing at a token that will be used.
    """
    level, short = split_name(name)
    if short == "credit/advantages":
        return credit.advantages
    source = credit.record() if short.startswith("credit/") else rollouts
    where = (credit.trained if used is None else used) if level == "token" else None
    return source.column(name, where=where, reader="this objective")


def token_objective(terms: TermFunction, weights: Weights, now: tuple[str, ...], needs: tuple[str, ...]) -> Objective:
    """An objective that is a weighted sum of token terms.

    Args:
        terms: ``(now, columns) -> Terms``, of tensors ``[n]``.
        weights: an aggregation, see :mod:`apportion.objectives.aggregate`.
        now: statistics of the current policy the terms read.
        needs: columns the terms read.
    """
    return Objective("token", now, needs, parts=(TokenPart(terms, weights, needs),))


def add(*objectives: Objective) -> Objective:
    """The sum of several objectives, of the widest of their scopes.

    Example:
        >>> from apportion import objectives
        >>> both = objectives.add(objectives.clip(), objectives.kl(coefficient=0.001))
        >>> both.scope, both.needs
        ('token', ('log_probs/old', 'credit/advantages', 'log_probs/reference'))
    """
    if not objectives:
        raise InputError("got no objectives to add, expected at least one.")
    now = tuple(dict.fromkeys(name for o in objectives for name in o.now))
    needs = tuple(dict.fromkeys(name for o in objectives for name in o.needs))
    watches = tuple(dict.fromkeys(n for o in objectives for n in o.watches if n not in now))
    scope = max((o.scope for o in objectives), key=SCOPES.index)
    if scope == "token":
        return Objective("token", now, needs, parts=tuple(p for o in objectives for p in o.parts), watches=watches)

    def evaluate(batch: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        losses = [o(batch, rollouts, credit, clock) for o in objectives]
        metrics = {name: value for loss in losses for name, value in loss.metrics.items()}
        return Loss(torch.stack([loss.value for loss in losses]).sum(), metrics)

    return Objective(scope, now, needs, evaluate, watches=watches)
