"""Scans within rows against loops, and what they run over."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from torch import Tensor

from apportion.credit.recursions import (
    count_before,
    next_in_row,
    on_tokens,
    reverse_discounted_sum,
    reverse_running_min,
    row_ends,
    states_before,
    trained_tokens,
    whiten,
)
from apportion.errors import InputError
from apportion.rollouts import Rollouts, ragged
from credit.cases import close
from credit.worlds import DICE
from reference import returns


def table(dice: random.Random, longest: int = 20) -> tuple[list[list[float]], Tensor, Tensor]:
    """Rows of numbers, as lists and end to end; some empty."""
    rows = [[dice.uniform(-2, 2) for _ in range(dice.randint(0, longest))] for _ in range(dice.randint(0, 5))]
    values, offsets = ragged.flatten(rows, torch.float64)
    return rows, values, offsets


@given(dice=DICE)
def test_reverse_discounted_sum_equals_the_loop(dice: random.Random) -> None:
    rows, values, offsets = table(dice)
    discounts = [[dice.choice([0.0, 0.5, 1.0, 1.25]) for _ in row] for row in rows]
    given = values.clone()
    expected = ragged.flatten([returns.discounted(*row) for row in zip(rows, discounts, strict=True)], torch.float64)
    result = reverse_discounted_sum(values, offsets, ragged.flatten(discounts, torch.float64)[0])
    close(result, expected[0], atol=1e-10)
    assert torch.equal(values, given)


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
@given(dice=DICE)
def test_one_discount_for_all(discount: float, dice: random.Random) -> None:
    rows, values, offsets = table(dice)
    expected = ragged.flatten([returns.discounted(row, [discount] * len(row)) for row in rows], torch.float64)[0]
    close(reverse_discounted_sum(values, offsets, discount), expected, atol=1e-10)


def test_a_long_row_is_as_exact_as_a_loop() -> None:
    values = torch.arange(2**17 + 3, dtype=torch.float64) % 7 - 3
    offsets = torch.tensor([0, 5, len(values)])
    result = reverse_discounted_sum(values, offsets)
    assert torch.equal(result[5:], values[5:].flip(0).cumsum(0).flip(0))
    assert result[:5].tolist() == [-5.0, -2.0, 0.0, 1.0, 1.0]


@given(dice=DICE)
def test_reverse_running_min_equals_the_loop(dice: random.Random) -> None:
    rows, values, offsets = table(dice)
    expected = ragged.flatten([[min(row[t:]) for t in range(len(row))] for row in rows], torch.float64)[0]
    close(reverse_running_min(values, offsets), expected, atol=0)


@given(dice=DICE)
def test_what_follows_and_where_rows_end(dice: random.Random) -> None:
    rows, values, offsets = table(dice, longest=4)
    ends = torch.tensor([float(i) for i in range(len(rows))])
    expected = [[*row[1:], float(i)] if row else [] for i, row in enumerate(rows)]
    assert next_in_row(values, offsets, ends).tolist() == [x for row in expected for x in row]
    assert next_in_row(values, offsets).tolist() == [x for row in rows for x in [*row[1:], 0.0][: len(row)]]
    assert row_ends(offsets).tolist() == [t + 1 == len(row) for row in rows for t in range(len(row))]


def test_nothing_at_all() -> None:
    nothing, offsets = torch.zeros(0, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    for result in (reverse_discounted_sum(nothing, offsets), reverse_running_min(nothing, offsets)):
        assert result.shape == (0,)
    assert next_in_row(nothing, torch.zeros(3, dtype=torch.int64), torch.ones(2)).shape == (0,)


def test_the_trained_tokens_of_an_episode_go_on_across_responses() -> None:
    rollouts = Rollouts.from_lists(
        [[1, 2], [], [3, 4], [5]],
        groups=[0, 0, 0, 0],
        episodes=[0, 0, 0, 1],
        trained=[[1, 0], [], [1, 1], [0]],
    )
    tokens, offsets = trained_tokens(rollouts)
    assert tokens.tolist() == [0, 2, 3]
    assert offsets.tolist() == [0, 3, 3]
    assert on_tokens(torch.tensor([7.0, 8.0, 9.0]), tokens, 5).tolist() == [7.0, 0.0, 8.0, 9.0, 0.0]


@given(dice=DICE)
def test_whitening_equals_the_loop(dice: random.Random) -> None:
    values = [dice.uniform(-2, 2) for _ in range(dice.randint(2, 9))]
    [expected] = returns.whiten([values], [[True] * len(values)])
    close(whiten(torch.tensor(values, dtype=torch.float64)), torch.tensor(expected, dtype=torch.float64))
    assert whiten(torch.full((5,), 0.3, dtype=torch.float64)).abs().max() < 1e-4


@pytest.mark.parametrize("count", [0, 1])
def test_one_value_cannot_be_whitened(count: int) -> None:
    with pytest.raises(InputError, match=f"got {count} trained tokens to whiten, expected at least 2"):
        whiten(torch.zeros(count))


@given(dice=DICE)
def test_counts_before_an_element_equal_the_loop(dice: random.Random) -> None:
    rows, _, offsets = table(dice)
    counts = [[dice.randint(0, 3) for _ in row] for row in rows]
    expected = [sum(row[:t]) for row in counts for t in range(len(row))]
    flat = ragged.flatten(counts, torch.int64)[0]
    assert count_before(flat, offsets).tolist() == expected
    assert count_before(flat[:, None].repeat(1, 2), offsets).tolist() == [[n, n] for n in expected]


@given(dice=DICE)
def test_states_of_an_automaton_equal_the_loop(dice: random.Random) -> None:
    rows, values, offsets = table(dice)
    size = dice.randint(1, 4)
    maps = torch.tensor([[dice.randrange(size) for _ in range(size)] for _ in values], dtype=torch.int64)
    maps = maps.reshape(-1, size)
    given = maps.clone()
    expected, at = [], 0
    for row in rows:
        state = 0
        for _ in row:
            expected.append(state)
            state = int(maps[at, state])
            at += 1
    assert states_before(maps, offsets).tolist() == expected
    assert torch.equal(maps, given)
