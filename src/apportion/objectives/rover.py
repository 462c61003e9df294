"""ROVER: regress the log-ratio on the value of a random policy.

Suffix legend: n trained tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.credit.recursions import next_in_row
from apportion.errors import InputError
from apportion.objectives.aggregate import token_mean
from apportion.objectives.episodes import count_by_episode, trained_tokens
from apportion.objectives.protocol import Loss, Now, Objective, read
from apportion.rollouts import Rollouts, ragged

NEEDS = ("log_probs/old", "vocab_mean/old", "credit/advantages")


@dataclass(frozen=True, eq=False)
class Regression:
    """What is regressed on what, at every trained token ``[n]``.

    Attributes:
        tokens: their numbers.
        q: the value of the token drawn, with gradient.
        next_q: the mean value at the episode's next trained token, without; 0 at its last.
        targets: what q should be, without.
    """

    tokens: Tensor
    q: Tensor
    next_q: Tensor
    targets: Tensor


def regression(now: Now, rollouts: Rollouts, credit: Credit, rho: float, next_q_scale: float) -> Regression:
    """Values and targets of ROVER's Bellman error; see :func:`rover`."""
    tokens = trained_tokens(credit)
    old, old_mean, advantages = (read(name, rollouts, credit)[tokens] for name in NEEDS)
    q = rho * (now["log_probs"][tokens] - old)
    mean_q = rho * (now["vocab_mean"][tokens] - old_mean)
    next_q = next_in_row(mean_q, ragged.offsets_of(count_by_episode(tokens, rollouts)))
    return Regression(tokens, q, next_q, advantages.to(q.dtype) + next_q_scale * next_q)


def rover(rho: float = 1.0, next_q_scale: float = 1.0) -> Objective:
    """Squared Bellman error of a value parameterised as the change of the policy.

        q_t      = rho (log pi(y_t) - log pi_old(y_t))
        nu_t     = mean over the vocabulary of log pi(. | s_t)
        target_t = c + next_q_scale * rho (nu_{t+1} - nu_old_{t+1})       (no gradient; the last term is 0 at the end)
        L        = sum_t (q_t - target_t)^2 / number of counted tokens

    where t + 1 is the episode's next trained token and c the advantage: the episode's reward minus its group's mean,
    which is credit ``grpo(norm_by_std=False, singleton='raw')``. The first step on a batch, at pi = pi_old, is a policy
    gradient with twice that advantage times rho.

    Args:
        rho: temperature of the policy over values.
        next_q_scale: weight of the next value; 0 lets the entropy collapse, above 1 it drowns the reward.

    Metrics: ``q_error`` (the loss), ``q_size`` (mean absolute q), ``next_q`` (mean).

    Raises:
        InputError: ``rho`` that is not positive, or ``next_q_scale`` that is negative.

    Source: arXiv 2509.24981; tinnerhrhe/ROVER.
    """
    if not 0 < rho < math.inf:
        raise InputError(f"rho is {rho}, expected more than 0.")
    if not 0 <= next_q_scale < math.inf:
        raise InputError(f"next_q_scale is {next_q_scale}, expected 0 or more.")

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        at = regression(now, rollouts, credit, rho, next_q_scale)
        weight = token_mean()(rollouts, credit)[at.tokens].to(at.q.dtype)
        loss = (weight * (at.q - at.targets) ** 2).sum()
        count = max(len(at.tokens), 1)
        sizes = {"q_size": at.q.detach().abs().sum() / count, "next_q": at.next_q.sum() / count}
        return Loss(loss, {"q_error": loss.detach(), **sizes})

    return Objective("episode", ("log_probs",), NEEDS, evaluate, watches=("vocab_mean",))
