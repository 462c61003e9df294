"""What runs through the rows of a ragged table, most of it backwards, and over the trained tokens of an episode.

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
    # Two buffers that take turns: on large batches fresh memory for every pass costs more than the arithmetic.
    next_total, next_carry = torch.empty_like(total), torch.empty_like(carry)
    for step in _doublings(offsets):
        torch.addcmul(total[:-step], carry[:-step], total[step:], out=next_total[:-step])
        torch.mul(carry[:-step], carry[step:], out=next_carry[:-step])
        next_total[-step:], next_carry[-step:] = total[-step:], carry[-step:]
        total, next_total, carry, next_carry = next_total, total, next_carry, carry
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


def count_before(counts: Tensor, offsets: Tensor) -> Tensor:
    """What every row has counted before each element: ``y_t = x_1 + ... + x_{t-1}``, of integers ``[n]`` or ``[n, k]``.

    Example:
        >>> count_before(torch.tensor([1, 0, 1, 1]), torch.tensor([0, 3, 4])).tolist()
        [0, 1, 1, 0]
    """
    before = counts.cumsum(0) - counts
    return before - before[offsets[:-1][ragged.row_of(offsets)]]


def states_before(transition: Tensor, offsets: Tensor) -> Tensor:
    """The state an automaton is in before every element, when it begins every row in state 0.

        s_1 = 0,    s_{t+1} = f_t(s_t)

    Maps are composed by doubling, forwards.

    Args:
        transition: f ``[n, K]``: where every element takes each of K states, as integers from 0.
        offsets: of the rows.

    Returns:
        ``[n]``.

    Example:
        >>> up = torch.tensor([[1, 2, 2], [0, 1, 2], [1, 2, 2], [1, 2, 2]])
        >>> states_before(up, torch.tensor([0, 3, 4])).tolist()
        [0, 1, 1, 0]
    """
    place = ragged.position_in_row(offsets)
    through = transition.clone()
    for step in _doublings(offsets):
        later = (place >= step).nonzero().squeeze(1)  # the step elements that come before it are in its row
        through[later] = through[later].gather(1, through[later - step])
    before = torch.zeros_like(place)
    inside = (place > 0).nonzero().squeeze(1)
    before[inside] = through[inside - 1, 0]
    return before


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
