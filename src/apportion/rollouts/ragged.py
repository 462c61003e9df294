"""Index arithmetic on ragged rows stored end to end.

Row i of a ragged array occupies ``[offsets[i], offsets[i + 1])``. Everything here is vectorised and linear.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def offsets_of(lengths: Tensor) -> Tensor:
    """Start of every row and the end of the last: ``[n + 1]`` from lengths ``[n]``."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def lengths_of(offsets: Tensor) -> Tensor:
    """Length of every row ``[n]`` from offsets ``[n + 1]``."""
    return offsets[1:] - offsets[:-1]


def row_of(offsets: Tensor) -> Tensor:
    """For every element, the row it belongs to.

    Example:
        >>> row_of(torch.tensor([0, 2, 2, 3])).tolist()
        [0, 0, 2]
    """
    lengths = lengths_of(offsets)
    return torch.repeat_interleave(torch.arange(len(lengths), device=offsets.device), lengths)


def position_in_row(offsets: Tensor) -> Tensor:
    """For every element, its 0-based position inside its row."""
    return torch.arange(int(offsets[-1]), device=offsets.device) - offsets[:-1][row_of(offsets)]


def ranges(starts: Tensor, ends: Tensor) -> Tensor:
    """The elements of the half-open ranges ``[starts, ends)``, one after another.

    Example:
        >>> ranges(torch.tensor([5, 0]), torch.tensor([7, 1])).tolist()
        [5, 6, 0]
    """
    offsets = offsets_of(ends - starts)
    return position_in_row(offsets) + starts[row_of(offsets)]


def sum_rows(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of every row; an empty row sums to 0."""
    total = values.new_zeros((len(offsets) - 1, *values.shape[1:]))
    return total.index_add_(0, row_of(offsets), values)


def flatten(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Python rows to ``(values, offsets)``."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    values = torch.tensor([value for row in rows for value in row], dtype=dtype)
    return values, offsets_of(lengths)


def unflatten(values: Tensor, offsets: Tensor) -> list[list[Any]]:
    """The inverse of :func:`flatten`."""
    flat, bounds = values.tolist(), offsets.tolist()
    return [flat[start:end] for start, end in itertools.pairwise(bounds)]
