"""The shared reductions against naive loops."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit.reduce import Singleton, group_by, number_text, relative, spread_within, standardised, statistics
from apportion.errors import InputError
from credit.cases import close
from credit.worlds import DICE
from reference import outcome

FLOATS = st.lists(st.floats(-10, 10), min_size=1, max_size=12)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def numbered(dice: random.Random, rows: int) -> list[int]:
    """Groups of rows, some numbers without any."""
    return dice.choices([0, 1, 3], k=rows)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("some_members", [False, True])
@given(values=FLOATS, dice=DICE)
def test_statistics(
    leave_one_out: bool, ddof: int, some_members: bool, values: list[float], dice: random.Random
) -> None:
    groups = numbered(dice, len(values))
    members = [dice.random() < 0.6 for _ in values] if some_members else None
    given_statistics = statistics(
        tensor(values),
        torch.tensor(groups),
        members=None if members is None else torch.tensor(members),
        leave_one_out=leave_one_out,
        ddof=ddof,
    )
    mean, std, count = outcome.group_statistics(values, groups, members, leave_one_out, ddof)
    close(given_statistics.mean, tensor(mean))
    close(given_statistics.std, tensor(std), atol=1e-6)
    assert given_statistics.count.tolist() == count


def test_what_members_hold_matters_and_what_others_hold_does_not() -> None:
    values, group = tensor([1.0, 3.0, float("nan"), float("inf")]), torch.zeros(4, dtype=torch.int64)
    members = torch.tensor([True, True, False, False])
    everybody = statistics(values, group, members=members)
    assert everybody.mean.tolist() == [2.0] * 4
    others = statistics(values, group, members=members, leave_one_out=True)
    assert others.mean.tolist() == [3.0, 1.0, 2.0, 2.0]
    assert others.count.tolist() == [1.0, 1.0, 2.0, 2.0]


@given(value=st.floats(-1e6, 1e6), rows=st.integers(1, 9))
def test_equal_values_have_exactly_their_mean_and_no_deviation(value: float, rows: int) -> None:
    same, group = tensor([value] * rows), torch.zeros(rows, dtype=torch.int64)
    made = statistics(same, group)
    assert torch.equal(made.mean, same)
    assert not made.std.any()
    odd_one_out = statistics(tensor([value] * rows + [value + 1]), torch.zeros(rows + 1).long(), leave_one_out=True)
    assert odd_one_out.std[-1] == 0
    assert not relative(same, group, norm_by_std=True, eps=0.0).any()


def test_no_rows() -> None:
    nothing, nobody = tensor([]), torch.zeros(0, dtype=torch.int64)
    assert statistics(nothing, nobody).mean.shape == (0,)
    assert relative(nothing, nobody, norm_by_std=True, leave_one_out=True).shape == (0,)
    assert group_by(nobody)[1] == 0


@pytest.mark.parametrize("singleton", ["zero", "raw"])
@given(values=FLOATS, dice=DICE)
def test_relative(singleton: Singleton, values: list[float], dice: random.Random) -> None:
    groups = numbered(dice, len(values))
    rows, group = tensor(values), torch.tensor(groups)
    plain = relative(rows, group, leave_one_out=True, singleton=singleton)
    close(plain, tensor(outcome.rloo(values, groups, singleton=singleton)))
    for norm_by_std in (False, True):
        given_values = relative(rows, group, norm_by_std=norm_by_std, singleton=singleton, eps=1e-3)
        close(
            given_values,
            tensor(outcome.grpo(values, groups, norm_by_std=norm_by_std, eps=1e-3, singleton=singleton)),
        )


def test_relative_with_both_leaves_the_row_out_of_the_mean_only() -> None:
    values, group = tensor([1.0, 2.0, 6.0]), torch.zeros(3, dtype=torch.int64)
    given_values = relative(values, group, leave_one_out=True, norm_by_std=True, eps=0.5)
    std = outcome.deviation([1.0, 2.0, 6.0])
    close(given_values, tensor([-3.0, -1.5, 4.5]) / (std + 0.5))


def test_a_group_of_one_as_sampled_and_one_that_lost_its_others() -> None:
    values, group = tensor([5.0, 7.0]), torch.tensor([0, 1])
    lost = torch.tensor([False, True])
    assert relative(values, group, shrunk=lost).tolist() == [0.0, 0.0]
    assert relative(values, group, shrunk=lost, singleton="raw").tolist() == [5.0, 0.0]
    assert relative(values[1:], group[1:] - 1, shrunk=lost[1:], singleton="error").tolist() == [0.0]
    with pytest.raises(InputError, match="1 groups have one member, expected at least two"):
        relative(values, group, shrunk=lost, singleton="error")


@pytest.mark.parametrize("options", [{"singleton": "none"}, {"eps": -1e-9}, {"eps": float("nan")}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        relative(tensor([1.0]), torch.tensor([0]), **options)


def test_standardised() -> None:
    assert standardised(tensor([1.0, 1e-17, 3.0]), tensor([0.5, 0.0, 0.0]), 0.5).tolist() == [1.0, 0.0, 0.0]


@given(
    keys=st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([-(2**40), 0, 2**40])), max_size=10),
)
def test_group_by(keys: list[tuple[int, int]]) -> None:
    first = torch.tensor([a for a, _ in keys], dtype=torch.int64)
    second = torch.tensor([b for _, b in keys], dtype=torch.int64)
    index, count = group_by(first, second)
    ascending = sorted(set(keys))
    assert index.tolist() == [ascending.index(key) for key in keys]
    assert count == len(ascending)


def test_spread_within() -> None:
    spread = spread_within(tensor([1.0, 4.0, 2.0, 2.0]), torch.tensor([0, 0, 1, 1]), 2)
    assert spread.tolist() == [3.0, 0.0]


def test_number_text() -> None:
    assert number_text(["a", None, "a", "", None]).tolist() == [0, 1, 0, 2, 1]
    assert number_text(["a", "a", "b"], ["x", "y", "x"]).tolist() == [0, 1, 2]
