"""What runs backwards through the rows of a ragged table, and over the trained tokens of an episode.

Every recursion is a scan by doubling: after the d-th pass an element knows about the 2^d elements from it on, so a
row of length L takes log2(L) vectorised passes.

Suffix legend: N tokens, n elements of a ragged table (often the trained tokens), E episodes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import Rollouts, ragged


def trained_tokens(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """The trained tokens of every episode in order, across its responses: their numbers ``[n]``, offsets ``[E + 1]``.

    Example:
        >>> rollouts = Rollouts.from_lists([[7, 8], [9]], groups=[0, 0], trained=[[0, 1], [1]], episodes=[0, 0])
        >>> [x.tolist() for x in trained_tokens(rollouts)]
        [[1, 2], [0, 2]]
    """
    tokens = rollouts.trained.nonzero().squeeze(1)
    return tokens, ragged.offsets_of(torch.bincount(rollouts.episode_of_token[tokens], minlength=rollouts.n_episodes))


def on_tokens(values: Tensor, tokens: Tensor, n_tokens: int) -> Tensor:
    """Values ``[n]`` of some tokens as values of all ``[N]``, 0 elsewhere."""
    return values.new_zeros(n_tokens).index_put_((tokens,), values)


def reverse_discounted_sum(values: Tensor, offsets: Tensor, discount: Tensor | float = 1.0) -> Tensor:
    """What is still to come, within every row.

        y_t = x_t + a_t y_{t+1},    y = 0 after the end of the row

    With a constant ``a`` this is the discounted return; with ``a = gamma lambda`` on temporal differences it is GAE.

    Args:
        values: x ``[n]``, rows end to end.
        offsets: of the rows.
        discount: a, one number or one an element ``[n]``; an entry at the end of a row is not read.

    Example:
        >>> reverse_discounted_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 3]), 0.5).tolist()
        [2.0, 2.0, 4.0]
    """
    total = values.clone()
    carry = values.new_full((len(values),), discount) if not isinstance(discount, Tensor) else discount.to(values)
    carry = torch.where(row_ends(offsets), 0.0, carry)  # beyond the end of a row nothing is carried
    for step in _doublings(offsets):
        total[:-step] = total[:-step] + carry[:-step] * total[step:]
        carry[:-step] = carry[:-step] * carry[step:]
    return total


def reverse_running_min(values: Tensor, offsets: Tensor) -> Tensor:
    """The smallest from every element on, within every row: ``y_t = min(x_t, y_{t+1})``.

    Example:
        >>> reverse_running_min(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 3])).tolist()
        [1.0, 1.0, 2.0]
    """
    lowest, left = values.clone(), ragged.lengths_of(offsets)[ragged.row_of(offsets)]
    left = left - ragged.position_in_row(offsets)
    for step in _doublings(offsets):
        lower = torch.minimum(lowest[:-step], lowest[step:])
        lowest[:-step] = torch.where(left[:-step] > step, lower, lowest[:-step])
    return lowest


def next_in_row(values: Tensor, offsets: Tensor, end: Tensor | float = 0.0) -> Tensor:
    """The following element of the row; after the last, ``end`` (one number, or one a row).

    Example:
        >>> next_in_row(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 3])).tolist()
        [2.0, 0.0, 0.0]
    """
    filled = ragged.lengths_of(offsets) > 0
    result = torch.cat([values[1:], values[:1]])
    result[offsets[1:][filled] - 1] = end[filled].to(values) if isinstance(end, Tensor) else end
    return result


def row_ends(offsets: Tensor) -> Tensor:
    """Bool ``[n]``: the last element of every row."""
    ends = torch.zeros(int(offsets[-1]), dtype=torch.bool, device=offsets.device)
    ends[offsets[1:][ragged.lengths_of(offsets) > 0] - 1] = True
    return ends


def whiten(values: Tensor) -> Tensor:
    """Values with mean 0 and standard deviation 1, as verl computes it.

        mu  = sum x / (n + 1e-8)
        var = sum (x - mu)^2 / (n + 1e-8) * n/(n - 1)
        (x - mu) / sqrt(var + 1e-8)

    Raises:
        InputError: fewer than two values.
    """
    count = len(values)
    if count < 2:
        raise InputError(f"got {count} trained tokens to whiten, expected at least 2: pass whiten=False.")
    mean = values.sum() / (count + 1e-8)
    variance = ((values - mean) ** 2).sum() / (count + 1e-8) * (count / (count - 1))
    return (values - mean) * (variance + 1e-8) ** -0.5


def _doublings(offsets: Tensor) -> list[int]:
    """1, 2, 4, ... below the length of the longest row."""
    longest = int(ragged.lengths_of(offsets).max()) if len(offsets) > 1 else 0
    return [1 << i for i in range(math.ceil(math.log2(longest)))] if longest > 1 else []
