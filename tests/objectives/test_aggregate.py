"""Aggregations: against naive loops, by hand, and on batches that are cut."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import Credit
from apportion.errors import InputError
from apportion.objectives import AGGREGATIONS
from apportion.objectives.aggregate import aggregation
from apportion.rollouts import Rollouts
from objectives.batches import Batch, batch
from reference import losses

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("token_mean", {}),
    ("seq_mean_token_sum", {}),
    ("seq_mean_token_mean", {}),
    ("seq_mean_token_mean", {"divisor": 2.5}),
    ("seq_mean_token_sum_norm", {}),
    ("seq_mean_token_sum_norm", {"length": 7.0}),
    ("seq_mean_token_sum_norm", {"length": 7.0, "per_episode": False}),
    ("seq_mean_token_sum_norm", {"per_episode": False}),
]


def masked(trained: list[list[int]], counted: list[list[int]]) -> Credit:
    """A credit with these masks."""
    rollouts = Rollouts.from_lists([list(range(len(row))) for row in trained], groups=[0] * len(trained))
    flat = [torch.tensor([m for row in mask for m in row], dtype=torch.bool) for mask in (trained, counted)]
    zeros = torch.zeros(rollouts.n_tokens, dtype=torch.float64)
    return Credit(rollouts, zeros, *flat, {}, None, torch.zeros(rollouts.n_episodes, dtype=torch.bool))


def total(credit: Credit, terms: list[float], name: str, **settings: Any) -> float:
    weights = AGGREGATIONS[name](**settings)(credit.rollouts, credit)
    return (torch.tensor(terms, dtype=torch.float64) * weights)[credit.trained].sum().item()


def test_all_are_tested() -> None:
    assert {name for name, _ in SETTINGS} == set(AGGREGATIONS)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
@given(seed=st.integers(0, 2**32))
def test_equals_the_naive_loop(name: str, settings: dict[str, Any], seed: int) -> None:
    some: Batch = batch(seed, weighted=name == "token_mean" and seed % 2 == 0, silent=True)
    dice = random.Random(seed)
    terms = [dice.uniform(-2, 2) for _ in range(some.rollouts.n_tokens)]
    rows = some.rows(torch.tensor(terms, dtype=torch.float64))
    trained, counted, weight = (some.rows(x) for x in (some.credit.trained, some.credit.counted, some.rollouts.weight))
    expected = losses.aggregate(rows, trained, counted, name, weight=weight, **settings)
    assert total(some.credit, terms, name, **settings) == pytest.approx(expected, abs=1e-12)


# Terms 1, 2, 4 | 8, 16. Token 1 is trained and not counted, token 3 counted and not trained.
MASKS = masked([[1, 1, 1], [0, 1]], [[1, 0, 1], [1, 1]])
TERMS = [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("token_mean", {}, (1 + 2 + 4 + 16) / 4),
        ("seq_mean_token_sum", {}, (7 + 16) / 2),
        ("seq_mean_token_mean", {}, (7 / 2 + 16 / 2) / 2),
        ("seq_mean_token_sum_norm", {}, 23 / 3 / 2),
        ("seq_mean_token_sum_norm", {"length": 10}, 23 / 10 / 2),
        ("seq_mean_token_sum_norm", {"length": 10, "per_episode": False}, 23 / 10),
    ],
)
def test_terms_enter_where_trained_and_normalisers_count_where_counted(
    name: str, settings: dict[str, Any], expected: float
) -> None:
    assert total(MASKS, TERMS, name, **settings) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_an_episode_that_counts_nothing_is_no_episode(name: str, settings: dict[str, Any]) -> None:
    with_silent = masked([[1, 1, 1], [0, 0], [], [0, 1]], [[1, 0, 1], [0, 0], [], [1, 1]])
    terms = [1.0, 2.0, 4.0, torch.nan, torch.nan, 8.0, 16.0]
    assert total(with_silent, terms, name, **settings) == pytest.approx(total(MASKS, TERMS, name, **settings))


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_weights_are_those_of_the_whole_batch(name: str, settings: dict[str, Any]) -> None:
    """Cutting the batch first and weighing then would give another loss."""
    some = batch(8)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    weights = AGGREGATIONS[name](**settings)(some.rollouts, some.credit)
    halves = [some.select(half) for half in (first, second)]
    apart = torch.cat([AGGREGATIONS[name](**settings)(half.rollouts, half.credit) for half in halves])
    assert weights.shape == apart.shape == (some.rollouts.n_tokens,)
    depends_on_the_batch = settings not in ({"length": 7.0, "per_episode": False}, {"divisor": 2.5})
    assert torch.allclose(weights, apart) != depends_on_the_batch


def test_sampling_weights_enter_the_sum_and_the_normaliser() -> None:
    weighted = MASKS.rollouts.with_column("weight", torch.tensor([1.0, 0.5, 0.5, 0.25, 1.0]))
    credit = Credit(weighted, MASKS.advantages, MASKS.trained, MASKS.counted, {}, None, MASKS.unknown)
    assert total(credit, TERMS, "token_mean") == pytest.approx((1 + 1 + 2 + 16) / (1 + 0.5 + 0.25 + 1))


@pytest.mark.parametrize("name", sorted(set(AGGREGATIONS) - {"token_mean"}))
def test_whole_responses_are_needed_by_all_others(name: str) -> None:
    some = batch(1, weighted=True)
    with pytest.raises(InputError, match=r"branches that share a prefix: use aggregate='token_mean'"):
        AGGREGATIONS[name]()(some.rollouts, some.credit)
    even = some.rollouts.with_column("weight", torch.ones(some.rollouts.n_tokens))
    AGGREGATIONS[name]()(even, some.credit)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
@pytest.mark.parametrize("empty", [[], [[]], [[], []]])
def test_batches_without_tokens(name: str, settings: dict[str, Any], empty: list[list[int]]) -> None:
    credit = masked(empty, empty)
    assert AGGREGATIONS[name](**settings)(credit.rollouts, credit).shape == (0,)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("token-mean", "did you mean 'token_mean'"),
        ("seq_mean_token_sum_norm(length=0)", "length is 0, expected more than 0"),
        ("seq_mean_token_sum_norm(length=-5)", "length is -5, expected more than 0"),
        ("token_mean(length=5)", "unknown argument"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aggregation(spec)


def test_specs_and_functions() -> None:
    assert (
        aggregation("seq_mean_token_sum_norm(length=4, per_episode=False)")(MASKS.rollouts, MASKS).tolist()
        == [0.25] * 5
    )
    own = AGGREGATIONS["token_mean"]()
    assert aggregation(own) is own
