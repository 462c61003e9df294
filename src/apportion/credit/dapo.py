"""DAPO's credit: GRPO on a reward that charges for length, without the groups that have nothing to compare."""

from __future__ import annotations

from apportion.credit.algebra import Stage, chain
from apportion.credit.baselines import grpo
from apportion.credit.filters import drop_dead_groups, drop_overlong
from apportion.credit.overlong import overlong_penalty
from apportion.credit.reduce import Singleton
from apportion.errors import InputError


def dapo(
    max_length: int | None = None,
    buffer: int | None = None,
    factor: float = 1.0,
    dynamic: bool = True,
    mask_overlong: bool = False,
    component: str = "outcome",
    norm_by_std: bool = True,
    eps: float = 1e-6,
    singleton: Singleton = "zero",
) -> Stage:
    """GRPO with the overlong penalty and dynamic sampling, each of them optional.

        R'_i = R_i + penalty(length_i)
        A_it = (R'_i - mean_g R') / (std_g R' + eps),    trained and counted where the R of the group are not all equal

    Groups are dropped by the reward before the penalty. Pair it with the objective ``clip(low=0.2, high=0.28)``.

    Args:
        max_length: trained tokens at which the whole penalty is due; None: no penalty.
        buffer: tokens before ``max_length`` over which the penalty grows; None: a fifth of it (the paper's 4096 of
            20480).
        factor: the largest penalty.
        dynamic: drop groups whose rewards are all equal, see :func:`~apportion.credit.filters.drop_dead_groups`.
        mask_overlong: drop what was cut off, see :func:`~apportion.credit.filters.drop_overlong`; by ``max_length``
            where it is given.
        component: the reward.
        norm_by_std: divide by the group's standard deviation.
        eps: added to it.
        singleton: a group of one gets ``zero``, its ``raw`` reward, or is an ``error``.

    Details: ``episode:overlong_penalty``, with ``max_length``.

    Raises:
        InputError: ``buffer`` or ``factor`` without ``max_length``, or values they cannot have.

    Source: arXiv 2503.14476; verl's DAPO recipe.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> rewards = [1.0, 0.0, 1.0, 1.0]
        >>> rollouts = Rollouts.from_lists([[1], [2], [3], [4]], groups=[0, 0, 1, 1], rewards=rewards)
        >>> dapo()(rollouts).counted.tolist()
        [True, True, False, False]
    """
    if max_length is None and (buffer is not None or factor != 1.0):
        raise InputError("buffer or factor is set but max_length is not, so nothing would read it: set max_length too.")
    stages = [grpo(component, norm_by_std, eps, singleton)]
    if max_length is not None:
        buffer = max(max_length // 5, 1) if buffer is None else buffer
        stages.insert(0, overlong_penalty(max_length, buffer, factor, component))
    if dynamic:
        stages.insert(0, drop_dead_groups(component))
    if mask_overlong:
        stages.append(drop_overlong(max_length))
    return chain(*stages)
