"""The clipped surrogate with one ratio a segment: a token, a turn, a macro action, the whole episode.

A wider segment has a wider ratio, the product of its tokens', so more of them meet the bounds.

Suffix legend: N tokens, n trained tokens, u trained segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from apportion.credit.algebra import Clock, row_of_token
from apportion.credit.assign import Credit
from apportion.errors import InputError, unknown_name
from apportion.objectives import episodes
from apportion.objectives.aggregate import aggregation
from apportion.objectives.policy_gradient import RATIO_BOUND
from apportion.objectives.protocol import Loss, Now, Objective, Terms, token_objective
from apportion.rollouts import Rollouts, steps

LOWER_BOUNDS: dict[str, Callable[[float], float]] = {
    "symmetric": lambda low: 1 - low,
    "reciprocal": lambda low: 1 / (1 + low),
}
"""The smallest ratio that matters, by style."""

ACTIONS = {"token": "token", "turn": "run", "trajectory": "episode"}
"""What LOOP calls the units of :func:`segment_clip`."""


def segment_clip(
    unit: str = "episode",
    low: float = 0.2,
    high: float | None = None,
    style: str = "symmetric",
    aggregate: str = "token_mean",
) -> Objective:
    """The clipped surrogate of PPO with one ratio a segment.

        w_u = exp(sum over the segment's trained tokens of log pi(y_t) - log pi_old(y_t))
        l_u = max(-A_u w_u, -A_u clip(w_u, bottom, 1 + high))

    A_u is the mean of the tokens' advantages, which are equal for the methods this is meant for.

    Args:
        unit: ``token`` (:func:`~apportion.objectives.policy_gradient.clip`); ``run``, the trained tokens between what
            the policy did not write, which also end with the turn; ``episode``; or a kind of span, such as ``macro``,
            one of which must hold every trained token.
        low: how far below 1 the ratio may matter.
        high: how far above 1; None: the same as ``low``.
        style: ``bottom`` is ``1 - low`` if ``symmetric``, ``1 / (1 + low)`` if ``reciprocal``.
        aggregate: how segments' terms are averaged, see :mod:`apportion.objectives.aggregate`; for token read
            segment, so that ``token_mean`` is the mean over all segments.

    Metrics: ``clip_fraction`` (share of the segments whose clipped term is larger), ``kl_old`` (log pi_old - log pi,
    mean over tokens).

    Raises:
        InputError: a bound that is not positive, an unknown style or aggregation; when evaluated, rollouts without
            such spans, a trained token outside them, or forced branches with a unit other than ``token``.

    Source: arXiv 2502.01600 and apple/ml-loop (token, run, episode); arXiv 2410.02743 (macro actions).

    Example:
        >>> from apportion import objectives
        >>> objectives.segment_clip(unit="token").scope, objectives.segment_clip(unit="macro").scope
        ('token', 'episode')
    """
    high = low if high is None else high
    if not (0 < low < math.inf and 0 < high < math.inf):
        raise InputError(f"clip bounds are low={low}, high={high}, expected both above 0.")
    if style not in LOWER_BOUNDS:
        raise unknown_name("style", style, LOWER_BOUNDS)
    bottom, top, weights = LOWER_BOUNDS[style](low), 1 + high, aggregation(aggregate)
    needs = ("log_probs/old", "credit/advantages")

    def surrogate(log_ratio: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and whether it was clipped."""
        advantages = advantages.to(log_ratio.dtype)
        ratio = log_ratio.clamp(-RATIO_BOUND, RATIO_BOUND).exp()
        plain, clipped = -advantages * ratio, -advantages * ratio.clamp(bottom, top)
        return torch.maximum(plain, clipped), (clipped > plain).double()

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        delta = now["log_probs"] - at["log_probs/old"]
        loss, clipped = surrogate(delta, at["credit/advantages"])
        return Terms(loss, {"clip_fraction": clipped, "kl_old": -delta})

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        segment_N = segment_of_token(rollouts, credit, unit)
        tokens, delta = episodes.log_ratios(now["log_probs"], "log_probs/old", rollouts, credit)
        first = first_of_run(segment_N[tokens])
        at, size = first.cumsum(0) - 1, int(first.sum())

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(size).index_add(0, at, values)

        advantages = total(credit.advantages[tokens]) / torch.bincount(at, minlength=size)
        loss, clipped = surrogate(total(delta), advantages)
        # A segment stands where its first token is, so that aggregations count segments.
        counted = credit.counted.nonzero().squeeze(1)
        stands = torch.zeros_like(credit.counted).index_fill(0, counted[first_of_run(segment_N[counted])], True)
        weight = weights(rollouts, replace(credit, counted=stands))[tokens[first]]
        metrics = {
            "clip_fraction": clipped.sum() / max(size, 1),
            "kl_old": -delta.detach().sum() / max(len(tokens), 1),
        }
        return Loss((loss * weight.to(loss.dtype)).sum(), metrics)

    if unit == "token":
        return token_objective(terms, weights, ("log_probs",), needs)
    return Objective("episode", ("log_probs",), needs, evaluate)


def loop(action: str = "token", eps: float = 0.1, style: str = "reciprocal", divisor: float | None = None) -> Objective:
    """LOOP's surrogate: mean over an episode's actions, sum over episodes, divided by a constant.

        L = 1/divisor sum_i 1/n_i sum_u max(-A_i w_u, -A_i clip(w_u, bottom, 1 + eps))

    Args:
        action: what has a ratio of its own: ``token``, ``turn`` or ``trajectory``.
        eps: how far from 1 the ratio may matter.
        style: ``reciprocal``, bottom ``1 / (1 + eps)``, as in the authors' code; ``symmetric``, ``1 - eps``, as in the
            paper.
        divisor: the size of a minibatch, in episodes; None: the episodes that count any token. Neither changes when
            small advantages are filtered out.

    Metrics: those of :func:`segment_clip`.

    Raises:
        InputError: an unknown action or style, an ``eps`` that is not positive, or a divisor below 1.

    Source: arXiv 2502.01600; apple/ml-loop. The paper trains on ``turn`` too, the code does not.
    """
    if action not in ACTIONS:
        raise unknown_name("action", action, ACTIONS)
    return segment_clip(ACTIONS[action], eps, eps, style, f"seq_mean_token_mean(divisor={divisor})")


def segment_of_token(rollouts: Rollouts, credit: Credit, unit: str) -> Tensor:
    """The segment of every token ``[N]``, ascending; -1 where none is needed.

    Raises:
        InputError: there are no such spans, or a token that trains or counts lies in none.
    """
    if unit == "run":
        return _runs(rollouts)
    if unit not in ("episode", *rollouts.spans):
        known = ", ".join(("token", "run", "episode", *rollouts.spans))
        raise InputError(
            f"the unit of the ratio is {unit!r}, of which these rollouts have no spans, expected one of {known}: "
            "choose one, or run an annotator that marks such spans."
        )
    segment = row_of_token(rollouts, unit)
    outside = (segment < 0) & (credit.trained | credit.counted)
    if bool(outside.any()):
        raise InputError(
            f"{int(outside.sum())} tokens that train or count lie in no span of kind {unit!r}, expected all in one: "
            "mark them too, or filter them out."
        )
    return segment


def first_of_run(values: Tensor) -> Tensor:
    """Bool ``[n]``: where a value differs from the one before.

    Example:
        >>> first_of_run(torch.tensor([4, 4, 7, 4])).tolist()
        [True, False, True, True]
    """
    first = torch.ones_like(values, dtype=torch.bool)
    first[1:] = values[1:] != values[:-1]
    return first


def _runs(rollouts: Rollouts) -> Tensor:
    """Maximal runs of consecutive trained tokens within a decision of an episode."""
    trained, decision = rollouts.trained, steps(rollouts).step_of_token
    begins = first_of_run(decision) | first_of_run(rollouts.episode_of_token) | first_of_run(trained)
    return torch.where(trained, begins.cumsum(0), -1)
