"""Surrogates of the policy gradient, and the terms usually added to them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.errors import InputError, unknown_name
from apportion.objectives.aggregate import aggregation
from apportion.objectives.protocol import Now, Objective, Terms, token_objective

RATIO_BOUND = 20.0
"""Log-ratios are clamped to this in absolute value, as in verl; no gradient beyond."""


def log_ratio(log_probs: Tensor, other: Tensor) -> Tensor:
    """``log(pi / other)`` of every token, clamped to ±20."""
    return (log_probs - other).clamp(-RATIO_BOUND, RATIO_BOUND)


def clip(
    low: float = 0.2, high: float | None = None, dual: float | None = None, aggregate: str = "token_mean"
) -> Objective:
    """The clipped surrogate of PPO.

        rho  = exp(log pi(y_t) - log pi_old(y_t))
        l_t  = max(-A_t rho, -A_t clip(rho, 1 - low, 1 + high))
        l_t  = min(l_t, -A_t dual)   where A_t < 0 and ``dual`` is given

    Args:
        low: how far below 1 the ratio may matter.
        high: how far above 1; None: the same as ``low``. DAPO's clip-higher is 0.28.
        dual: bound of the dual clip, above 1; None: none.
        aggregate: how token terms are averaged, see :mod:`apportion.objectives.aggregate`.

    Metrics: ``clip_fraction`` (the clipped term is larger), ``dual_clip_fraction``, ``kl_old`` (log pi_old - log pi).

    Raises:
        InputError: a negative clip, or ``dual`` at most 1.

    Source: arXiv 1707.06347; dual clip arXiv 1912.09729; DAPO arXiv 2503.14476; verl ``compute_policy_loss``.
    """
    high = low if high is None else high
    if not (low >= 0 and high >= 0 and math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"clip bounds are low={low}, high={high}, expected both 0 or more.")
    if dual is not None and not dual > 1:
        raise InputError(f"the dual clip is {dual}, expected more than 1.")

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        advantages = at["credit/advantages"].to(now["log_probs"].dtype)
        delta = log_ratio(now["log_probs"], at["log_probs/old"])
        ratio = delta.exp()
        plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
        loss = torch.maximum(plain, clipped)
        metrics = {"clip_fraction": (clipped > plain).double(), "kl_old": -delta}
        if dual is not None:
            bound = -advantages * dual
            metrics["dual_clip_fraction"] = ((loss > bound) & (advantages < 0)).double()
            loss = torch.where(advantages < 0, torch.minimum(loss, bound), loss)
        return Terms(loss, metrics)

    return token_objective(terms, aggregation(aggregate), ("log_probs",), ("log_probs/old", "credit/advantages"))


def _k1(delta: Tensor) -> Tensor:
    return delta


def _abs(delta: Tensor) -> Tensor:
    return delta.abs()


def _k2(delta: Tensor) -> Tensor:
    return 0.5 * delta**2


def _k3(delta: Tensor) -> Tensor:
    bounded = (-delta).clamp(-RATIO_BOUND, RATIO_BOUND)
    return (bounded.exp() - bounded - 1).clamp(-10, 10)


KL_ESTIMATORS = {"k1": _k1, "abs": _abs, "k2": _k2, "k3": _k3}


def kl_estimate(log_probs: Tensor, reference: Tensor, estimator: str = "k3") -> Tensor:
    """Per-token estimate of KL(pi || reference) from the sampled token.

    With ``d = log pi - log reference``: ``k1 = d``, ``abs = |d|``, ``k2 = d^2 / 2``, ``k3 = exp(-d) + d - 1`` with d
    clamped to ±20 and the result to ±10.

    Args:
        log_probs: of the policy ``[n]``.
        reference: of the reference policy ``[n]``.
        estimator: one of :data:`KL_ESTIMATORS`.

    Raises:
        InputError: unknown estimator, or tensors of different shapes.

    Source: John Schulman, "Approximating KL divergence"; verl ``kl_penalty``.
    """
    if estimator not in KL_ESTIMATORS:
        raise unknown_name("KL estimator", estimator, KL_ESTIMATORS)
    if log_probs.shape != reference.shape:
        raise InputError(
            f"log-probs have shapes {tuple(log_probs.shape)} and {tuple(reference.shape)}, expected equal."
        )
    return KL_ESTIMATORS[estimator](log_probs - reference)


def kl(coefficient: float = 0.001, estimator: str = "k3", aggregate: str = "token_mean") -> Objective:
    """A penalty on the divergence from the reference policy: ``coefficient * kl_estimate_t``.

    Metrics: ``kl_reference``, before the coefficient.

    Source: arXiv 2402.03300 (k3 in the loss).
    """
    if estimator not in KL_ESTIMATORS:
        raise unknown_name("KL estimator", estimator, KL_ESTIMATORS)

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        estimate = kl_estimate(now["log_probs"], at["log_probs/reference"], estimator)
        return Terms(coefficient * estimate, {"kl_reference": estimate})

    return token_objective(terms, aggregation(aggregate), ("log_probs",), ("log_probs/reference",))


def entropy_bonus(coefficient: float = 0.001, aggregate: str = "token_mean") -> Objective:
    """Reward for spread-out choices: ``-coefficient * entropy_t``, of the distribution each token was drawn from."""

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        return Terms(-coefficient * now["entropy"], {"entropy_bonus": now["entropy"]})

    return token_objective(terms, aggregation(aggregate), ("entropy",), ())


def imitation(aggregate: str = "token_mean") -> Objective:
    """Negative log-likelihood of the trained tokens; the objective of a warm start.

    Metrics: ``nll``, in nats a token.
    """

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        return Terms(-now["log_probs"], {"nll": -now["log_probs"]})

    return token_objective(terms, aggregation(aggregate), ("log_probs",), ())
