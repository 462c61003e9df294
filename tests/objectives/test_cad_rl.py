"""CAD-RL's objective, and means over tokens that are weighted by a column."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import Credit
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.objectives.aggregate import aggregation
from apportion.rollouts import Rollouts
from objectives.batches import batch
from reference import losses

WEIGHTED = "seq_mean_token_mean(weight='precision_weight')"


def credited(ids: list[list[int]], weights: list[float], counted: list[bool] | None = None) -> Credit:
    rollouts = Rollouts.from_lists(ids, groups=[0] * len(ids), log_probs_old=[[-1.0] * len(row) for row in ids])
    rollouts = rollouts.with_column("precision_weight", torch.tensor(weights, dtype=torch.float64))
    ones = torch.ones(rollouts.n_tokens, dtype=torch.float64)
    mask = rollouts.trained if counted is None else torch.tensor(counted)
    return Credit(rollouts, ones, rollouts.trained, mask, {}, None, torch.zeros(len(ids), dtype=torch.bool))


@pytest.mark.parametrize("divisor", [None, 2.5])
@given(seed=st.integers(0, 2**32))
def test_weighted_means_equal_the_naive_loop(divisor: float | None, seed: int) -> None:
    dice = random.Random(seed)

    def weighted(rollouts: Rollouts) -> Rollouts:
        omega = torch.tensor([dice.choice([0.5, 1.0, 3.0]) for _ in range(rollouts.n_tokens)], dtype=torch.float64)
        return rollouts.with_statistic("omega", torch.where(rollouts.trained, omega, torch.nan), "given")

    some = batch(seed, prepare=weighted, silent=True)
    terms = torch.tensor([dice.uniform(-2, 2) for _ in range(some.rollouts.n_tokens)], dtype=torch.float64)
    weights = aggregation(f"seq_mean_token_mean(weight='omega', divisor={divisor})")(some.rollouts, some.credit)
    trained, counted = some.rows(some.credit.trained), some.rows(some.credit.counted)
    omega = some.rows(some.rollouts.column("omega"))
    expected = losses.aggregate(some.rows(terms), trained, counted, "seq_mean_token_mean", divisor=divisor, omega=omega)
    assert float((terms * weights)[some.credit.trained].sum()) == pytest.approx(expected, abs=1e-12)


def test_equal_weights_are_the_plain_mean() -> None:
    credit = credited([[1, 2, 3], [4]], [3.0] * 4)
    for spec in (WEIGHTED, "seq_mean_token_mean"):
        assert aggregation(spec)(credit.rollouts, credit).tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])


def test_precision_tokens_weigh_more_within_their_own_response() -> None:
    credit = credited([[1, 2, 3], [4]], [1.0, 2.0, 1.0, 5.0])
    assert aggregation(WEIGHTED)(credit.rollouts, credit).tolist() == pytest.approx([1 / 8, 2 / 8, 1 / 8, 1 / 2])


def test_tokens_that_do_not_count_are_no_share_of_the_weights() -> None:
    credit = credited([[1, 2], [3, 4]], [1.0, 3.0, 1.0, 1.0], counted=[True, False, False, False])
    weights = aggregation(WEIGHTED)(credit.rollouts, credit)
    assert weights[:2].tolist() == pytest.approx([1.0, 3.0])  # one episode counts, by its first token


def test_bad_weights() -> None:
    for wrong in (0.0, -1.0):
        credit = credited([[1, 2]], [1.0, wrong])
        with pytest.raises(InputError, match=f"'precision_weight' is {wrong:g} at some token, expected more than 0"):
            aggregation(WEIGHTED)(credit.rollouts, credit)
    bare = credited([[1]], [1.0])
    with pytest.raises(MissingColumn, match="needs the column 'other'"):
        aggregation("seq_mean_token_mean(weight='other')")(bare.rollouts, bare)


def value_at(ratio: float, advantage: float, **settings: Any) -> tuple[float, float]:
    """Loss and slope of one token."""
    credit = credited([[1]], [1.0])
    given = Credit(*(credit.rollouts, credit.advantages * advantage, credit.trained, credit.counted, {}, None),
                   credit.unknown)  # fmt: skip
    now = (torch.tensor([ratio], dtype=torch.float64).log() - 1).requires_grad_()
    loss = OBJECTIVES["cad_rl"](**settings)({"log_probs": now}, given.rollouts, given)
    loss.value.backward()
    assert now.grad is not None
    return float(loss.value.detach()), float(now.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.7, 1.0, -1.7, -1.7),  # PPO would have stopped at 1.2
        (1.9, 1.0, -1.8, 0.0),
        (0.5, 1.0, -0.5, -0.5),
        (0.7, -1.0, 0.7, 0.7),
        (0.5, -1.0, 0.6, 0.0),
        (1.9, -1.0, 1.9, 1.9),
    ],
)
def test_bounds_are_of_the_ratio_itself(ratio: float, advantage: float, loss: float, slope: float) -> None:
    assert value_at(ratio, advantage) == pytest.approx((loss, slope))


def test_it_is_clip_where_bounds_agree() -> None:
    assert OBJECTIVES["cad_rl"](weight=None).needs == OBJECTIVES["clip"]().needs
    assert value_at(1.3, 1.0, ratio_low=0.8, ratio_high=1.2) == pytest.approx((-1.2, 0.0))


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.8), (-0.1, 1.8), (1.0, 1.8), (0.6, 1.0), (0.2, 0.4), (0.6, float("inf"))]
)
def test_bounds_that_are_none(low: float, high: float) -> None:
    with pytest.raises(InputError, match=r"bounded by .*, expected 0 < ratio_low < 1 < ratio_high"):
        OBJECTIVES["cad_rl"](ratio_low=low, ratio_high=high)
