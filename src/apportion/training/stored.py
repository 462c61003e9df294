"""Rollouts from a file, beside or in place of sampling: pairs, rehearsal sets, demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.store import read


class StoredRollouts:
    """Groups of a file in a shuffled order, again and again.

    Responses without an origin become ``stored``, and stored groups get negative ids, apart from all sampled ones.

    Args:
        path: a file of rollouts, .jsonl or .arrow.
        groups: how many groups a step takes.
        seed: of the order.

    Raises:
        InputError: the file cannot be read or is empty, or a pair spans two groups, which a step may tear apart.
    """

    def __init__(self, path: str, groups: int, seed: int) -> None:
        self.groups, self.seed, self.cursor = groups, seed, 0
        rollouts = read(Path(path))
        if not rollouts.n_groups:
            raise InputError(f"{path} holds no rollouts, expected at least one group.")
        pairs = rollouts.pairs
        if pairs is not None:
            group = rollouts.group_of_episode
            if bool((group[pairs.preferred] != group[pairs.other]).any()):
                raise InputError(f"{path} has a pair across two groups: give both episodes of a pair the same group.")
        if "response:origin" not in rollouts.columns:
            rollouts = rollouts.with_column("response:origin", ["stored"] * rollouts.n_responses, maker="stored")
        self.rollouts = rollouts

    @property
    def columns(self) -> tuple[str, ...]:
        """Full names of the columns the file brings."""
        return tuple(self.rollouts.columns)

    def next(self) -> Rollouts:
        """The groups of the next step."""
        n, chosen = self.rollouts.n_groups, []
        for _ in range(min(self.groups, n)):
            epoch, place = divmod(self.cursor, n)
            chosen.append(int(np.random.default_rng((self.seed, epoch)).permutation(n)[place]))
            self.cursor += 1
        group = self.rollouts.group_of_episode
        part = self.rollouts.select(torch.isin(group, torch.tensor(chosen)))
        ids = torch.unique(part.group_ids, return_inverse=True)[1]
        numbers = torch.tensor(sorted(set(chosen)))
        return part.with_groups(-1 - numbers[ids])

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"cursor": self.cursor}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.cursor = state["cursor"]
