"""CAD-RL's credit: outcomes against their group, with attempts that were cut off left out of it."""

from __future__ import annotations

from apportion.credit.algebra import Stage, chain
from apportion.credit.baselines import grpo
from apportion.credit.filters import drop_overlong
from apportion.credit.reduce import Singleton


def cad_rl(
    component: str = "outcome",
    norm_by_std: bool = True,
    eps: float = 1e-6,
    singleton: Singleton = "zero",
    max_length: int | None = None,
    in_baseline: bool = False,
) -> Stage:
    """Group-relative outcome of the attempts that were finished: ``chain(grpo(...), drop_overlong(...))``.

    An attempt cut off at the limit carries no loss, counts in no mean over responses and, unless ``in_baseline``, in
    no statistic of its group. Meant for objective ``cad_rl``.

    Args:
        component: the reward.
        norm_by_std: divide by the group's standard deviation.
        eps: added to it.
        singleton: what a group of one gets, see ``grpo``.
        max_length: attempts with at least so many trained tokens are cut off; None: as ``response:truncated`` says.
        in_baseline: whether their rewards stay in the group's statistics; the paper does not say.

    Source: arXiv 2508.10118, from a reimplementation by others that cites its equations.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1], [2], [3, 4]], groups=[0, 0, 0], rewards=[1.0, 0.0, 5.0])
        >>> cad_rl(norm_by_std=False, max_length=2)(group).advantages.tolist()
        [0.5, -0.5, 0.0, 0.0]
    """
    base = grpo(component, norm_by_std=norm_by_std, eps=eps, singleton=singleton)
    return chain(base, drop_overlong(max_length, in_baseline=in_baseline))
