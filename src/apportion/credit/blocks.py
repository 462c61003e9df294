"""Large rollouts a few groups at a time: what a method makes on the way stays small enough to be used again.

A C library gives an array of tens of megabytes back to the system as soon as it is freed, and the next one costs a page
fault every 4 kB, which is more than most methods compute. Where the credit of a group depends on nothing outside it,
groups may be credited in any portions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from apportion.rollouts import Column, Rollouts
from apportion.rollouts.columns import split_name

TOKENS = 1 << 20
"""Of a block, where its last group does not add to them: 8 MiB an array of float64."""


def blocks_of(rollouts: Rollouts, tokens: int = TOKENS) -> list[tuple[int, int]]:
    """Ranges of episodes ``[first, last)`` that hold whole groups and about so many tokens each.

    One range for all where the episodes of a group do not lie next to each other, where pairs may join groups, or where
    there are no more tokens than that.

    Example:
        >>> four = Rollouts.from_lists([[1, 2]] * 4, groups=[7, 7, 3, 3], rewards=[0.0] * 4)
        >>> blocks_of(four, tokens=3)
        [(0, 2), (2, 4)]
    """
    ids = rollouts.group_ids
    everything = [(0, rollouts.n_episodes)]
    if rollouts.n_tokens <= tokens or rollouts.pairs is not None:
        return everything
    begins = torch.cat([ids.new_ones(1, dtype=torch.bool), ids[1:] != ids[:-1]]).nonzero().squeeze(1)
    if len(begins) != rollouts.n_groups:
        return everything
    block = rollouts.episode_offsets[begins] // tokens
    firsts = begins[torch.cat([block.new_ones(1, dtype=torch.bool), block[1:] != block[:-1]])].tolist()
    return list(zip(firsts, [*firsts[1:], rollouts.n_episodes], strict=True))


class Joined:
    """Columns of some rollouts, filled from those of their consecutive parts.

    Args:
        whole: the rollouts.
        maker: of the columns.
    """

    def __init__(self, whole: Rollouts, maker: str) -> None:
        self.whole, self.maker = whole, maker
        self._columns: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._done: Counter[str] = Counter()

    def add(self, part: Rollouts, columns: Mapping[str, Column]) -> None:
        """The columns of the part that comes next."""
        for name, column in columns.items():
            level = split_name(name)[0]
            if name not in self._columns:
                rows = self.whole.rows(level)
                values = column.tensor.new_zeros((rows, *column.tensor.shape[1:]))
                self._columns[name] = values, torch.zeros(rows, dtype=torch.bool, device=values.device)
            rows_here = slice(self._done[level], self._done[level] + len(column))
            values, present = self._columns[name]
            values[rows_here] = column.tensor
            present[rows_here] = True if column.present is None else column.present
        for level in ("token", "response", "episode", *self.whole.spans):
            self._done[level] += part.rows(level)

    def columns(self) -> dict[str, Column]:
        """All of them; rows that no part had are missing."""
        return {
            name: Column(values, None if bool(present.all()) else present, self.maker)
            for name, (values, present) in self._columns.items()
        }
