"""What the common suite needs of constrained RLHF: two rewards, three critics, and the naive loop."""

from __future__ import annotations

from collections.abc import Callable

from apportion.rollouts import Rollouts
from credit.columns import divergence_of, value_of
from credit.worlds import Flat
from reference import constraints, returns

SHIFTS = {"outcome": 0.0, "style": 0.5, "kl": -1.0}
"""By head, what its values are above those of the suite's critic."""


def with_critics(rollouts: Rollouts) -> Rollouts:
    """Values of three heads and log-probs by token id; ``reward/style`` of every token, by its id."""
    ids = rollouts.ids.double()
    for head, shift in SHIFTS.items():
        rollouts = rollouts.with_statistic(f"values/{head}", value_of(ids) + shift, head)
    for name, log_probs in {"old": -0.5 - ids / 4, "reference": -0.25 - ids}.items():
        rollouts = rollouts.with_statistic(f"log_probs/{name}", log_probs, "trainer")
    return rollouts.with_reward("style", score_of_token(ids), level="token")


def score_of_token(token: float) -> float:
    """A reward of style."""
    return 0.75 * token - 0.5


def naive(
    gamma: float, lam: float, kl_coefficient: float, start: float, constraint: str
) -> Callable[[Flat], list[list[float]]]:
    """The naive loop with these settings on the outcome and style, not standardised."""

    def advantages(world: Flat) -> list[list[float]]:
        by_head = {head: [] for head in SHIFTS}
        for ids, trained, reward in zip(world.ids, world.trained, world.rewards, strict=True):
            rewards = {
                "outcome": returns.at_last_trained(reward, trained),
                "style": [score_of_token(token) for token in ids],
                "kl": [-kl_coefficient * divergence_of(token) for token in ids],
            }
            for head, row in rewards.items():
                values = [value_of(token) + SHIFTS[head] for token in ids]
                by_head[head].append(returns.gae(row, values, trained, gamma=gamma, lam=lam)[0])
        weights = constraints.multipliers([start, start], constraint)
        parts = [by_head["outcome"], by_head["style"]]
        if constraint != "upper_bound":
            return constraints.mixed(by_head["kl"], parts, weights)
        task = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]
        return constraints.mixed(task, parts, weights, sign=-1)

    return advantages
