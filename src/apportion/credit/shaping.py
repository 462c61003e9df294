"""Rewards turned into other rewards before credit is assigned.

Suffix legend: N tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Reward, Stage, Work, shaper
from apportion.credit.divergence import check_estimator, kl_estimate
from apportion.credit.recursions import on_tokens
from apportion.errors import InputError

KL_NEEDS = ("log_probs/old", "log_probs/reference")
"""Columns the divergence from the reference policy is estimated from."""


def kl_of_tokens(work: Work, estimator: str = "k1") -> Tensor:
    """Estimated divergence of the old from the reference policy at every token ``[N]``; 0 where untrained."""
    tokens = work.rollouts.trained.nonzero().squeeze(1)
    old, reference = (
        work.rollouts.column(name, reader="the divergence in the reward")[tokens].to(work.advantages.dtype)
        for name in KL_NEEDS
    )
    return on_tokens(kl_estimate(old, reference, estimator), tokens, work.rollouts.n_tokens)


def kl_in_reward(coefficient: float, estimator: str = "k1", component: str = "outcome") -> Stage:
    """A reward as rewards of tokens, minus the divergence from the reference policy.

        r_t = [t is the last trained token of the reward's row] r - coefficient * kl_t

    Args:
        coefficient: of the divergence, 0 or more.
        estimator: one of :data:`~apportion.credit.divergence.KL_ESTIMATORS`. Only k1 in the reward has the gradient
            of the divergence; k3 is what several trainers use.
        component: the reward; where it is one a token already, the divergence is subtracted from it.

    Needs ``log_probs/old`` and ``log_probs/reference``.

    Raises:
        InputError: a negative coefficient, or an unknown estimator.

    Source: arXiv 1909.08593; verl ``apply_kl_penalty``.
    """
    check_coefficient("the coefficient of the divergence", coefficient)
    check_estimator(estimator)
    only_k1 = Bias(Claim.BIASED, f"{estimator} in the reward does not have the gradient of the divergence")
    bias = EXACT if estimator == "k1" else only_k1

    @shaper(needs=(f"reward/{component}", *KL_NEEDS), bias=bias, by_group=True)
    def penalised(work: Work) -> dict[str, Reward]:
        values = work.down(component) - coefficient * kl_of_tokens(work, estimator)
        return {component: Reward("token", values, torch.ones_like(values, dtype=torch.bool))}

    return penalised


def check_coefficient(name: str, value: float, most: float = math.inf) -> None:
    """Raise an :class:`InputError` unless a setting is finite and in ``[0, most]``."""
    if not (0 <= value <= most and math.isfinite(value)):
        expected = "0 or more" if math.isinf(most) else f"0 to {most:g}"
        raise InputError(f"{name} is {value}, expected {expected}.")
