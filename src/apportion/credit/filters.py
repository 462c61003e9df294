"""Which tokens train, and whether what is dropped still counts in normalisers.

Filters follow an estimator in a chain:

    chain(METHODS["rloo"](), drop_small(0.01))

Suffix legend: N tokens, B responses, E episodes, n rows.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Stage, Work, token_filter
from apportion.credit.overlong import check_max_length, cut_off
from apportion.credit.reduce import spread_within
from apportion.credit.shaping import check_coefficient


def drop_overlong(max_length: int | None = None, in_baseline: bool = True) -> Stage:
    """An attempt that was cut off before it was finished trains no token, and does not count in normalisers.

    Its verdict says that it was too long rather than wrong.

    Args:
        max_length: episodes with at least so many trained tokens; None: those with a response that is marked
            ``response:truncated``.
        in_baseline: whether its reward stays in the statistics of its group (TRL's ``mask_truncated_completions``).
            Otherwise the whole method, wherever in its chain this filter stands, sees rollouts without it, and a group
            that is left with one member is dead.

    Needs ``response:truncated``, unless ``max_length`` is given.

    Raises:
        InputError: a ``max_length`` below 1.

    Source: overlong filtering, arXiv 2503.14476; TRL ``mask_truncated_completions``.

    Example:
        >>> from apportion import credit
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1], [2], [3, 4]], groups=[0, 0, 0], rewards=[1.0, 0.0, 0.0])
        >>> for in_baseline in (True, False):
        ...     filtered = credit.chain(credit.METHODS["rloo"](), drop_overlong(2, in_baseline))(group)
        ...     print(filtered.advantages.tolist(), filtered.counted.tolist())
        [1.0, -0.5, 0.0, 0.0] [True, True, False, False]
        [1.0, -1.0, 0.0, 0.0] [True, True, False, False]
    """
    if max_length is not None:
        check_max_length(max_length)
    which = partial(cut_off, max_length=max_length)

    @token_filter(
        needs=("response:truncated",) if max_length is None else (),
        bias=Bias(Claim.BIASED, "attempts that are cut off teach nothing, not even to end sooner"),
        leaves_out=() if in_baseline else (which,),
        by_group=True,
    )
    def finished(work: Work) -> tuple[Tensor, Tensor]:
        kept = ~work.spread(which(work.rollouts))
        return kept, kept

    return finished


def drop_small(threshold: float = 0.01) -> Stage:
    """Tokens whose advantage is below a threshold train nothing, but count: ``trained_t = |A_t| >= threshold``.

    This spares the pass through the model, and does not scale the gradient of the others up.

    Args:
        threshold: 0 drops nothing.

    Raises:
        InputError: a negative threshold.

    Source: arXiv 2502.01600; apple/ml-loop.
    """
    check_coefficient("threshold", threshold)
    bias = EXACT if threshold == 0 else Bias(Claim.BIASED, f"advantages below {threshold:g} teach nothing")

    @token_filter(bias=bias, by_group=True)
    def large(work: Work) -> tuple[Tensor, Tensor]:
        return work.advantages.abs() >= threshold, work.counted

    return large


def comparable(values: Tensor, group: Tensor) -> Tensor:
    """Bool ``[n]``: the values of the row's group are not all equal, or it is a group of one.

    Args:
        values: ``[n]``.
        group: ``[n]`` integers from 0.

    Example:
        >>> comparable(torch.tensor([1.0, 1.0, 0.0, 1.0, 0.5]), torch.tensor([0, 0, 1, 1, 2])).tolist()
        [False, False, True, True, True]
    """
    size = torch.bincount(group)
    return ((spread_within(values, group, len(size)) > 0) | (size == 1))[group]


def drop_dead_groups(component: str = "outcome") -> Stage:
    """Groups whose rewards are all equal neither train nor count, as though others had been sampled instead.

    A group-relative method has nothing to say of them; dropped, they no longer dilute the normaliser. Groups of one
    are kept. Put it before a shaper to decide by the reward as it was given, as DAPO does.

    Args:
        component: the reward; rewards below the episode are summed.

    Source: dynamic sampling, arXiv 2503.14476; verl's group filter. A run samples others in their place with the
    setting ``resample``.
    """
    bias = Bias(
        Claim.CONSISTENT, "normalisers count the kept groups, whose number is random; exact up to scale after grpo"
    )

    @token_filter(needs=(f"reward/{component}",), bias=bias, by_group=True)
    def alive(work: Work) -> tuple[Tensor, Tensor]:
        kept = work.spread(comparable(work.up(component), work.rollouts.group_of_episode))
        return kept, kept

    return alive
