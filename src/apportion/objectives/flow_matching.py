"""AC-Flow: flow matching weighted by a critic's advantage at the intermediate state.

Reward-weighted fine-tuning of a flow gives every point of a denoising path the weight of its end. Here a critic
predicts the end's reward from the state on the way, and the loss at that state is weighted by what the critic did not
foresee. The first half, from rewards to weights, is about any states a critic judges: those of a flow, or tokens.

The paper's equations could not be read: those marked [reading] are this library's reading of its abstract and project
page.

Suffix legend: n samples, D dimensions.

Source: AC-Flow arXiv 2510.18072; reward weighting and the Wasserstein term ORW-CFM-W2 arXiv 2502.06061.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.reduce import relative
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError, unknown_name

EXPONENT_BOUND = 20.0
"""Largest exponent of a weight: without a clip an advantage may be anything."""

WEIGHTINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "exp": lambda advantages, tau: (tau * advantages).clamp(max=EXPONENT_BOUND).exp(),
    "relu": lambda advantages, tau: advantages.clamp(min=0),
    "sigmoid": lambda advantages, tau: (tau * advantages).sigmoid(),
}
"""Weights, never negative, from advantages ``[n]`` and the inverse temperature tau [reading]."""


# From rewards to weights


def shaped_returns(rewards: Tensor, group: Tensor, delta: float = 1e-8) -> Tensor:
    """Rewards in units of their prompt: ``(r - mean_g r) / (std_g r + delta)`` with the population deviation [reading].

    Exactly 0 where all of a group agree, and in a group of one.

    Args:
        rewards: ``[n]``.
        group: whose prompt ``[n]``, integers from 0.
        delta: added to the deviation.

    Raises:
        InputError: a reward that is not finite, or not one group a reward.

    Example:
        >>> shaped = shaped_returns(torch.tensor([0.0, 1.0, 2.0, 5.0]), torch.tensor([0, 0, 0, 1]))
        >>> [round(r, 4) for r in shaped.tolist()]
        [-1.2247, 0.0, 1.2247, 0.0]
    """
    _check_shapes(rewards=rewards, group=group)
    if not bool(rewards.isfinite().all()):
        raise InputError("a reward is not finite, expected a number for every sample: leave unknown ones out.")
    return relative(rewards, group, norm_by_std=True, ddof=0, eps=delta)


def critic_loss(values: Tensor, targets: Tensor) -> Tensor:
    """``mean (V - target)^2``, with targets from :func:`shaped_returns`."""
    _check_shapes(values=values, targets=targets)
    return ((values - targets) ** 2).mean()


def clipped_advantages(targets: Tensor, values: Tensor, adv_clip: float = 1.0) -> Tensor:
    """``clip(target - V, -adv_clip, adv_clip)``, without gradient [reading].

    Raises:
        InputError: ``adv_clip`` that is not positive.
    """
    if not adv_clip > 0:
        raise InputError(f"adv_clip is {adv_clip}, expected more than 0.")
    _check_shapes(values=values, targets=targets)
    return (targets - values).detach().clamp(-adv_clip, adv_clip)


def weights_of(advantages: Tensor, weighting: str = "exp", tau: float = 1.0, normalise: bool = True) -> Tensor:
    """Non-negative weights of advantages ``[n]``; with values of 0, no clip and ``exp`` this is reward weighting.

    Args:
        advantages: ``[n]``.
        weighting: one of :data:`WEIGHTINGS`.
        tau: how sharply they follow the advantage.
        normalise: divide by their mean, so that they average 1; all 0 stay 0.

    Raises:
        InputError: an unknown weighting, or ``tau`` that is not positive.

    Example:
        >>> weights_of(torch.tensor([-1.0, 3.0]), "relu").tolist()
        [0.0, 2.0]
    """
    if weighting not in WEIGHTINGS:
        raise unknown_name("weighting", weighting, WEIGHTINGS)
    if not 0 < tau < math.inf:
        raise InputError(f"tau is {tau}, expected more than 0.")
    weights = WEIGHTINGS[weighting](advantages, tau)
    if not normalise:
        return weights
    mean = weights.mean()
    return torch.where(mean > 0, weights / torch.where(mean > 0, mean, 1.0), 0.0)


def actor_active(iteration: int, warmup_iterations: int = 20) -> bool:
    """Whether the critic has had its warm-up, in which it alone learns [reading: the actor is frozen until then].

    Raises:
        InputError: a negative number of iterations.

    Example:
        >>> [actor_active(i, warmup_iterations=1) for i in (0, 1)]
        [False, True]
    """
    if warmup_iterations < 0:
        raise InputError(f"warmup_iterations is {warmup_iterations}, expected 0 or more.")
    return iteration >= warmup_iterations


# The flow


def interpolate(noise: Tensor, samples: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """The straight path from noise to sample: where it is, ``x_t = (1 - t) x_0 + t x_1``, and its velocity.

    Args:
        noise: x_0 ``[n, D]``.
        samples: x_1 ``[n, D]``.
        times: t ``[n]``, from 0 (noise) to 1 (sample).

    Returns:
        x_t and ``u = x_1 - x_0``, ``[n, D]`` each.

    Raises:
        InputError: shapes that do not go together, or a time outside [0, 1].
    """
    _check_shapes(noise=noise, samples=samples)
    if times.shape != noise.shape[:1]:
        raise InputError(f"times has shape {tuple(times.shape)}, expected ({len(noise)},): one time a sample.")
    if not bool(((times >= 0) & (times <= 1)).all()):
        raise InputError("a time is outside [0, 1], expected 0 for noise to 1 for a sample.")
    t = times[:, None]
    return (1 - t) * noise + t * samples, samples - noise


def squared_norm(difference: Tensor) -> Tensor:
    """Summed over dimensions ``[n]``."""
    return (difference**2).flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class ActorLoss:
    """What the flow minimises, and its parts.

    Attributes:
        value: the loss, with gradient.
        flow: squared error of the velocity, unweighted ``[n]``.
        w2: mean squared distance to the reference's velocity, before its coefficient.
    """

    value: Tensor
    flow: Tensor
    w2: Tensor


def actor_loss(
    velocity: Tensor, target: Tensor, reference: Tensor, weights: Tensor, w2_coef: float = 0.1, active: bool = True
) -> ActorLoss:
    """Weighted flow matching, held near the pretrained flow.

        L = mean_i w_i ||v_i - u_i||^2 + w2_coef mean_i ||v_i - v_ref,i||^2

    The last term bounds how far samples have moved: ``W2^2 <= exp(2 L) integral of E||v - v_ref||^2 dt`` with L a
    Lipschitz constant of v_ref; see :func:`velocity_gap`.

    Args:
        velocity: v ``[n, D]``, with gradient.
        target: u ``[n, D]``.
        reference: v_ref ``[n, D]``, of the frozen flow at the same points.
        weights: w ``[n]``.
        w2_coef: of the distance to the reference.
        active: False in the critic's warm-up: the loss is 0 and carries no gradient.

    Raises:
        InputError: a negative ``w2_coef``, or shapes that do not go together.
    """
    check_coefficient("w2_coef", w2_coef)
    _check_shapes(velocity=velocity, target=target, reference=reference)
    if weights.shape != velocity.shape[:1]:
        raise InputError(f"weights has shape {tuple(weights.shape)}, expected ({len(velocity)},): one a sample.")
    flow, w2 = squared_norm(velocity - target), squared_norm(velocity - reference.detach()).mean()
    value = (weights.detach() * flow).mean() + w2_coef * w2 if active else flow.new_zeros(())
    return ActorLoss(value, flow.detach(), w2.detach())


Velocity = Callable[[Tensor, float], Tensor]
"""``(states [n, D], time) -> velocities [n, D]``."""


def euler(velocity: Velocity, start: Tensor, steps: int) -> tuple[list[float], list[Tensor]]:
    """Sample by ``x <- x + v(x, k/S) / S`` for k = 0 .. S - 1.

    Args:
        velocity: v.
        start: noise ``[n, D]``.
        steps: S.

    Returns:
        the S + 1 times and the states there; the last is the sample.

    Raises:
        InputError: fewer than one step.

    Example:
        >>> euler(lambda x, t: -x, torch.ones(1, 1), 2)[1][-1].item()
        0.25
    """
    if steps < 1:
        raise InputError(f"got {steps} steps, expected at least 1.")
    times, path = [0.0], [start]
    for k in range(steps):
        path.append(path[-1] + velocity(path[-1], k / steps) / steps)
        times.append((k + 1) / steps)
    return times, path


@dataclass(frozen=True)
class Gap:
    """How far a flow has moved from its reference, from one start.

    Attributes:
        velocity: mean over the steps of the squared difference of the velocities, at the fine-tuned flow's own states.
        terminal: squared distance of the two samples.
        bound: ``exp(2 L) velocity``, which ``terminal`` is at most.
    """

    velocity: float
    terminal: float
    bound: float


def velocity_gap(velocity: Velocity, reference: Velocity, start: Tensor, steps: int, lipschitz: float) -> Gap:
    """The Wasserstein surrogate on sampled paths, and what it bounds; means over starts ``[n, D]``.

        gap = (1/S) sum_k E||v(x_k) - v_ref(x_k)||^2,    E||x_S - y_S||^2 <= exp(2 L) gap

    where x follows v, y follows v_ref from the same start, and L is a Lipschitz constant of v_ref in x.

    Raises:
        InputError: fewer than one step, or a negative constant.
    """
    check_coefficient("lipschitz", lipschitz)
    times, path = euler(velocity, start, steps)
    other = euler(reference, start, steps)[1][-1]
    states = list(zip(times[:-1], path[:-1], strict=True))
    gaps = [squared_norm(velocity(x, t) - reference(x, t)).mean() for t, x in states]
    gap = float(torch.stack(gaps).mean())
    return Gap(gap, float(squared_norm(path[-1] - other).mean()), math.exp(2 * lipschitz) * gap)


def _check_shapes(**given: Tensor) -> None:
    (first, expected), *others = given.items()
    for name, tensor in others:
        if tensor.shape != expected.shape:
            raise InputError(
                f"{name} has shape {tuple(tensor.shape)}, expected that of {first}, {tuple(expected.shape)}."
            )
