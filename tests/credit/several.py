"""Several rewards, verdicts on subgoals and attributions, by the tokens of decisions, and the naive loops on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from apportion.rollouts import Rollouts, steps
from credit.worlds import Flat
from reference import mixtures, options, outcome

Naive = Callable[[Flat], list[list[float]]]


def decisions(rollouts: Rollouts) -> list[list[int]]:
    """The tokens of every decision."""
    table, ids = steps(rollouts), rollouts.ids.tolist()
    return [ids[a:b] for a, b in zip(table.starts.tolist(), table.ends.tolist(), strict=True)]


def style_of(ids: Sequence[int]) -> float:
    """A second reward of a decision."""
    return (2 * ids.count(1) - ids.count(0)) / 8


def with_style(rollouts: Rollouts) -> Rollouts:
    """``reward/style`` of every decision."""
    values = torch.tensor([style_of(ids) for ids in decisions(rollouts)], dtype=torch.float64)
    return rollouts.with_reward("style", values, level=steps(rollouts).level)


def verdicts_of(ids: Sequence[int]) -> list[bool | None]:
    """Whether a decision achieved each of two subgoals; None without a verdict."""
    return [ids.count(1) > ids.count(0), None if len(ids) == 3 else ids[-1:] == [1]]


def with_subgoals(rollouts: Rollouts) -> Rollouts:
    """``reward/subgoals`` of every decision ``[T, 2]``; where there is no verdict, a number that may not be read."""
    rows = [verdicts_of(ids) for ids in decisions(rollouts)]
    values = torch.tensor([[1.0 if v is None else float(v) for v in row] for row in rows], dtype=torch.float64)
    known = torch.tensor([[v is not None for v in row] for row in rows], dtype=torch.bool)
    shape = (len(rows), 2)
    return rollouts.with_reward("subgoals", values.reshape(shape), known.reshape(shape), level=steps(rollouts).level)


def attribution_of(ids: Sequence[int]) -> int:
    """How much a judge says an utterance contributed: -1 to 3."""
    return min(ids.count(1) - ids.count(0), 3) if len(ids) > 1 else -1


def with_attributions(rollouts: Rollouts) -> Rollouts:
    """``reward/attribution/outcome`` of every decision."""
    values = torch.tensor([max(-1, attribution_of(ids)) for ids in decisions(rollouts)], dtype=torch.float64)
    return rollouts.with_reward("attribution/outcome", values, level=steps(rollouts).level)


def edu_align(weights: Sequence[float], span: float, within_group: bool, eps: float) -> Naive:
    """The naive loop with these settings: the outcome, and style where there are two weights."""

    def advantages(world: Flat) -> list[list[float]]:
        scores = [[r, style_of(ids)][: len(weights)] for r, ids in zip(world.rewards, world.ids, strict=True)]
        groups = world.groups if within_group else None
        mixed = mixtures.weighted_mean(scores, weights, -span, span, groups, eps)
        return outcome.on_tokens(outcome.grpo(mixed, world.groups, norm_by_std=True, eps=eps), world.trained)

    return advantages


def calm(**settings: float | bool) -> Naive:
    """The naive loop with these settings; an episode is one decision, rewarded with the outcome."""

    def advantages(world: Flat) -> list[list[float]]:
        rows = [
            options.shaped([r], [verdicts_of(ids)], **settings)  # type: ignore[arg-type]
            for r, ids in zip(world.rewards, world.ids, strict=True)
        ]
        result = options.against_the_turn(
            [options.returns(row, float(settings["gamma"])) for row in rows], world.groups
        )
        return outcome.on_tokens([row[0] for row in result], world.trained)

    return advantages


def sotopia_rl(method: str, eps: float) -> Naive:
    """The naive loop with these settings; an episode is one utterance, its one dimension the outcome."""

    def advantages(world: Flat) -> list[list[float]]:
        raw = [
            mixtures.attributed(method, [max(-1, attribution_of(ids))], r)[0]
            for r, ids in zip(world.rewards, world.ids, strict=True)
        ]
        _, rewards = mixtures.aggregated({"outcome": raw}, {"outcome": 1.0}, 10.0)
        return outcome.on_tokens(outcome.grpo(rewards, world.groups, norm_by_std=True, eps=eps), world.trained)

    return advantages
