"""Returns, generalised advantages and whitening, one response after another."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]
Masks = Sequence[Sequence[bool]]


def discounted(rewards: Sequence[float], discounts: Sequence[float]) -> list[float]:
    """``y_t = x_t + a_t y_{t+1}``, with 0 after the end."""
    total, result = 0.0, []
    for reward, discount in zip(reversed(rewards), reversed(discounts), strict=True):
        total = reward + (discount * total if result else 0.0)
        result.append(total)
    return result[::-1]


def gae(
    rewards: Sequence[float],
    values: Sequence[float],
    trained: Sequence[bool],
    *,
    gamma: float,
    lam: float,
    end_value: float = 0.0,
) -> tuple[list[float], list[float]]:
    """Advantages and returns of one episode's tokens, 0 at untrained ones, whose rewards are ignored."""
    advantages, returns = [0.0] * len(values), [0.0] * len(values)
    next_value, next_advantage = end_value, 0.0
    for t in reversed(range(len(values))):
        if trained[t]:
            next_advantage = rewards[t] + gamma * next_value - values[t] + gamma * lam * next_advantage
            advantages[t], returns[t] = next_advantage, next_advantage + values[t]
            next_value = values[t]
    return advantages, returns


def at_last_trained(reward: float, trained: Sequence[bool]) -> list[float]:
    """A reward on the last trained token."""
    last = max((t for t, train in enumerate(trained) if train), default=-1)
    return [reward if t == last else 0.0 for t in range(len(trained))]


def whiten(rows: Rows, trained: Masks) -> list[list[float]]:
    """All trained tokens together to mean 0 and deviation 1; 0 elsewhere."""
    inside = [x for row, mask in zip(rows, trained, strict=True) for x, train in zip(row, mask, strict=True) if train]
    n = len(inside)
    mu = math.fsum(inside) / (n + 1e-8)
    var = math.fsum((x - mu) ** 2 for x in inside) / (n + 1e-8) * n / (n - 1)
    scale = (var + 1e-8) ** -0.5
    return [
        [(x - mu) * scale if train else 0.0 for x, train in zip(row, mask, strict=True)]
        for row, mask in zip(rows, trained, strict=True)
    ]
