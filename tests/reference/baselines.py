"""REINFORCE++, NSR, LOOP and DAPO's shaping, response by response."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference import outcome, returns

Rows = Sequence[Sequence[float]]
Masks = Sequence[Sequence[bool]]


def returns_to_go(rewards: Sequence[float], trained: Sequence[bool], gamma: float, reset: bool) -> list[float]:
    """Discounted return of every trained token of an episode, 0 elsewhere; ``reset``: holes stop it, as in verl."""
    total, result = 0.0, []
    for reward, train in zip(reversed(rewards), reversed(trained), strict=True):
        if train:
            total = reward + gamma * total
        elif reset:
            total = 0.0
        result.append(total if train else 0.0)
    return result[::-1]


def reinforce_pp(
    rewards: Rows, trained: Masks, *, gamma: float, reset: bool = False, whiten: bool = True
) -> tuple[list[list[float]], list[list[float]]]:
    """Advantages and returns of every token."""
    rows = [returns_to_go(*row, gamma, reset) for row in zip(rewards, trained, strict=True)]
    return (returns.whiten(rows, trained) if whiten else rows), rows


def reinforce_pp_baseline(
    rewards: Sequence[float], groups: Sequence[int], trained: Masks, *, singleton: str = "zero"
) -> list[list[float]]:
    """Advantage of every token."""
    centred = outcome.grpo(rewards, groups, norm_by_std=False, eps=0.0, singleton=singleton)
    return returns.whiten([[a] * len(row) for a, row in zip(centred, trained, strict=True)], trained)


def nsr(reward: float, mode: str, positive_weight: float) -> float:
    """Advantage of a response."""
    if reward == 1:
        return {"psr": 1.0, "nsr": 0.0, "weighted": positive_weight}[mode]
    return {"psr": 0.0, "nsr": -1.0, "weighted": -1.0}[mode]


def loop(rewards: Sequence[float], groups: Sequence[int], *, baseline: str, normalize: bool) -> list[float]:
    """Advantage of every response, before the filter."""
    advantages = []
    for i, group in enumerate(groups):
        mine = [rewards[j] for j in range(len(rewards)) if groups[j] == group]
        others = [rewards[j] for j in range(len(rewards)) if groups[j] == group and j != i]
        compared = others if baseline == "leave_one_out" else mine
        equal = max(mine) == min(mine)
        advantage = 0.0 if equal else rewards[i] - outcome.mean(compared)
        advantages.append(advantage / max(outcome.deviation(mine, ddof=0), 1e-7) if normalize else advantage)
    return advantages


def overlong_penalty(length: int, max_length: int, buffer: int, factor: float) -> float:
    """What a response of this length pays."""
    over = length - (max_length - buffer)
    if over <= 0:
        return 0.0
    return -min(over / buffer, 1.0) * factor


def comparable(values: Sequence[float], groups: Sequence[int]) -> list[bool]:
    """Whether a row's group has different values or one member."""
    members = [[v for v, g in zip(values, groups, strict=True) if g == group] for group in groups]
    return [len(mine) == 1 or min(mine) < max(mine) for mine in members]


def clipped(ratio: float, advantage: float, low: float, high: float, style: str) -> float:
    """Loss of a segment: ``-min(w A, g(A))``."""
    bottom = 1 - low if style == "symmetric" else 1 / (1 + low)
    bound = (1 + high) * advantage if advantage >= 0 else bottom * advantage
    return -min(ratio * advantage, bound)


def segment_losses(
    log_ratios: Sequence[float],
    advantages: Sequence[float],
    trained: Sequence[bool],
    segments: Sequence[int],
    *,
    low: float,
    high: float,
    style: str,
) -> dict[int, float]:
    """Loss of every segment of one episode that has a trained token, by its number."""
    losses = {}
    for number in sorted(set(segments)):
        inside = [t for t, s in enumerate(segments) if s == number and trained[t]]
        if inside:
            ratio = math.exp(math.fsum(log_ratios[t] for t in inside))
            advantage = outcome.mean([advantages[t] for t in inside])
            losses[number] = clipped(ratio, advantage, low, high, style)
    return losses
