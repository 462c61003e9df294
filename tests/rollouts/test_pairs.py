"""Some of the pairs of rollouts."""

from __future__ import annotations

import pytest
import torch

from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.pairs import with_some_pairs


def test_episodes_stay_and_columns_of_pairs_follow() -> None:
    rollouts = Rollouts.from_lists([[1], [2], [3]], groups=[0] * 3, rewards=[1.0, 0.0, 0.5])
    rollouts = rollouts.with_pairs(torch.tensor([0, 2, 0]), torch.tensor([1, 1, 2]))
    rollouts = rollouts.with_column("pair:margin", torch.tensor([1.0, 0.5, 0.25]))
    for kept in (torch.tensor([False, True, True]), torch.tensor([1, 2])):
        fewer = with_some_pairs(rollouts, kept)
        assert fewer.pairs is not None
        assert (fewer.pairs.preferred.tolist(), fewer.pairs.other.tolist()) == ([2, 0], [1, 2])
        assert fewer.column("pair:margin").tolist() == [0.5, 0.25]
        assert fewer.column("episode:reward/outcome").tolist() == [1.0, 0.0, 0.5]
    none = with_some_pairs(rollouts, torch.zeros(3, dtype=torch.bool))
    assert none.rows("pair") == 0
    with pytest.raises(InputError, match="no pairs, expected preferences"):
        with_some_pairs(Rollouts.from_lists([[1]], groups=[0]), torch.tensor([0]))
