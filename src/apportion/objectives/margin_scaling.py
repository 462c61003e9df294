"""MM-DPO: DPO that presses harder on pairs which a reward model tells apart clearly.

Suffix legend: K pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError, unknown_name
from apportion.objectives import episodes
from apportion.objectives.preference import IMPLICIT_REWARDS, Compared, check_beta, compared_pairs
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Rollouts

DRAWN = 0.8
"""Share of a batch's pairs that the batch form draws."""


@dataclass(frozen=True)
class _Rule:
    """The settings of a scale."""

    beta: float
    w: float
    k: float
    beta_min: float
    seed: int


def _by_pair(rule: _Rule, rollouts: Rollouts, compared: Compared, logits: Tensor, clock: Clock | None) -> Tensor:
    margin = rollouts.column("pair:margin", where=compared.rows, reader="this objective")[compared.rows]
    return scaled_beta(margin.to(logits.dtype), rule.beta, rule.w, rule.k, rule.beta_min)


def _by_batch(rule: _Rule, rollouts: Rollouts, compared: Compared, logits: Tensor, clock: Clock | None) -> Tensor:
    given, n = logits.detach(), len(logits)
    if n == 0:
        return given
    if n == 1:
        raise InputError(
            "scaling='batch' draws some of the pairs of an update batch and got one pair, expected two or more: take "
            "more pairs a step, or choose scaling='pair'."
        )
    if clock is None:
        raise InputError("scaling='batch' draws anew every step and was given no clock: pass Clock(step, total_steps).")
    values = given.double().cpu().numpy()
    z = (values - values.mean()) / (values.std(ddof=1) + 1e-7)
    likelihood = np.exp(-(z**2) / 2)
    chance = likelihood / likelihood.sum()
    drawn = np.random.default_rng((rule.seed, clock.step)).choice(n, size=int(DRAWN * n), replace=False, p=chance)
    beta = rule.beta * (1 + rule.w * (values[drawn].mean() - values.mean()))
    return given.new_full((n,), max(rule.beta_min, beta))


SCALINGS: dict[str, tuple[Callable[[_Rule, Rollouts, Compared, Tensor, Clock | None], Tensor], tuple[str, ...]]] = {
    "pair": (_by_pair, ("pair:margin",)),
    "batch": (_by_batch, ()),
}
"""By name, the beta of every pair ``[K]`` and the columns it reads."""


def mm_dpo(
    beta: float = 0.1,
    w: float = 0.1,
    k: float = 0.5,
    beta_min: float = 1e-3,
    imitate: float = 0.25,
    scaling: str = "pair",
    seed: int = 0,
) -> Objective:
    """DPO with a beta of its own for every pair, by the margin between the rewards of its episodes.

        beta_i = max(beta_min, beta (1 + w (1 - exp(-k margin_i))))
        u_i    = sum over chosen of (log pi - log pi_ref) - sum over rejected of the same
        L      = mean over pairs of softplus(-beta_i u_i) + imitate * CE

    where CE is the mean over the tokens of chosen episodes of - log pi. For margins from 0 on, beta_i lies in
    ``[beta, beta (1 + w))``; ``w=0`` and ``imitate=0`` are DPO. beta_i is held constant.

    ``scaling='batch'`` is what the authors' code does instead: one beta for the update batch, from its u held
    constant,

        beta_batch = max(beta_min, beta (1 + w (mean of drawn u - mean u)))

    with four fifths of the pairs drawn without replacement, those near the mean likelier: exp(-z^2 / 2) with z the
    standardised u. The draw follows from ``seed`` and the step.

    Args:
        beta: scale of the implicit reward at margin 0.
        w: how much more a clear pair counts.
        k: how soon a margin is clear; ours, the paper's value was not found.
        beta_min: smallest beta, for pairs whose margin says the contrary.
        imitate: weight of the cross-entropy of chosen episodes.
        scaling: ``pair`` or ``batch``.
        seed: of the draws of ``scaling='batch'``.

    Needs ``pair:margin``, the preferred episode's reward minus the other's, with ``scaling='pair'``. Pair weights and
    ties as in ``dpo``.

    Metrics: those of ``dpo`` (``margin`` is the mean of beta_i u_i), and ``beta``, ``preference_loss`` (means over
    pairs), ``imitation_loss`` (CE).

    Raises:
        InputError: a setting out of range; when evaluated, ``scaling='batch'`` with one pair, or without a clock, and
            all that ``dpo`` refuses.

    Source: arXiv 2502.10391; Kwai-YuanQi/MM-RLHF ``dpo_loss``. The weight of the preference loss there, 1 in its
    scripts, is left out.
    """
    check_beta(beta)
    check_coefficient("w", w)
    check_coefficient("imitate", imitate)
    if not 0 < k < math.inf:
        raise InputError(f"k is {k}, expected more than 0.")
    if not 0 < beta_min < math.inf:
        raise InputError(f"beta_min is {beta_min}, expected more than 0.")
    if scaling not in SCALINGS:
        raise unknown_name("scaling", scaling, SCALINGS)
    if seed < 0:
        raise InputError(f"the seed is {seed}, expected 0 or more.")
    rule, implicit = _Rule(beta, w, k, beta_min, seed), IMPLICIT_REWARDS["dpo"]
    scale, needs = SCALINGS[scaling]

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        compared = compared_pairs(rollouts, credit)
        chosen, rejected = compared.sides(implicit.of_episodes(now["log_probs"], rollouts, credit))
        beta_K = scale(rule, rollouts, compared, chosen - rejected, clock)
        z = beta_K * (chosen - rejected)
        metrics = compared.report(
            margin=z,
            pair_accuracy=z > 0,
            reward_chosen=beta_K * chosen,
            reward_rejected=beta_K * rejected,
            beta=beta_K,
            preference_loss=softplus(-z),
        )
        imitation = _imitation(now["log_probs"], rollouts, credit, compared)
        metrics["imitation_loss"] = imitation.detach().double()
        return Loss(compared.mean(softplus(-z)) + imitate * imitation, metrics)

    return Objective("pair", ("log_probs",), (*implicit.needs, *needs), evaluate)


def scaled_beta(margin: Tensor, beta: float, w: float, k: float, beta_min: float) -> Tensor:
    """``max(beta_min, beta (1 + w (1 - exp(-k margin))))`` of every pair ``[K]``.

    Example:
        >>> scaled_beta(torch.tensor([0.0, 99.0, -99.0]).double(), beta=0.1, w=0.5, k=0.5, beta_min=0.001).tolist()
        [0.1, 0.15000000000000002, 0.001]
    """
    # Far below 0 any exponent ends at the floor, and infinity times w = 0 would not be a number.
    return (beta * (1 - w * torch.expm1((-k * margin).clamp(max=50)))).clamp(min=beta_min)


def _imitation(log_probs: Tensor, rollouts: Rollouts, credit: Credit, compared: Compared) -> Tensor:
    """Mean over the tokens of chosen episodes of - log pi; an episode counts as often as it was chosen, by weight."""
    tokens = episodes.trained_tokens(credit)
    total = episodes.sum_by_episode(-log_probs[tokens], tokens, rollouts)[compared.preferred]
    count = episodes.count_by_episode(tokens, rollouts)[compared.preferred]
    weight = compared.weight.to(total.dtype)
    return (weight * total).sum() / (weight * count).sum().clamp(min=torch.finfo(total.dtype).tiny)
