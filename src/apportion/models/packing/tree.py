"""The tree that rows of tokens form, in depth-first order.

Every distinct prefix is one node. In depth-first order the descendants of a node are the nodes right after it, up to
one number, so that who may look at whom is two comparisons, and a chain of nodes without forks is one range.

Suffix legend: T tokens of all rows, U nodes, b rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apportion.rollouts import ragged


@dataclass(frozen=True)
class Segment:
    """A chain of nodes without a fork inside: ``[start, end)``, with all that follows it up to ``last``.

    Attributes:
        start: first node.
        end: one past the last node of the chain.
        last: one past the last descendant of the chain; ``end`` for a chain that ends in a leaf.
    """

    start: int
    end: int
    last: int


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """Rows as a tree (a forest, where they begin differently).

    Attributes:
        ids: token of every node ``[U]``.
        depths: how many nodes are above ``[U]``: its position in every row through it.
        lasts: one past the last descendant of every node ``[U]``; node k is seen from node q where
            ``k <= q < lasts[k]``.
        node_of_token: of every token of every row ``[T]``.
        segments: in order.
    """

    ids: Tensor
    depths: Tensor
    lasts: Tensor
    node_of_token: Tensor
    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return len(self.ids)


def prefix_tree(ids: Tensor, offsets: Tensor) -> PrefixTree:
    """The tree of some rows.

    Rows are sorted; a row then shares with the one before it all it shares with any before it, and what is left of it
    comes next in depth-first order.

    Args:
        ids: tokens of all rows end to end ``[T]``, none negative.
        offsets: ``[b + 1]``.

    Example:
        >>> tree = prefix_tree(torch.tensor([5, 6, 7, 5, 6, 8, 9]), torch.tensor([0, 3, 7]))
        >>> tree.ids.tolist(), tree.depths.tolist(), tree.lasts.tolist()
        ([5, 6, 7, 8, 9], [0, 1, 2, 2, 3], [5, 5, 3, 5, 5])
        >>> tree.node_of_token.tolist()
        [0, 1, 2, 0, 1, 3, 4]
        >>> [(s.start, s.end, s.last) for s in tree.segments]
        [(0, 2, 5), (2, 3, 3), (3, 5, 5)]
    """
    rows, bounds = rows_of(ids, offsets), offsets.tolist()
    total = len(ids)
    node_of_token, tokens, depths, lasts = (np.zeros(total, dtype=np.int64) for _ in range(4))
    size, path = 0, np.zeros(0, dtype=np.int64)
    for i, shared in in_order(rows):
        lasts[path[shared:]] = size  # these nodes have no further descendants
        new = np.arange(size, size + len(rows[i]) - shared)
        tokens[new], depths[new] = rows[i][shared:], np.arange(shared, len(rows[i]))
        path, size = np.concatenate([path[:shared], new]), size + len(new)
        node_of_token[bounds[i] : bounds[i + 1]] = path
    lasts[path] = size
    made = [
        torch.from_numpy(part).to(ids.device) for part in (tokens[:size], depths[:size], lasts[:size], node_of_token)
    ]
    return PrefixTree(made[0], made[1], made[2], made[3], _segments(depths[:size], lasts[:size]))


def rows_of(ids: Tensor, offsets: Tensor) -> list[np.ndarray]:
    """The rows of a ragged table of token ids."""
    flat = ids.cpu().numpy()
    return [flat[a:b] for a, b in itertools.pairwise(offsets.tolist())]


def in_order(rows: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Rows sorted, by number, each with how many tokens it shares with the one before it.

    Example:
        >>> list(in_order([np.array([5, 6, 8]), np.array([4]), np.array([5, 6, 7])]))
        [(1, 0), (2, 0), (0, 2)]
    """
    above = np.zeros(0, dtype=np.int64)
    # Big-endian bytes compare as the numbers do, in one call.
    for i in sorted(range(len(rows)), key=lambda i: rows[i].astype(">i8").tobytes()):
        yield i, _shared(above, rows[i])
        above = rows[i]


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two rows have in common at their beginning."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length


def _segments(depths: np.ndarray, lasts: np.ndarray) -> tuple[Segment, ...]:
    """A node goes on with the chain of the one before it if it is its only child."""
    if not len(depths):
        return ()
    goes_on = (depths[1:] == depths[:-1] + 1) & (lasts[1:] == lasts[:-1])
    starts = [0, *(np.flatnonzero(~goes_on) + 1).tolist()]
    ends = [*starts[1:], len(depths)]
    return tuple(Segment(s, e, int(lasts[e - 1])) for s, e in zip(starts, ends, strict=True))


def rows_with_prompts(
    prompt_ids: Tensor, prompt_offsets: Tensor, ids: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """Prompts and what follows them, end to end.

    Args:
        prompt_ids: of every row's prompt, end to end.
        prompt_offsets: ``[b + 1]``.
        ids: what follows, end to end.
        offsets: ``[b + 1]``.

    Returns:
        tokens ``[T]`` and offsets ``[b + 1]`` of the rows.

    Example:
        >>> rows = torch.tensor([1, 2, 3]), torch.tensor([0, 2, 3]), torch.tensor([7, 8]), torch.tensor([0, 0, 2])
        >>> [x.tolist() for x in rows_with_prompts(*rows)]
        [[1, 2, 3, 7, 8], [0, 2, 5]]
    """
    whole = prompt_offsets + offsets
    result = ids.new_zeros(int(whole[-1]))
    row = ragged.row_of(prompt_offsets)
    result[whole[row] + ragged.position_in_row(prompt_offsets)] = prompt_ids
    row = ragged.row_of(offsets)
    result[whole[row] + ragged.lengths_of(prompt_offsets)[row] + ragged.position_in_row(offsets)] = ids
    return result, whole
