"""Lagrange multipliers of constraints on rewards: what they weigh, and how they learn.

Suffix legend: K constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Multipliers = Mapping[str, Tensor]
"""What is remembered of the multipliers: ``raw`` and ``momentum``, ``[K]`` each."""

_EPS = 1e-6
"""Added to the norm of a gradient before it is divided by it, as torch does."""


def _positive(raw: Tensor) -> Tensor:
    return raw.clamp(min=0)


def _signed(raw: Tensor) -> Tensor:
    return raw


def _constant_slope(multiplier: Tensor) -> Tensor:
    return torch.ones_like(multiplier)


def _sigmoid_slope(multiplier: Tensor) -> Tensor:
    return multiplier * (1 - multiplier)


def _tanh_slope(multiplier: Tensor) -> Tensor:
    return 1 - multiplier**2


@dataclass(frozen=True)
class Squashing:
    """How a raw multiplier becomes the multiplier m.

    Attributes:
        squash: from raw multipliers to m.
        slope: the derivative, as a function of m.
        bounded: m stays below 1, so K - sum m is left for the task.
        feasible: raw multipliers brought back to where they may be after a step.
    """

    squash: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bounded: bool
    feasible: Callable[[Tensor], Tensor] = _signed


@dataclass(frozen=True)
class Constraint:
    """What is asked of a reward's value v and its threshold theta.

    Attributes:
        squashed: multipliers that stay bounded.
        plain: multipliers as they are.
        sign: 1: a multiplier rises while v is below theta, and raises v; -1: rises while above, and lowers v.
    """

    squashed: Squashing
    plain: Squashing
    sign: int


_SIGMOID = Squashing(torch.sigmoid, _sigmoid_slope, bounded=True)
_TANH = Squashing(torch.tanh, _tanh_slope, bounded=True)
_POSITIVE = Squashing(_positive, _constant_slope, bounded=False, feasible=_positive)
_SIGNED = Squashing(_signed, _constant_slope, bounded=False)

CONSTRAINTS = {
    "lower_bound": Constraint(_SIGMOID, _POSITIVE, 1),
    "equality": Constraint(_TANH, _SIGNED, 1),
    "upper_bound": Constraint(_SIGMOID, _POSITIVE, -1),
}
"""``v >= theta``, ``v = theta``, where multipliers may be negative, and ``v <= theta``."""


def fresh(count: int, start: float) -> Multipliers:
    """Multipliers before the first step, all with the same raw value."""
    raw = torch.full((count,), float(start), dtype=torch.float64)
    return {"raw": raw, "momentum": torch.zeros_like(raw)}


def dual_step(state: Multipliers, slope: Tensor, lr: float, momentum: float, max_norm: float) -> Multipliers:
    """One step of SGD down a gradient.

        g <- g min(1, max_norm / (|g| + 1e-6)),    b <- momentum b + g,    raw <- raw - lr b

    Args:
        state: raw multipliers and b, which begins at 0.
        slope: g ``[K]``, of the dual loss by the raw multipliers.
        lr: learning rate.
        momentum: share of b that is kept.
        max_norm: largest norm of g, of all multipliers together.
    """
    clipped = slope * (max_norm / (slope.norm() + _EPS)).clamp(max=1.0)
    buffer = momentum * state["momentum"] + clipped
    return {"raw": state["raw"] - lr * buffer, "momentum": buffer}
