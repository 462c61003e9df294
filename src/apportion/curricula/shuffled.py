"""The plain curriculum: every source's tasks in a shuffled order, again and again; sources drawn by weight."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from apportion.errors import InputError
from apportion.tasks.mixture import Part
from apportion.tasks.task import Task


class Shuffled:
    """Goes through each source in epochs, every epoch in an order of its own.

    Args:
        parts: sources with their weights.
        seed: of all orders.
    """

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        self.parts, self.seed = tuple(parts), seed
        self.cursors = {part.name: 0 for part in parts}
        self._order = lru_cache(maxsize=len(self.parts))(self._shuffle)

    def next(self, n: int, step: int) -> list[Task]:
        """The ``n`` tasks of a step."""
        rng = np.random.default_rng((self.seed, 0, step))
        chosen = rng.choice(len(self.parts), size=n, p=[part.weight for part in self.parts])
        return [self._advance(self.parts[index], index) for index in chosen]

    def _advance(self, part: Part, index: int) -> Task:
        epoch, place = divmod(self.cursors[part.name], len(part.train))
        self.cursors[part.name] += 1
        return part.train[int(self._order(index, epoch)[place])]

    def _shuffle(self, index: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 1 + index, epoch)).permutation(len(self.parts[index].train))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"cursors": dict(self.cursors)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: it was made with other task sources.
        """
        if set(state["cursors"]) != set(self.cursors):
            raise InputError(
                f"the checkpoint has task sources {sorted(state['cursors'])}, this run {sorted(self.cursors)}: "
                "resume with the sources the run began with."
            )
        self.cursors = dict(state["cursors"])
