"""The two reductions every credit method is made of: statistics of groups, and grouping by key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from apportion.errors import InputError

Singleton = Literal["zero", "raw", "error"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics every row receives, ``[n]`` each.

    Attributes:
        mean: of the members of the row's group (without the row itself when leaving one out); 0 without members.
        std: likewise; 0 with fewer than ``ddof + 1`` members.
        count: how many members made them.
    """

    mean: Tensor
    std: Tensor
    count: Tensor


def group_by(*keys: Tensor) -> tuple[Tensor, int]:
    """Number rows by equal keys.

    Args:
        *keys: integer tensors ``[n]``; rows are together when all their keys are equal.

    Returns:
        the group of every row ``[n]`` (0, 1, ... by ascending keys) and how many groups there are.

    Example:
        >>> group_by(torch.tensor([7, 7, 2]), torch.tensor([1, 1, 1]))
        (tensor([1, 1, 0]), 2)
    """
    index, count = torch.zeros_like(keys[0]), 1
    for key in keys:
        values, inverse = torch.unique(key, return_inverse=True)
        index, size = index * len(values) + inverse, len(values)
        values, index = torch.unique(index, return_inverse=True)
        count = len(values) if size else 0
    return index, count


def statistics(
    values: Tensor,
    group: Tensor,
    *,
    members: Tensor | None = None,
    leave_one_out: bool = False,
    ddof: int = 1,
) -> Statistics:
    """Mean and standard deviation of groups, given to every row of the group.

    Args:
        values: ``[n]``.
        group: ``[n]`` integers from 0.
        members: bool ``[n]``: who makes the statistic; all by default. Others still receive it.
        leave_one_out: leave the receiving row out of its own statistic.
        ddof: the divisor of the variance is ``count - ddof``.
    """
    inside = torch.ones_like(group, dtype=torch.bool) if members is None else members
    size = int(group.max()) + 1 if len(group) else 0
    zeros = values.new_zeros(size)
    count = zeros.index_add(0, group, inside.to(values.dtype))[group]
    # Counted from the smallest member, so equal members have exactly their value as mean, and no deviation.
    low = torch.full_like(zeros, torch.inf).scatter_reduce(0, group, torch.where(inside, values, torch.inf), "amin")
    low = torch.where(low.isinf(), 0.0, low)[group]
    above = torch.where(inside, values - low, 0.0)
    mean_above = zeros.index_add(0, group, above)[group] / count.clamp(min=1)
    mean = low + mean_above
    deviation = torch.where(inside, above - mean_above, 0.0)
    squares = zeros.index_add(0, group, deviation**2)[group]
    if leave_one_out:
        # Removing x from n members: the mean moves by (mean - x)/(n - 1), squares shrink by n/(n - 1) (x - mean)^2.
        rest = (count - inside.to(values.dtype)).clamp(min=0)
        left = squares - deviation**2 * count / rest.clamp(min=1)
        squares = torch.where(left > 64 * torch.finfo(values.dtype).eps * squares, left, 0.0)
        mean = torch.where(rest > 0, mean - deviation / rest.clamp(min=1), 0.0)
        count = rest
    variance = torch.where(count > ddof, squares / (count - ddof).clamp(min=1), 0.0)
    return Statistics(mean, variance.sqrt(), count)


def check_options(eps: float = 0.0, singleton: str = "zero") -> None:
    """Refuse settings of :func:`relative` that cannot be used, before there is anything to reduce.

    Raises:
        InputError: an unknown ``singleton``, or an ``eps`` that is not 0 or more.
    """
    if singleton not in ("zero", "raw", "error"):
        raise InputError(f"singleton is {singleton!r}, expected 'zero', 'raw' or 'error'.")
    if not 0 <= eps < math.inf:
        raise InputError(f"eps is {eps}, expected 0 or more.")


def standardised(values: Tensor, std: Tensor, eps: float) -> Tensor:
    """Values divided by ``std + eps``; 0 where ``std`` is 0, since equal members leave nothing to compare."""
    return torch.where(std == 0, 0.0, values / torch.where(std == 0, 1.0, std + eps))


def relative(
    values: Tensor,
    group: Tensor,
    *,
    leave_one_out: bool = False,
    norm_by_std: bool = False,
    ddof: int = 1,
    eps: float = 1e-6,
    singleton: Singleton = "zero",
    shrunk: Tensor | None = None,
) -> Tensor:
    """Values against their group: minus the mean, perhaps divided by the standard deviation.

    Args:
        values: ``[n]``.
        group: ``[n]`` integers from 0.
        leave_one_out: the mean (never the deviation) leaves the row itself out.
        norm_by_std: divide by the group's standard deviation plus ``eps``.
        ddof: of the standard deviation.
        eps: added to the standard deviation.
        singleton: what a group of one gets: ``zero``; ``raw``, its own value with mean 0 and deviation 1, as several
            reference implementations do; or ``error``.
        shrunk: bool ``[n]``: the group lost members; when one is left it is dead, and gets 0 whatever ``singleton``.

    Raises:
        InputError: a group of one with ``singleton="error"``, an unknown ``singleton``, or a negative ``eps``.
    """
    check_options(eps, singleton)
    whole = statistics(values, group, ddof=ddof)
    mean = statistics(values, group, leave_one_out=True).mean if leave_one_out else whole.mean
    alone = whole.count == 1
    dead = alone if shrunk is None else alone & ~shrunk
    if singleton == "error" and bool(dead.any()):
        raise InputError(
            f"{int(dead.sum())} groups have one member, expected at least two to compare: sample more responses a "
            "prompt or choose singleton='zero'."
        )
    std = torch.where(alone, 1.0, whole.std)
    result = torch.where(alone, values, values - mean)
    if norm_by_std:
        result = standardised(result, std, eps)
    keep = dead if singleton == "raw" else torch.zeros_like(alone)
    return torch.where(alone & ~keep, 0.0, result)


def spread_within(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Largest minus smallest value of every group ``[n_groups]``: 0 means the group carries no comparison."""
    low = values.new_full((n_groups,), torch.inf).scatter_reduce(0, group, values, "amin")
    high = values.new_full((n_groups,), -torch.inf).scatter_reduce(0, group, values, "amax")
    return high - low


def number_text(*columns: Sequence[str | None]) -> Tensor:
    """Text keys as integers, equal text equal numbers; None equals only None."""
    seen: dict[tuple[str | None, ...], int] = {}
    return torch.tensor([seen.setdefault(key, len(seen)) for key in zip(*columns, strict=True)], dtype=torch.int64)
