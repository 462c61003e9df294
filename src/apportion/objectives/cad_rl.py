"""CAD-RL: a wide clip, and dimensions that weigh more than the words around them."""

from __future__ import annotations

import math
from dataclasses import replace

from apportion.errors import InputError
from apportion.objectives.policy_gradient import clip
from apportion.objectives.protocol import Objective

WEIGHT = "precision_weight"
"""Column of token weights, of annotator ``precision_tokens``."""


def cad_rl(ratio_low: float = 0.6, ratio_high: float = 1.8, weight: str | None = WEIGHT) -> Objective:
    """The clipped surrogate within bounds of the ratio itself, averaged with more weight on precision tokens.

        l_t = max(-A_t rho_t, -A_t clip(rho_t, ratio_low, ratio_high))
        L   = mean over episodes of  sum_t omega_t l_t / sum_t omega_t

    that is ``clip(low=1 - ratio_low, high=ratio_high - 1)`` with a weighted mean over every episode's tokens. The
    paper writes the weights around the negative log-likelihood: that is
    ``imitation(aggregate="seq_mean_token_mean(weight='precision_weight')")``.

    Args:
        ratio_low: smallest ratio that matters, between 0 and 1.
        ratio_high: largest, above 1.
        weight: the column of omega, from annotator ``precision_tokens``; None: all tokens weigh the same.

    Metrics: those of ``clip``.

    Raises:
        InputError: bounds that are not on both sides of 1.

    Source: arXiv 2508.10118, from a reimplementation by others that cites its equations; that the weights average the
    surrogate is inferred.
    """
    if not 0 < ratio_low < 1 < ratio_high < math.inf:
        raise InputError(
            f"the ratio is bounded by {ratio_low} and {ratio_high}, expected 0 < ratio_low < 1 < ratio_high: bounds "
            "are of the ratio itself, not of its distance from 1."
        )
    aggregate = "seq_mean_token_mean" if weight is None else f"seq_mean_token_mean(weight={weight!r})"
    surrogate = clip(low=1 - ratio_low, high=ratio_high - 1, aggregate=aggregate)
    return surrogate if weight is None else replace(surrogate, needs=(*surrogate.needs, weight))
