"""Every occurrence of some sequences in rows of integers, found by walking a trie from all places at once.

Suffix legend: n elements of a ragged table, R rows, O occurrences, g sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.rollouts import ragged


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Where sequences were found, ascending by length and then by place; overlapping ones included.

    Attributes:
        starts: first element ``[O]``.
        ends: one past the last ``[O]``.
        sequence: which of the sequences ``[O]``; of equal ones the first.
    """

    starts: Tensor
    ends: Tensor
    sequence: Tensor

    def mask(self, length: int) -> Tensor:
        """Bool ``[length]``: the elements inside any of them."""
        change = torch.zeros(length + 1, dtype=torch.int64, device=self.starts.device)
        ones = torch.ones_like(self.starts)
        change.index_add_(0, self.starts, ones).index_add_(0, self.ends, -ones)
        return change.cumsum(0)[:length] > 0


def occurrences(values: Tensor, offsets: Tensor, sequences: Sequence[Sequence[int]]) -> Occurrences:
    """Find sequences within rows. Linear in the elements, for sequences up to a given length.

    Args:
        values: ``[n]`` integers, rows end to end.
        offsets: of the rows ``[R + 1]``.
        sequences: what to look for ``[g]``, none of them empty.

    Example:
        >>> found = occurrences(torch.tensor([5, 6, 5, 6, 5]), torch.tensor([0, 3, 5]), [[5, 6], [6, 5]])
        >>> found.starts.tolist(), found.sequence.tolist(), found.mask(5).tolist()
        ([0, 1, 3], [0, 1, 1], [True, True, True, True, True])
    """
    alphabet = sorted({value for sequence in sequences for value in sequence})
    keys, children, complete = (part.to(values.device) for part in _trie(sequences, alphabet))
    symbol = _look_up(torch.tensor(alphabet, dtype=torch.int64, device=values.device), values)
    left = offsets[1:][ragged.row_of(offsets)] - torch.arange(len(values), device=values.device)
    place = (symbol >= 0).nonzero().squeeze(1)
    node = torch.zeros_like(place)
    found = [values.new_zeros((3, 0))]
    for depth in range(max(map(len, sequences), default=0)):
        inside = left[place] > depth
        place, node = place[inside], node[inside]
        after = symbol[place + depth]
        edge = torch.where(after >= 0, _look_up(keys, node * len(alphabet) + after), -1)
        place, node = place[edge >= 0], children[edge[edge >= 0]]
        which = complete[node]
        done = place[which >= 0]
        found.append(torch.stack([done, done + depth + 1, which[which >= 0]]))
    return Occurrences(*torch.cat(found, dim=1))


def _trie(sequences: Sequence[Sequence[int]], alphabet: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """A trie, as tensors.

    Returns:
        edges as ``node * len(alphabet) + symbol``, ascending; the node every edge leads to; and for every node the
        sequence that ends there, or -1. Node 0 is the root.
    """
    symbol_of = {value: symbol for symbol, value in enumerate(alphabet)}
    edges: dict[int, int] = {}
    complete = [-1]
    for number, sequence in enumerate(sequences):
        node = 0
        for value in sequence:
            node = edges.setdefault(node * len(alphabet) + symbol_of[value], len(complete))
            if node == len(complete):
                complete.append(-1)
        if complete[node] < 0:
            complete[node] = number
    ordered = sorted(edges.items())
    keys, children = (torch.tensor([edge[i] for edge in ordered], dtype=torch.int64) for i in (0, 1))
    return keys, children, torch.tensor(complete)


def _look_up(ascending: Tensor, values: Tensor) -> Tensor:
    """Places of values in a sorted table ``[n]``; -1 where they are not in it."""
    if not len(ascending):
        return torch.full_like(values, -1)
    place = torch.searchsorted(ascending, values).clamp(max=len(ascending) - 1)
    return torch.where(ascending[place] == values, place, -1)
