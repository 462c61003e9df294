"""The table of the common suite: every registered objective. A new objective joins by adding its rows here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from apportion.objectives import OBJECTIVES, Objective
from apportion.rollouts import Rollouts
from objectives.batches import Batch, batch
from reference import losses

Rows = list[list[float]]
Naive = Callable[[Batch, Mapping[str, Tensor]], tuple[Rows, str]]
"""``(batch, now) -> (term of every token, NaN where not trained; aggregation)``."""


def unchanged(rollouts: Rollouts) -> Rollouts:
    """No further columns."""
    return rollouts


@dataclass(frozen=True)
class Case:
    """An objective with arguments.

    Attributes:
        objective: name in ``OBJECTIVES``.
        arguments: what it is made with.
        prepare: adds the columns it needs besides ``log_probs/old``, ``log_probs/reference`` and the reward
            ``outcome`` (0 or 1 an episode, two groups of three); a function of what the rollouts contain. Where
            tokens are not trained the columns of the suite are NaN, and so should these be.
        naive: its terms by a loop over lists, for objectives that are sums over tokens.
        branches: it may be used on rollouts with sampling weights.
    """

    objective: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Rollouts], Rollouts] = unchanged
    naive: Naive | None = None
    branches: bool = True

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.objective}({arguments})"

    @property
    def made(self) -> Objective:
        """The objective."""
        return OBJECTIVES[self.objective](**self.arguments)

    def batch(self, seed: int, weighted: bool = False) -> Batch:
        """Something to evaluate it on."""
        return batch(seed, weighted, self.prepare)


def of_tokens(term: Callable[..., float], names: tuple[str, ...], aggregate: str = "token_mean") -> Naive:
    """Terms that read the given statistics, columns and advantages of their own token."""

    def naive(given: Batch, now: Mapping[str, Tensor]) -> tuple[Rows, str]:
        tables = []
        for name in names:
            if name == "advantages":
                values = given.credit.advantages
            else:
                values = now[name] if name in now else given.rollouts.columns[f"token:{name}"].tensor
            tables.append(given.rows(values.detach()))
        trained = given.rows(given.credit.trained)
        rows = [
            [term(*(table[i][t] for table in tables)) if train else float("nan") for t, train in enumerate(row)]
            for i, row in enumerate(trained)
        ]
        return rows, aggregate

    return naive


def clip(aggregate: str = "token_mean", **bounds: Any) -> Naive:
    """The clipped surrogate."""
    return of_tokens(
        lambda new, old, advantage: losses.clip_term(new, old, advantage, **bounds),
        ("log_probs", "log_probs/old", "advantages"),
        aggregate,
    )


def kl(coefficient: float, estimator: str) -> Naive:
    """The penalty on divergence."""
    return of_tokens(
        lambda new, reference: coefficient * losses.kl_term(new, reference, estimator),
        ("log_probs", "log_probs/reference"),
    )


CASES = (
    Case("clip", naive=clip(low=0.2, high=0.2)),
    Case("clip", {"low": 0.1, "high": 0.28, "dual": 1.5}, naive=clip(low=0.1, high=0.28, dual=1.5)),
    Case(
        "clip",
        {"aggregate": "seq_mean_token_mean"},
        naive=clip("seq_mean_token_mean", low=0.2, high=0.2),
        branches=False,
    ),
    Case("kl", naive=kl(0.001, "k3")),
    Case("kl", {"coefficient": 0.5, "estimator": "k1"}, naive=kl(0.5, "k1")),
    Case("kl", {"coefficient": 0.5, "estimator": "k2"}, naive=kl(0.5, "k2")),
    Case("kl", {"coefficient": 0.5, "estimator": "abs"}, naive=kl(0.5, "abs")),
    Case("entropy_bonus", {"coefficient": 0.01}, naive=of_tokens(lambda entropy: -0.01 * entropy, ("entropy",))),
    Case("imitation", naive=of_tokens(lambda log_prob: -log_prob, ("log_probs",))),
)
