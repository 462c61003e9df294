"""LOOP: leave-one-out credit for long agent episodes, without the attempts it has next to nothing to say of."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Stage, Work, chain, estimator
from apportion.credit.filters import drop_small
from apportion.credit.reduce import Singleton, check_options, relative, statistics
from apportion.errors import unknown_name

BASELINES = {
    "leave_one_out": EXACT,
    "leave_none_out": Bias(Claim.EXACT_UP_TO_SCALE, "the mean includes the episode itself: (n - 1)/n of the gradient"),
}
"""Whose mean is subtracted, and what is claimed of it."""

SMALLEST_STD = 1e-7


def loop(
    component: str = "outcome",
    baseline: str = "leave_one_out",
    normalize: bool = False,
    min_abs_advantage: float = 0.01,
    singleton: Singleton = "zero",
) -> Stage:
    """An episode's reward against the others of its group; small advantages train nothing, but count.

        A_it = R_i - mean_{j != i} R_j,    trained where |A_it| >= min_abs_advantage

    Pair it with the objective ``loop``, whose divisor does not see the filter either.

    Args:
        component: the reward.
        baseline: ``leave_one_out``, or ``leave_none_out``: the group's whole mean.
        normalize: divide by the population standard deviation of the group, at least 1e-7.
        min_abs_advantage: 0 keeps all.
        singleton: a group of one gets ``zero``, its ``raw`` reward, or is an ``error``.

    Raises:
        InputError: an unknown baseline or a negative ``min_abs_advantage``; when run, a group of one with
            ``singleton="error"``.

    Source: arXiv 2502.01600; apple/ml-loop, which rounds the number of kept episodes up to fill its workers.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1], [2], [3]], groups=[0, 0, 0], rewards=[1.0, 0.5, 0.0])
        >>> credit = loop()(group)
        >>> credit.advantages.tolist(), credit.trained.tolist(), credit.counted.tolist()
        ([0.75, 0.0, -0.75], [True, False, True], [True, True, True])
    """
    if baseline not in BASELINES:
        raise unknown_name("baseline", baseline, BASELINES)
    check_options(singleton=singleton)
    by_std = Bias(Claim.BIASED, "the group's std weighs prompts by difficulty and depends on R_i")
    bias = by_std if normalize else BASELINES[baseline]

    @estimator(needs=(f"reward/{component}",), bias=bias, compares_groups=True, by_group=True)
    def against_others(work: Work) -> Tensor:
        reward_E, group_E = work.up(component), work.rollouts.group_of_episode
        advantage_E = relative(
            reward_E,
            group_E,
            leave_one_out=baseline == "leave_one_out",
            singleton=singleton,
            shrunk=work.shrunk,
        )
        if normalize:
            of = statistics(reward_E, group_E, ddof=0)
            advantage_E = torch.where(of.count > 1, advantage_E / of.std.clamp(min=SMALLEST_STD), advantage_E)
        return work.spread(advantage_E)

    return chain(against_others, drop_small(min_abs_advantage))
