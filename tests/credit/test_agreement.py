"""Agreement of methods: equal to plain loops, stable, and silent where there is nothing to say."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion.credit import agreement
from apportion.credit.agreement import FEWEST, Agreement, correlations, disagreement, moments, ranks
from apportion.errors import InputError
from reference import agreement as naive

DICE = st.integers(0, 2**32).map(random.Random)


def drawn(dice: random.Random, n: int, methods: int = 3) -> list[list[float]]:
    """Rows of credit with ties and zeros, methods on scales of their own."""
    return [[dice.choice([0, 0, 1, -1, 2, dice.gauss(0, 1)]) * 10.0**m for m in range(methods)] for _ in range(n)]


def tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(given: Tensor, expected: float | None) -> None:
    if expected is None:
        assert math.isnan(float(given))
    else:
        assert float(given) == pytest.approx(expected, abs=1e-12)


@given(dice=DICE, size=st.integers(1, 30))
def test_equals_the_plain_loops(dice: random.Random, size: int) -> None:
    parts = [drawn(dice, size), drawn(dice, dice.randint(1, 9))]
    taken = Agreement(3)
    for part in parts:
        taken.add(tensor(part), torch.tensor(dice.choices([-5, 0, 7], k=len(part))))
    rows = [row for part in parts for row in part]
    columns = list(zip(*rows, strict=True))
    assert taken.tokens == len(rows)
    for i in range(3):
        close(taken.earning().value[i], naive.earning(columns[i]))
        close(taken.rms()[i] / 10**i, naive.rms(columns[i]) / 10**i)
        for j in range(3):
            close(taken.pearson().value[i, j], naive.pearson(columns[i], columns[j]))
            close(taken.same_sign().value[i, j], naive.same_sign(columns[i], columns[j]))
            of_parts = [([r[i] for r in part], [r[j] for r in part]) for part in parts]
            close(taken.spearman().value[i, j], naive.spearman_of_parts(of_parts))
    apart = disagreement(tensor(rows), taken.rms())
    torch.testing.assert_close(apart, torch.tensor(naive.disagreement(rows), dtype=torch.float64))


@given(dice=DICE, size=st.integers(1, 20))
def test_of_one_part_it_is_the_usual_rank_correlation(dice: random.Random, size: int) -> None:
    rows = drawn(dice, size, 2)
    taken = Agreement(2)
    taken.add(tensor(rows), torch.zeros(size, dtype=torch.int64))
    close(taken.spearman().value[0, 1], naive.spearman(*zip(*rows, strict=True)))
    expected = [(r - 0.5) / size for r in naive.ranks([row[0] for row in rows])]
    assert ranks(tensor(rows))[:, 0].tolist() == pytest.approx(expected)


@given(dice=DICE)
def test_parts_and_groups_make_no_difference_to_pearson(dice: random.Random) -> None:
    rows = tensor(drawn(dice, 24))
    group = torch.tensor(dice.choices(range(5), k=24))
    whole, parts = Agreement(3), Agreement(3)
    whole.add(rows, torch.zeros(24, dtype=torch.int64))
    for g in group.unique():
        parts.add(rows[group == g], group[group == g])
    torch.testing.assert_close(parts.pearson().value, whole.pearson().value, equal_nan=True)
    torch.testing.assert_close(parts.same_sign().value, whole.same_sign().value, equal_nan=True)
    assert parts.groups == len(group.unique())


def test_a_large_constant_hides_nothing_and_makes_nothing_up() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    group = torch.arange(200) // 10
    expected = correlations(moments(values, group))
    torch.testing.assert_close(correlations(moments(values + 1e6, group)), expected, rtol=0, atol=1e-6)
    constant = torch.stack([torch.full((200,), 0.1, dtype=torch.float64), values[:, 0]], dim=1)
    assert correlations(moments(constant, group)).isnan().tolist() == [[True, True], [True, False]]


def credit_of(groups: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = torch.randint(1, 9, (groups,), generator=generator)
    group = torch.repeat_interleave(torch.arange(groups), size)
    shared = torch.randn(groups, 1, generator=generator, dtype=torch.float64)[group]
    return shared + torch.randn(len(group), 2, generator=generator, dtype=torch.float64), group


def test_intervals_are_of_resampled_groups() -> None:
    values, group = credit_of(30)
    taken = Agreement(2)
    taken.add(values, group)
    found = taken.pearson()
    dice = random.Random(1)
    rows = [[values[group == g].tolist() for g in range(30)][g] for g in range(30)]
    again = []
    for _ in range(2000):
        picked = [row for g in dice.choices(range(30), k=30) for row in rows[g]]
        again.append(naive.pearson(*zip(*picked, strict=True)))
    ordered = sorted(r for r in again if r is not None)
    assert float(found.low[0, 1]) == pytest.approx(ordered[50], abs=0.03)
    assert float(found.high[0, 1]) == pytest.approx(ordered[1950], abs=0.03)
    assert float(found.high[0, 1] - found.low[0, 1]) > 0.1


def test_weights_are_repetitions() -> None:
    values, group = credit_of(6)
    of = moments(values, group)
    twice = torch.cat([torch.arange(len(values)), (group == 2).nonzero().squeeze(1)])
    weights = torch.ones(1, 6, dtype=torch.float64)
    weights[0, 2] = 2
    expected = correlations(moments(values[twice], group[twice]))
    torch.testing.assert_close(correlations(of, weights)[0], expected)


def test_resamples_in_chunks_are_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, group = credit_of(20)
    taken = Agreement(2)
    taken.add(values, group)
    numbers: list[Callable[[], agreement.Estimate]] = [taken.pearson, taken.spearman, taken.same_sign, taken.earning]
    whole = [number() for number in numbers]
    monkeypatch.setattr(agreement, "CHUNK", 20 * 4 * 7)
    for number, expected in zip(numbers, whole, strict=True):
        given = number()
        assert torch.equal(given.low, expected.low)
        assert torch.equal(given.high, expected.high)


def test_few_groups_have_no_intervals() -> None:
    for groups, there in ((FEWEST - 1, False), (FEWEST, True)):
        values, group = credit_of(groups)
        taken = Agreement(2)
        taken.add(values, group)
        assert bool(taken.pearson().low.isfinite().all()) == there
        assert taken.pearson().value.isfinite().all()


def test_a_method_that_earns_in_one_group_has_no_interval() -> None:
    # Most resamples lack the group, and there is no correlation in them.
    values, group = credit_of(20)
    values[group != 3, 1] = 0
    taken = Agreement(2)
    taken.add(values, group)
    assert taken.pearson().value[0, 1].isfinite()
    assert taken.pearson().low[0, 1].isnan()
    assert taken.same_sign().low[0, 1].isnan()
    assert taken.earning().low.isfinite().all()


def test_no_credit_has_no_correlation_and_no_scale() -> None:
    taken = Agreement(2)
    taken.add(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]), torch.tensor([0, 1]))
    taken.add(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert taken.pearson().value[0, 1].isnan()
    assert taken.spearman().value[0, 1].isnan()
    assert taken.same_sign().value[0, 1].isnan()
    assert taken.earning().value.tolist() == [1.0, 0.0]
    assert disagreement(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0, 0.0])).tolist() == [0.5]


def test_scale_does_not_decide_who_is_apart() -> None:
    values = tensor([[1.0, 100.0], [-1.0, 100.0], [1.0, -100.0]])
    rms = torch.tensor([1.0, 100.0], dtype=torch.float64)
    assert disagreement(values, rms).tolist() == [0.0, 2.0, 2.0]


def test_one_method_is_not_compared() -> None:
    with pytest.raises(InputError, match="got 1 methods, expected at least two to compare"):
        Agreement(1)
