"""Outcome credit: an episode's reward against its group, the same for all its tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Stage, Work, estimator
from apportion.credit.reduce import Singleton, check_options, relative
from apportion.rollouts import ORIGINS


def none(component: str | None = None) -> Stage:
    """No credit: every advantage is 0 and the masks are those of the rollouts.

    For objectives that bring their own signal (preference pairs, regression, imitation).

    Args:
        component: a reward that the objective reads, so that episodes of the policy whose reward is unknown are left
            out; others need none.
    """
    reads: dict[str, Any] = {"covers": ORIGINS} if component is None else {"needs": (f"reward/{component}",)}

    bias = Bias(Claim.BIASED, "no gradient at all: the objective brings its own")

    @estimator(**reads, bias=bias, by_group=True)
    def nothing(work: Work) -> Tensor:
        return work.advantages

    return nothing


def grpo(
    component: str = "outcome", norm_by_std: bool = True, eps: float = 1e-6, singleton: Singleton = "zero"
) -> Stage:
    """Group-relative advantage: reward minus the group's mean, divided by its standard deviation.

        A_it = (R_i - mean_g R) / (std_g R + eps)

    with the sample standard deviation (ddof 1). ``norm_by_std=False`` is Dr.GRPO.

    Args:
        component: the reward; rewards below the episode are summed, untrained tokens' included.
        norm_by_std: divide by the group's standard deviation.
        eps: added to it.
        singleton: a group of one gets ``zero``, its ``raw`` reward (verl), or is an ``error``.

    Source: arXiv 2402.03300; Dr.GRPO arXiv 2503.20783; verl ``compute_grpo_outcome_advantage``.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1], [2], [3]], groups=[0, 0, 0], rewards=[1.0, 0.0, 0.0])
        >>> [round(a, 3) for a in grpo()(group).advantages.tolist()]
        [1.155, -0.577, -0.577]
    """
    check_options(eps, singleton)
    bias = (
        Bias(
            Claim.BIASED,
            "the group's std weighs prompts by difficulty and, beyond two reward values, depends on R_i",
        )
        if norm_by_std
        else Bias(Claim.EXACT_UP_TO_SCALE, "the mean includes the response itself: (n - 1)/n of the gradient")
    )

    @estimator(needs=(f"reward/{component}",), bias=bias, compares_groups=True, by_group=True)
    def group_relative(work: Work) -> Tensor:
        advantage_E = relative(
            work.up(component),
            work.rollouts.group_of_episode,
            norm_by_std=norm_by_std,
            eps=eps,
            singleton=singleton,
            shrunk=work.shrunk,
        )
        return work.spread(advantage_E)

    return group_relative


def dr_grpo(component: str = "outcome", singleton: Singleton = "zero") -> Stage:
    """Reward minus the group's mean, and no division: ``grpo(norm_by_std=False)``.

    Its paper also divides the loss by a constant length: see ``seq_mean_token_sum_norm`` in
    :mod:`apportion.objectives.aggregate`.

    Args:
        component: the reward.
        singleton: a group of one gets ``zero``, its ``raw`` reward, or is an ``error``.

    Source: arXiv 2503.20783.
    """
    return grpo(component, norm_by_std=False, singleton=singleton)


def rloo(component: str = "outcome", singleton: Singleton = "zero") -> Stage:
    """Leave-one-out advantage: reward minus the mean of the others in the group.

        A_it = R_i - mean_{j != i} R_j = n/(n - 1) (R_i - mean_g R)

    Args:
        component: the reward.
        singleton: a group of one gets ``zero``, its ``raw`` reward (verl), or is an ``error``.

    Source: Kool et al. 2019; arXiv 2402.14740; verl ``compute_rloo_outcome_advantage``.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1], [2], [3]], groups=[0, 0, 0], rewards=[1.0, 0.0, 0.0])
        >>> rloo()(group).advantages.tolist()
        [1.0, -0.5, -0.5]
    """
    check_options(singleton=singleton)

    @estimator(needs=(f"reward/{component}",), bias=EXACT, compares_groups=True, by_group=True)
    def leave_one_out(work: Work) -> Tensor:
        advantage_E = relative(
            work.up(component),
            work.rollouts.group_of_episode,
            leave_one_out=True,
            singleton=singleton,
            shrunk=work.shrunk,
        )
        return work.spread(advantage_E)

    return leave_one_out
