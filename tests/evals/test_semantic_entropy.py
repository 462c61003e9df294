"""Entropy of the planning phrases used."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.annotations.planning_grams import mark
from apportion.errors import InputError
from apportion.evals.semantic_entropy import semantic_entropy
from apportion.rollouts import Rollouts
from reference import planning as naive


@given(dice=st.integers(0, 2**32).map(random.Random))
def test_it_is_that_of_the_naive_loop(dice: random.Random) -> None:
    counts = [dice.choice([0, 0, 1, 3, 1000]) for _ in range(dice.randint(0, 6))]
    expected = naive.entropy(counts) if sum(counts) else 0.0
    assert semantic_entropy(torch.tensor(counts, dtype=torch.int64)) == pytest.approx(expected, abs=1e-12)


def test_of_rollouts() -> None:
    rollouts = Rollouts.from_lists([[1, 2, 1, 2], [3, 4]], groups=[0, 0])
    counts = mark(rollouts, [[1, 2], [3, 4], [9]]).counts
    assert semantic_entropy(counts) == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert semantic_entropy(mark(rollouts, [[1, 2]]).counts) == 0.0
    assert semantic_entropy(mark(rollouts, []).counts) == 0.0


def test_a_negative_count() -> None:
    with pytest.raises(InputError, match="a count is -1, expected 0 or more"):
        semantic_entropy(torch.tensor([2, -1]))
