"""Trust-GRPO: a judge's score of the thinking, trusted where right answers score higher, and less so with time.

Suffix legend: E episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from apportion.credit.algebra import Bias, Claim, Clock, Result, Reward, Stage, Work, chain, shaper
from apportion.credit.baselines import grpo
from apportion.credit.reduce import Singleton, check_options, statistics
from apportion.credit.shaping import check_coefficient
from apportion.credit.verdicts import check_shares, mean_of_known
from apportion.errors import InputError, unknown_name

RIGHT = 0.5
"""Outcomes from here on are right answers."""


@dataclass(frozen=True)
class Variant:
    """Where paper and code differ.

    Attributes:
        skip_uniform: groups whose outcomes are all 0.9 or more, or all 0.1 or less, get no thinking reward.
        least: outcomes below this have thinking score 0, whatever the judge said.
    """

    skip_uniform: bool
    least: float


VARIANTS = {"paper": Variant(False, 0.0), "code": Variant(True, 0.2)}


def trusted_thinking(
    alpha: float = 0.3,
    total_steps: int | None = None,
    variant: str = "paper",
    skip_uniform_groups: bool = False,
    component: str = "outcome",
    thinking: str = "thinking",
) -> Stage:
    """An outcome plus a score of the thinking that led to it, as far as that can be trusted.

        gamma_g = 1 if mu_right >= mu_wrong, else exp(mu_right - mu_wrong)
        R_i     = r_i + gamma_g alpha exp(-step / T) theta_i

    with mu the mean thinking score theta of the group's right (r >= 0.5) and wrong responses; gamma is 1 where there
    are none of either. A score that the judge did not give is in neither mean, and its thinking term is 0. An episode
    of several responses has the mean of their scores.

    Args:
        alpha: weight of the thinking score at step 0.
        total_steps: T; None: the clock's.
        variant: ``paper``; or ``code``, which skips uniform groups and takes theta as 0 where r < 0.2, so that with
            outcomes 0 and 1 it trusts every group.
        skip_uniform_groups: no thinking reward, and trust 0, in groups whose outcomes are all 0.9 or more, or all 0.1
            or less; ``code`` always does so.
        component: the outcome, from 0 to 1; becomes R.
        thinking: the score, from 0 to 1, of responses or episodes.

    Details, of every episode: ``trust``, gamma; ``thinking_used``, theta as it enters R; ``trusted_reward``, R.

    Raises:
        InputError: a setting out of range; when run, an outcome or score outside 0 to 1, or a clock before step 0.

    Source: arXiv 2505.17018; kxfan2002/SophiaVL-R1 ``CustomRewardManager`` (``code``).
    """
    check_coefficient("alpha", alpha)
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    if total_steps is not None and not 0 < total_steps < math.inf:
        raise InputError(f"total_steps is {total_steps}, expected more than 0.")
    rules = VARIANTS[variant]
    skips = rules.skip_uniform or skip_uniform_groups

    @shaper(
        needs=(f"reward/{component}", f"reward/{thinking}"),
        bias=Bias(Claim.BIASED, "rewards what a judge thinks of the thinking beside the outcome"),
        sees_unknown=(thinking,),
        reads_clock=True,
        by_group=True,
    )
    def trusted(work: Work, state: Any, clock: Clock) -> Result:
        group_E = work.rollouts.group_of_episode
        outcome_E = work.up(component)
        check_shares(outcome_E, f"reward {component!r}")
        score_E, known_E = mean_of_known(work, thinking)
        check_shares(score_E, f"reward {thinking!r}")

        score_E = torch.where(outcome_E < rules.least, 0.0, score_E)
        right_E = outcome_E >= RIGHT
        of_right = statistics(score_E, group_E, members=known_E & right_E)
        of_wrong = statistics(score_E, group_E, members=known_E & ~right_E)
        compared_E = (of_right.count > 0) & (of_wrong.count > 0)
        trust_E = torch.where(compared_E, (of_right.mean - of_wrong.mean).clamp(max=0).exp(), 1.0)
        if skips:
            sizes = statistics(outcome_E, group_E).count
            high, low = (statistics(outcome_E, group_E, members=m).count for m in (outcome_E >= 0.9, outcome_E <= 0.1))
            uniform_E = (high == sizes) | (low == sizes)
            trust_E, score_E = (torch.where(uniform_E, 0.0, values) for values in (trust_E, score_E))
        reward_E = outcome_E + trust_E * alpha * _annealed(clock, total_steps) * score_E
        details = {"trust": trust_E, "thinking_used": score_E, "trusted_reward": reward_E}
        return Result(
            {component: Reward("episode", reward_E, torch.ones_like(known_E))},
            {f"episode:{name}": values for name, values in details.items()},
            state,
        )

    return trusted


def _annealed(clock: Clock, total_steps: int | None) -> float:
    """``exp(-step / T)``"""
    total = clock.total_steps if total_steps is None else total_steps
    if clock.step < 0 or total <= 0:
        raise InputError(f"the clock is at step {clock.step} of {total}, expected 0 or more of at least 1.")
    return math.exp(-clock.step / total)


def trust_grpo(
    alpha: float = 0.3,
    total_steps: int | None = None,
    variant: str = "paper",
    skip_uniform_groups: bool = False,
    eps: float = 1e-6,
    singleton: Singleton = "zero",
    component: str = "outcome",
    thinking: str = "thinking",
) -> Stage:
    """Group-relative advantage of the outcome plus a trusted, annealed score of the thinking.

        A_it = (R_i - mean_g R) / (std_g R + eps)       R of :func:`trusted_thinking`

    With ``alpha=0`` this is GRPO. A group whose responses are all wrong still learns from their thinking.

    Args:
        alpha: weight of the thinking score at step 0.
        total_steps: over which it decays, to 1/e; None: the run's.
        variant: ``paper`` or ``code``.
        skip_uniform_groups: no thinking reward where outcomes do not differ.
        eps: added to the standard deviation.
        singleton: a group of one gets ``zero``, its ``raw`` reward (the authors), or is an ``error``.
        component: the outcome, from 0 to 1.
        thinking: the score, from 0 to 1; see :func:`trusted_thinking` for these.

    Details: those of :func:`trusted_thinking`.

    Source: arXiv 2505.17018; kxfan2002/SophiaVL-R1.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> two = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> two = two.with_reward("thinking", torch.tensor([0.2, 0.9]))
        >>> credit = trust_grpo()(two, clock=Clock(0, 1500))
        >>> [round(x, 3) for x in credit.columns["episode:credit/trust"].tensor.tolist()]
        [0.497, 0.497]
    """
    check_options(eps, singleton)
    return chain(
        trusted_thinking(alpha, total_steps, variant, skip_uniform_groups, component, thinking),
        grpo(component, eps=eps, singleton=singleton),
    )
