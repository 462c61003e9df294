"""T-REG: DPO or SimPO whose token rewards are pulled towards marks the model gave its own tokens.

Suffix legend: n trained tokens, E episodes, K pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.errors import InputError, unknown_name
from apportion.objectives import episodes
from apportion.objectives.preference import IMPLICIT_REWARDS, check_beta, compared_pairs
from apportion.objectives.protocol import Loss, Now, Objective, read
from apportion.rollouts import Rollouts

MARK = "mark/contrastive"
"""Column of the marks, of annotator ``contrastive_marks``."""


def t_reg(beta: float = 0.1, alpha: float = 0.25, base: str = "dpo", margin: float = 0.0) -> Objective:
    """A preference loss, regularised by contrastive marks of tokens.

        R(y)     = beta * sum over y of (log pi - log pi_ref)     dpo
                 = beta * mean over y of log pi                   simpo
        z        = R(chosen) - R(rejected) - margin
        L_reg(y) = - beta * sum over y of mark_t log pi(y_t)
        L        = mean over pairs of softplus(-z) + alpha sigmoid(-z) (L_reg(chosen) + L_reg(rejected))

    where sigmoid(-z), the weight that the preference loss gives the pair, is held constant. With base ``dpo`` this is
    DPO whose gradient is multiplied by ``1 + alpha mark_t`` at tokens of the chosen answer and by ``1 - alpha mark_t``
    at those of the rejected one. Sums are over trained tokens; pair weights and ties as in ``dpo``.

    Args:
        beta: scale of the implicit reward.
        alpha: weight of the regulariser; 0 is the base.
        base: ``dpo`` or ``simpo``.
        margin: by how much the chosen answer should lead; SimPO's gamma.

    Needs ``mark/contrastive``, from -0.5 (spoils the answer) to 0.5 (makes it better); see
    :mod:`apportion.annotations.contrastive_marks`.

    Metrics: those of ``dpo`` (``margin`` is mean z), and ``base_loss``, ``pair_weight`` (sigmoid(-z)),
    ``regulariser_chosen``, ``regulariser_rejected`` (L_reg, before alpha); means over pairs.

    Raises:
        InputError: a setting out of range; when evaluated, a mark outside of -0.5..0.5, and all that ``dpo`` refuses.

    Source: arXiv 2412.02685; that the weight is held constant and the SimPO form are inferred, the authors' code was
    not at hand.
    """
    check_beta(beta)
    if not 0 <= alpha < math.inf:
        raise InputError(f"alpha is {alpha}, expected 0 or more.")
    if base not in IMPLICIT_REWARDS:
        raise unknown_name("base", base, IMPLICIT_REWARDS)
    if not math.isfinite(margin):
        raise InputError(f"the margin is {margin}, expected a finite number.")
    implicit = IMPLICIT_REWARDS[base]

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        compared = compared_pairs(rollouts, credit)
        chosen, rejected = compared.sides(beta * implicit.of_episodes(now["log_probs"], rollouts, credit))
        pulled = compared.sides(beta * _pull(now["log_probs"], rollouts, credit))
        z = chosen - rejected - margin
        plain, weight = softplus(-z), torch.sigmoid(-z).detach()
        metrics = compared.report(
            margin=z,
            pair_accuracy=z > 0,
            reward_chosen=chosen,
            reward_rejected=rejected,
            base_loss=plain,
            pair_weight=weight,
            regulariser_chosen=pulled[0],
            regulariser_rejected=pulled[1],
        )
        return Loss(compared.mean(plain + alpha * weight * (pulled[0] + pulled[1])), metrics)

    return Objective("pair", ("log_probs",), (*implicit.needs, MARK), evaluate)


def _pull(log_probs: Tensor, rollouts: Rollouts, credit: Credit) -> Tensor:
    """``- sum of mark_t log pi(y_t)`` of every episode ``[E]``."""
    tokens = episodes.trained_tokens(credit)
    mark_n = read(MARK, rollouts, credit)[tokens]
    if bool((mark_n.abs() > 0.5).any()):
        worst = float(mark_n[mark_n.abs().argmax()])
        raise InputError(f"{MARK!r} is {worst:g} at some token, expected -0.5 to 0.5: make it by contrastive_marks.")
    return episodes.sum_by_episode(-mark_n.to(log_probs.dtype) * log_probs[tokens], tokens, rollouts)
