"""What stands out within every row of a ragged table.

Suffix legend: n elements of a ragged table, its rows end to end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.rollouts import ragged


def top_share(values: Tensor, offsets: Tensor, share: float) -> Tensor:
    """Bool ``[n]``: the ``ceil(share T)`` largest of every row's T values, at least one; of equal ones the earlier.

    Example:
        >>> top_share(torch.tensor([1.0, 3.0, 3.0, 5.0]), torch.tensor([0, 3, 4]), 0.3).tolist()
        [False, True, False, True]
    """
    count = (share * ragged.lengths_of(offsets).to(values.dtype) - 1e-12).ceil().clamp(min=1)
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[_descending(values, offsets)] = ragged.position_in_row(offsets) < count[ragged.row_of(offsets)]
    return chosen


def medians(values: Tensor, offsets: Tensor) -> Tensor:
    """Median of every row ``[rows]``, of the two in the middle their mean; 0 of an empty row."""
    ordered, length = values[_descending(values, offsets)], ragged.lengths_of(offsets)
    result = values.new_zeros(len(length))
    start, length = offsets[:-1][length > 0], length[length > 0]
    result[ragged.lengths_of(offsets) > 0] = (ordered[start + length // 2] + ordered[start + (length - 1) // 2]) / 2
    return result


def peak_before(values: Tensor, offsets: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """The largest of the up to ``reach`` values before every one in its row ``[n]``, and how far before it stands.

    Of equal ones the nearest; -inf and 0 at the beginning of a row.
    """
    peak, back = torch.full_like(values, -torch.inf), torch.zeros_like(values, dtype=torch.int64)
    place = ragged.position_in_row(offsets)
    longest = int(ragged.lengths_of(offsets).max()) if len(values) else 0
    for distance in range(1, min(reach, longest - 1) + 1):
        higher = (place[distance:] >= distance) & (values[:-distance] > peak[distance:])
        peak[distance:] = torch.where(higher, values[:-distance], peak[distance:])
        back[distance:][higher] = distance
    return peak, back


def _descending(values: Tensor, offsets: Tensor) -> Tensor:
    """The elements ``[n]`` row by row, in every row from the largest value to the smallest, equal ones in order."""
    order = torch.argsort(values, descending=True, stable=True)
    return order[torch.argsort(ragged.row_of(offsets)[order], stable=True)]
