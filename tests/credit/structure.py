"""Planning tokens and macro actions that methods of the common suite need, and their naive loops."""

from __future__ import annotations

from apportion.annotations import ANNOTATORS
from apportion.rollouts import Rollouts
from credit.columns import Naive, divergence_of, value_of, with_values
from credit.worlds import Flat
from reference import macro, planning, returns

GRAMS = ([1, 0], [0, 0, 1])
"""Planning phrases of the suite's two tokens."""


def with_planning(rollouts: Rollouts) -> Rollouts:
    """``planning/grams``, by the annotator."""
    return ANNOTATORS["planning_grams"](grams=GRAMS).apply(rollouts, None)


def with_macros(rollouts: Rollouts) -> Rollouts:
    """``values/critic``, by token id, and macro actions of two tokens."""
    return ANNOTATORS["macro_actions"](rule="fixed(n=2)").apply(with_values(rollouts), None)


def hicra(base: Naive, alpha: float) -> Naive:
    """The naive loop on the advantages of another."""

    def advantages(world: Flat) -> list[list[float]]:
        return [
            planning.hicra(row, planning.planning(ids, GRAMS), alpha)
            for ids, row in zip(world.ids, base(world), strict=True)
        ]

    return advantages


def ma_rlhf(kl_coefficient: float = 0.0, clamp: float = 2.5, **settings: float | str) -> Naive:
    """The naive loop with these settings; the divergence is that of the suite's log-probs."""

    def of_response(ids: list[int], trained: list[bool], reward: float) -> list[float]:
        placed = returns.at_last_trained(min(max(reward, -clamp), clamp), trained)
        rewards = [r - kl_coefficient * divergence_of(i) for r, i in zip(placed, ids, strict=True)]
        macros = [
            (start + a, start + b)
            for start, end in macro.runs(trained)
            for a, b in macro.cut(end - start, macro.fixed(end - start, 2))
        ]
        values = [value_of(i) for i in ids]
        return macro.ma_rlhf(rewards, values, macros, **settings)["token_advantages"]  # type: ignore[arg-type]

    return lambda world: [of_response(*row) for row in zip(world.ids, world.trained, world.rewards, strict=True)]
