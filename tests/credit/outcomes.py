"""Naive loops of the methods on outcomes, for the common suite's worlds, and the verdicts some of them need."""

from __future__ import annotations

from collections.abc import Callable

from apportion.rollouts import Rollouts
from credit.columns import divergence_of
from credit.worlds import Flat
from reference import baselines, outcome, returns

Naive = Callable[[Flat], list[list[float]]]


def with_verdicts(rollouts: Rollouts) -> Rollouts:
    """``reward/verdict``: 1 where the outcome is above 0, else 0; unknown where it is."""
    given, scored = (rollouts.columns[f"episode:{name}/outcome"] for name in ("reward", "scored"))
    return rollouts.with_reward("verdict", (given.tensor > 0).double(), scored.tensor, given.present)


def reinforce_pp(gamma: float, kl_coefficient: float = 0.0) -> Naive:
    """The naive loop with these settings, not whitened; the divergence is that of the suite's log-probs."""

    def advantages(world: Flat) -> list[list[float]]:
        rewards = [
            [
                r - kl_coefficient * divergence_of(i)
                for r, i in zip(returns.at_last_trained(reward, mask), ids, strict=True)
            ]
            for reward, mask, ids in zip(world.rewards, world.trained, world.ids, strict=True)
        ]
        return baselines.reinforce_pp(rewards, world.trained, gamma=gamma, whiten=False)[0]

    return advantages


def nsr(mode: str, positive_weight: float = 0.1) -> Naive:
    """The naive loop with these settings."""
    return lambda world: outcome.on_tokens(
        [baselines.nsr(float(r > 0), mode, positive_weight) for r in world.rewards], world.trained
    )


def loop(baseline: str = "leave_one_out", normalize: bool = False, least: float = 0.01) -> Naive:
    """The naive loop with these settings; what is filtered out has no advantage."""

    def advantages(world: Flat) -> list[list[float]]:
        every = baselines.loop(world.rewards, world.groups, baseline=baseline, normalize=normalize)
        return outcome.on_tokens([a if abs(a) >= least else 0.0 for a in every], world.trained)

    return advantages


def dapo(max_length: int, buffer: int, factor: float) -> Naive:
    """GRPO with the penalty on groups with different rewards; what reaches the limit trains nothing."""

    def advantages(world: Flat) -> list[list[float]]:
        lengths = [sum(mask) for mask in world.trained]
        paid = [
            r + baselines.overlong_penalty(n, max_length, buffer, factor)
            for r, n in zip(world.rewards, lengths, strict=True)
        ]
        grpo = outcome.grpo(paid, world.groups, norm_by_std=True, eps=1e-6)
        kept = baselines.comparable(world.rewards, world.groups)
        finished = [n < max_length for n in lengths]
        return outcome.on_tokens(
            [a if k and f else 0.0 for a, k, f in zip(grpo, kept, finished, strict=True)], world.trained
        )

    return advantages
