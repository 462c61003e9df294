"""Surrogates of the policy gradient, and the terms usually added to them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.credit.divergence import KL_ESTIMATORS as KL_ESTIMATORS
from apportion.credit.divergence import RATIO_BOUND as RATIO_BOUND
from apportion.credit.divergence import check_estimator
from apportion.credit.divergence import kl_estimate as kl_estimate
from apportion.errors import InputError
from apportion.objectives.aggregate import aggregation
from apportion.objectives.protocol import Now, Objective, Terms, token_objective


def log_ratio(log_probs: Tensor, other: Tensor) -> Tensor:
    """``log(pi / other)`` of every token, clamped to ±20; no gradient beyond."""
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


def reinforce(aggregate: str = "token_mean") -> Objective:
    """The policy gradient itself, without a ratio: ``-A_t log pi(y_t)``; exact for one update on fresh samples.

    Args:
        aggregate: how token terms are averaged, see :mod:`apportion.objectives.aggregate`.

    Source: Williams 1992.
    """

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        return Terms(-at["credit/advantages"].to(now["log_probs"].dtype) * now["log_probs"])

    return token_objective(terms, aggregation(aggregate), ("log_probs",), ("credit/advantages",))


def kl(coefficient: float = 0.001, estimator: str = "k3", aggregate: str = "token_mean") -> Objective:
    """A penalty on the divergence from the reference policy: ``coefficient * kl_estimate_t``.

    Args:
        coefficient: multiplies the estimates.
        estimator: one of :data:`KL_ESTIMATORS`.
        aggregate: how token terms are averaged, see :mod:`apportion.objectives.aggregate`.

    Metrics: ``kl_reference``, before the coefficient.

    Source: arXiv 2402.03300 (k3 in the loss).
    """
    check_estimator(estimator)

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        estimate = kl_estimate(now["log_probs"], at["log_probs/reference"], estimator)
        return Terms(coefficient * estimate, {"kl_reference": estimate})

    return token_objective(terms, aggregation(aggregate), ("log_probs",), ("log_probs/reference",))


def entropy_bonus(coefficient: float = 0.001, aggregate: str = "token_mean") -> Objective:
    """Reward for spread-out choices: ``-coefficient * entropy_t``, of the distribution each token was drawn from.

    Args:
        coefficient: multiplies the entropies.
        aggregate: how token terms are averaged, see :mod:`apportion.objectives.aggregate`.

    Metrics: ``entropy_bonus``, before the coefficient.
    """

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        return Terms(-coefficient * now["entropy"], {"entropy_bonus": now["entropy"]})

    return token_objective(terms, aggregation(aggregate), ("entropy",), ())


def imitation(aggregate: str = "token_mean") -> Objective:
    """Negative log-likelihood of the trained tokens; the objective of a warm start.

    Args:
        aggregate: how token terms are averaged, see :mod:`apportion.objectives.aggregate`.

    Metrics: ``nll``, in nats a token.
    """

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        return Terms(-now["log_probs"], {"nll": -now["log_probs"]})

    return token_objective(terms, aggregation(aggregate), ("log_probs",), ())
