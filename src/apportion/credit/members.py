"""Comparisons in which some rows make the statistic and all receive it, and groups in which there is none to make.

Step methods compare the decisions of several attempts: each attempt may enter a statistic once, or once a decision.

Suffix legend: n rows, E episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import Work
from apportion.credit.reduce import Singleton, standardised, statistics
from apportion.errors import InputError


def against_members(
    values: Tensor,
    group: Tensor,
    members: Tensor | None = None,
    *,
    leave_one_out: bool = False,
    norm_by_std: bool = False,
    eps: float = 1e-6,
    singleton: Singleton = "zero",
) -> Tensor:
    """Values against the members of their group: minus their mean, perhaps divided by their standard deviation.

        y_i = (x_i - mean) f,   f = n/(n - 1) when leaving one out,  1/(std + eps) when normalised,  n the members

    For members the first is the value minus the mean of the other members.

    Args:
        values: ``[n]``.
        group: ``[n]`` integers from 0.
        members: bool ``[n]``: who makes the statistic; all by default.
        leave_one_out: multiply by n/(n - 1).
        norm_by_std: divide by the sample standard deviation plus ``eps``; 0 where it is 0.
        eps: added to the standard deviation.
        singleton: what rows of a group with one member get: ``zero``, or their ``raw`` value with mean 0 and
            deviation 1. Rows of a group without members get 0.
    """
    of = statistics(values, group, members=members)
    alone = of.count <= 1
    result = torch.where(alone, values if singleton == "raw" else 0.0, values - of.mean)
    if leave_one_out:
        result = torch.where(alone, result, result * of.count / (of.count - 1))
    if norm_by_std:
        result = standardised(result, torch.where(alone, 1.0, of.std), eps)
    return torch.where(of.count == 0, 0.0, result)


def without_others(work: Work, singleton: Singleton) -> Tensor:
    """Bool ``[E]``: episodes that get no credit because there is no other in their group.

    ``raw`` lets groups that were sampled with one member through; one that lost its other members, because their
    rewards are unknown, is dead all the same.

    Raises:
        InputError: a group sampled with one member and ``singleton="error"``.
    """
    group = work.rollouts.group_of_episode
    alone = torch.bincount(group, minlength=work.rollouts.n_groups)[group] == 1
    sampled = alone & ~work.shrunk
    if singleton == "error" and bool(sampled.any()):
        raise InputError(
            f"{int(sampled.sum())} groups have one member, expected at least two to compare: sample more responses a "
            "prompt or choose singleton='zero'."
        )
    return alone & ~sampled if singleton == "raw" else alone
