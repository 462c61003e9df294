"""Columns that methods of the common suite need, as functions of token ids and steps, and their naive loops."""

from __future__ import annotations

from collections.abc import Callable

import torch

from apportion.rollouts import Rollouts, steps
from credit.worlds import Flat
from reference import anchors, implicit, min_form, outcome, returns, rhythm

Naive = Callable[[Flat], list[list[float]]]


def value_of(token: int) -> float:
    """A critic's value before a token."""
    return token / 2 - 0.25


def with_values(rollouts: Rollouts) -> Rollouts:
    """``values/critic``, by token id."""
    return rollouts.with_statistic("values/critic", value_of(rollouts.ids.double()), "critic")


def divergence_of(token: int) -> float:
    """k1 of the log-probs the suite makes."""
    return -0.25 + 0.75 * token


def cut(ids: list[int]) -> list[int]:
    """One past the last token of every step: a step ends with a 1, or with the decision."""
    return [t + 1 for t, token in enumerate(ids) if token == 1 or t + 1 == len(ids)]


def score_of(ids: list[int]) -> float:
    """A process reward for a step."""
    return (3 * ids.count(1) - 2 * ids.count(0)) / 4


def with_scores(rollouts: Rollouts) -> Rollouts:
    """Spans of kind ``step`` that tile every decision, and ``step:reward/prm``."""
    table, ids = steps(rollouts), rollouts.ids.tolist()
    spans = []
    for start, end in zip(table.starts.tolist(), table.ends.tolist(), strict=True):
        ends = [start + e for e in cut(ids[start:end])]
        spans += zip([start, *ends], ends, strict=False)
    bounds = torch.tensor(spans, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    scores = torch.tensor([score_of(ids[a:b]) for a, b in spans], dtype=torch.float64)
    return rollouts.with_spans("step", bounds[0], bounds[1]).with_reward("prm", scores, level="step")


def state_of(ids: list[int]) -> str:
    """The state a decision is taken in."""
    return str(ids[:1])


def with_states(rollouts: Rollouts) -> Rollouts:
    """``state_key`` of every decision, by its first token, and ``reward/step``, by its tokens."""
    table, ids = steps(rollouts), rollouts.ids.tolist()
    places = list(zip(table.starts.tolist(), table.ends.tolist(), strict=True))
    rewards = torch.tensor([sum(ids[a:b]) / 2 - 0.5 for a, b in places], dtype=torch.float64)
    with_rewards = rollouts.with_reward("step", rewards, level=table.level)
    return with_rewards.with_column(f"{table.level}:state_key", [state_of(ids[a:b]) for a, b in places])


def with_prm(rollouts: Rollouts) -> Rollouts:
    """Log-probs of the policy and of a process reward model, by token id."""
    ids = rollouts.ids.double()
    with_old = rollouts.with_statistic("log_probs/old", -0.5 - ids / 4, "trainer")
    return with_old.with_statistic("log_probs/prm", -0.25 - ids, "prm")


def signals(ids: list[int]) -> tuple[list[float], list[float]]:
    """WAAD and FAI of a decision's trained tokens."""
    waad = [(3 * token + t * t % 5) / 4 for t, token in enumerate(ids)]
    return waad, [(token + 2 * t) % 4 / 4 for t, token in enumerate(ids)]


def with_attention(rollouts: Rollouts) -> Rollouts:
    """``waad/old`` and ``fai/old``, by token id and place among the trained tokens of the decision."""
    table, ids, trained = steps(rollouts), rollouts.ids.tolist(), rollouts.trained.tolist()
    waad, fai = torch.zeros(len(ids), dtype=torch.float64), torch.zeros(len(ids), dtype=torch.float64)
    for start, end in zip(table.starts.tolist(), table.ends.tolist(), strict=True):
        places = [t for t in range(start, end) if trained[t]]
        for t, w, f in zip(places, *signals([ids[t] for t in places]), strict=True):
            waad[t], fai[t] = w, f
    with_waad = rollouts.with_statistic("waad/old", waad, "attention", window=10)
    return with_waad.with_statistic("fai/old", fai, "attention", fai_high=100)


def gae(gamma: float, lam: float, kl_coefficient: float = 0.0) -> Naive:
    """The naive loop with these settings, not whitened; the divergence is that of the suite's log-probs."""

    def of_response(ids: list[int], trained: list[bool], reward: float) -> list[float]:
        placed = returns.at_last_trained(reward, trained)
        rewards = [r - kl_coefficient * divergence_of(i) for r, i in zip(placed, ids, strict=True)]
        return returns.gae(rewards, [value_of(i) for i in ids], trained, gamma=gamma, lam=lam)[0]

    return lambda world: [of_response(*row) for row in zip(world.ids, world.trained, world.rewards, strict=True)]


def pure(**settings: float | str | bool) -> Naive:
    """The naive loop with these settings."""

    def advantages(world: Flat) -> list[list[float]]:
        episodes = [
            min_form.Episode(
                group,
                trained,
                cut(ids),
                [score_of(ids[a:b]) for a, b in zip([0, *cut(ids)], cut(ids), strict=False)],
                reward,
                [divergence_of(i) for i in ids],
            )
            for ids, trained, group, reward in zip(world.ids, world.trained, world.groups, world.rewards, strict=True)
        ]
        longest = max((sum(row) for row in world.trained), default=0)
        return min_form.pure(episodes, **{"limit": longest, **settings})  # type: ignore[arg-type]

    return advantages


def gigpo(mode: str, eps: float, step_weight: float) -> Naive:
    """The naive loop with these settings; an episode is one step, rewarded with the outcome."""

    def advantages(world: Flat) -> list[list[float]]:
        rewards = [[r] for r in world.rewards]
        nought = [[0.0]] * len(rewards)
        _, whole, within = anchors.gigpo(
            rewards, [[state_of(i)] for i in world.ids], world.groups, nought, nought, mode=mode, eps=eps,
            episode_stats="trajectory",
        )  # fmt: skip
        per_episode = [a[0] + step_weight * b[0] for a, b in zip(whole, within, strict=True)]
        return outcome.on_tokens(per_episode, world.trained)

    return advantages


def oprl(**settings: float | str) -> Naive:
    """The naive loop with these settings; an episode is one turn."""

    def advantages(world: Flat) -> list[list[float]]:
        inside = [
            [token for token, train in zip(*row, strict=True) if train]
            for row in zip(world.ids, world.trained, strict=True)
        ]
        prm, old = [[[-0.25 - i for i in row]] for row in inside], [[[-0.5 - i / 4 for i in row]] for row in inside]
        result = implicit.oprl(prm, old, world.rewards, world.groups, **settings)  # type: ignore[arg-type]
        return outcome.on_tokens([row[0] for row in result], world.trained)

    return advantages


def attention_rhythm(base: Naive, scale_sign: str = "both", **settings: float | str) -> Naive:
    """The naive loop with these settings, on the advantages of another."""

    def advantages(world: Flat) -> list[list[float]]:
        result = []
        for ids, trained, row in zip(world.ids, world.trained, base(world), strict=True):
            places = [t for t, train in enumerate(trained) if train]
            factors = rhythm.gamma(*signals([ids[t] for t in places]), **settings)  # type: ignore[arg-type]
            new = rhythm.scaled([row[t] for t in places], factors, scale_sign)
            by_place = dict(zip(places, new, strict=True))
            result.append([by_place.get(t, 0.0) for t in range(len(ids))])
        return result

    return advantages
