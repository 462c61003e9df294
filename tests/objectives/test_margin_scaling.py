"""MM-DPO beyond the common suite: the range of beta, its limits, the batch form, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS, Clock
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.objectives.margin_scaling import scaled_beta
from apportion.rewards.pairing import pair_by_reward
from apportion.rollouts import Rollouts


def paired(chosen: list[float], margins: list[float] | None = None) -> tuple[Rollouts, torch.Tensor]:
    """Answers of one token; every pair's u is ``chosen``, since all else is -1."""
    n = len(chosen)
    rollouts = Rollouts.from_lists([[0]] * 2 * n, groups=[0] * 2 * n, log_probs_reference=[[-1.0]] * 2 * n)
    rollouts = rollouts.with_pairs(torch.arange(n), torch.arange(n, 2 * n))
    if margins is not None:
        rollouts = rollouts.with_column("pair:margin", torch.tensor(margins, dtype=torch.float64))
    now = torch.tensor([*(u - 1 for u in chosen), *[-1.0] * n], dtype=torch.float64)
    return rollouts, now


def evaluated(rollouts: Rollouts, now: torch.Tensor, clock: Clock | None = None, **settings: Any) -> Any:
    leaf = now.clone().requires_grad_()
    loss = OBJECTIVES["mm_dpo"](**settings)({"log_probs": leaf}, rollouts, METHODS["none"]()(rollouts), clock)
    if loss.value.requires_grad:
        loss.value.backward()
    return loss, leaf.grad


@given(
    margins=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6),
    w=st.floats(0, 5),
    k=st.floats(1e-3, 20),
)
def test_beta_stays_in_its_range(margins: list[float], w: float, k: float) -> None:
    given = torch.tensor(margins, dtype=torch.float64)
    beta = scaled_beta(given, 0.1, w, k, 1e-3)
    assert bool((beta >= 1e-3).all())
    assert bool((beta <= 0.1 * (1 + w) + 1e-15).all())
    assert bool((beta[given >= 0] >= 0.1 - 1e-15).all())
    assert bool((beta[given <= 0] <= 0.1 + 1e-15).all())


def test_a_margin_by_hand() -> None:
    rollouts, now = paired([0.5, -0.25], [2.0, -1.0])
    loss, slopes = evaluated(rollouts, now, beta=0.2, w=0.5, k=1.0, imitate=0.0)
    betas = [0.2 * (1 + 0.5 * (1 - math.exp(-2))), 0.2 * (1 + 0.5 * (1 - math.exp(1)))]
    each = [math.log1p(math.exp(-betas[0] * 0.5)), math.log1p(math.exp(betas[1] * 0.25))]
    assert loss.value.item() == pytest.approx(sum(each) / 2)
    assert loss.metrics["beta"].item() == pytest.approx(sum(betas) / 2)
    weights = [b / (1 + math.exp(b * u)) / 2 for b, u in zip(betas, (0.5, -0.25), strict=True)]
    assert slopes.tolist() == pytest.approx([*(-x for x in weights), *weights])


def test_without_weight_and_imitation_it_is_dpo() -> None:
    rollouts, now = paired([0.5, -0.25, 2.0], [2.0, -1e9, 0.0])
    loss, _ = evaluated(rollouts, now, beta=0.3, w=0.0, imitate=0.0)
    plain = OBJECTIVES["dpo"](beta=0.3)({"log_probs": now}, rollouts, METHODS["none"]()(rollouts))
    assert loss.value.item() == pytest.approx(plain.value.item(), rel=1e-14)


def test_equal_margins_of_zero_are_dpo_whatever_the_weight() -> None:
    rollouts, now = paired([0.5, -0.25], [0.0, 0.0])
    plain = OBJECTIVES["dpo"](beta=0.3)({"log_probs": now}, rollouts, METHODS["none"]()(rollouts))
    assert evaluated(rollouts, now, beta=0.3, w=5.0, imitate=0.0)[0].value.item() == pytest.approx(plain.value.item())


def test_imitation_is_a_mean_over_the_tokens_of_chosen_answers() -> None:
    rollouts = Rollouts.from_lists(
        [[1, 2, 3], [4], [5]], groups=[0] * 3, log_probs_reference=[[-1.0] * 3, [-1.0], [-1.0]]
    ).with_pairs(torch.tensor([0, 1]), torch.tensor([2, 2]))
    rollouts = rollouts.with_column("pair:margin", torch.zeros(2))
    now = torch.tensor([-1.0, -2.0, -3.0, -6.0, -9.0], dtype=torch.float64)
    loss, _ = evaluated(rollouts, now)
    assert loss.metrics["imitation_loss"].item() == pytest.approx((1 + 2 + 3 + 6) / 4)
    weighted = rollouts.with_column("pair:weight", torch.tensor([1.0, 3.0]))
    assert evaluated(weighted, now)[0].metrics["imitation_loss"].item() == pytest.approx((6 + 3 * 6) / (3 + 3))
    both = [evaluated(rollouts, now, imitate=x)[0].value.item() for x in (0.0, 2.0)]
    assert both[1] - both[0] == pytest.approx(2 * 3)


def test_the_margins_of_pairing_by_reward_are_read() -> None:
    rollouts = Rollouts.from_lists(
        [[0]] * 4, groups=[0] * 4, rewards=[1.0, 0.0, 0.75, 0.25], log_probs_reference=[[-1.0]] * 4
    )
    both = pair_by_reward(rollouts)
    loss, _ = evaluated(both, torch.full((4,), -1.0, dtype=torch.float64), w=1.0, k=1.0, beta=1.0)
    assert loss.metrics["beta"].item() == pytest.approx(2 - (math.exp(-1) + math.exp(-0.5)) / 2)


def test_the_batch_form_is_one_beta_that_follows_from_seed_and_step() -> None:
    u = [3.0, -1.0, 0.5, 0.25, -4.0]
    rollouts, now = paired(u)

    def beta(seed: int, step: int, **settings: Any) -> float:
        loss, _ = evaluated(rollouts, now, Clock(step, 9), scaling="batch", seed=seed, beta=1.0, w=0.5, **settings)
        return loss.metrics["beta"].item()

    # Four of five are drawn, so beta is one of five values, by which is left out.
    possible = [1 + 0.5 * ((sum(u) - out) / 4 - sum(u) / 5) for out in u]
    seen = {round(beta(seed, step), 12) for seed in range(4) for step in range(20)}
    assert seen <= {round(value, 12) for value in possible}
    assert len(seen) > 1
    assert beta(1, 2) == beta(1, 2)
    outliers = [beta(0, step) for step in range(200)]
    of_far, of_near = (sum(abs(b - possible[i]) < 1e-9 for b in outliers) for i in (4, 3))
    assert of_far > 3 * of_near  # what is far from the mean is seldom drawn
    assert beta(0, 0, beta_min=7.0) == 7.0


def test_the_batch_form_holds_its_beta_constant() -> None:
    u = [3.0, -1.0]
    rollouts, now = paired(u)
    loss, slopes = evaluated(rollouts, now, Clock(0, 1), scaling="batch", beta=1.0, w=0.5, imitate=0.0)
    b = loss.metrics["beta"].item()
    assert slopes[:2].tolist() == pytest.approx([-b / (1 + math.exp(b * x)) / 2 for x in u])


def test_the_batch_form_needs_no_margin_but_pairs_and_a_clock() -> None:
    assert OBJECTIVES["mm_dpo"](scaling="batch").needs == ("log_probs/reference",)
    with pytest.raises(InputError, match="got one pair, expected two or more"):
        evaluated(*paired([1.0]), Clock(0, 1), scaling="batch")
    with pytest.raises(InputError, match="was given no clock"):
        evaluated(*paired([1.0, 2.0]), scaling="batch")
    assert evaluated(*paired([]), Clock(0, 1), scaling="batch")[0].value.item() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0, expected more than 0"),
        ({"w": -0.1}, "w is -0.1, expected 0 or more"),
        ({"k": 0.0}, "k is 0.0, expected more than 0"),
        ({"k": float("inf")}, "k is inf, expected more than 0"),
        ({"beta_min": 0.0}, "beta_min is 0.0, expected more than 0"),
        ({"imitate": -1.0}, "imitate is -1.0, expected 0 or more"),
        ({"scaling": "group"}, "unknown scaling 'group'"),
        ({"seed": -1}, "the seed is -1, expected 0 or more"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES["mm_dpo"](**settings)


def test_pairs_without_margins() -> None:
    with pytest.raises(MissingColumn, match=r"'pair:margin'.*apportion rollout --pairs"):
        evaluated(*paired([1.0]))
    rollouts, now = paired([1.0, 2.0])
    holed = rollouts.with_column("pair:margin", torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    with pytest.raises(InputError, match="at 1 rows where it is missing"):
        evaluated(holed, now)
    tied = holed.with_column("pair:tie", torch.tensor([False, True]))  # nothing is read of a tie
    assert evaluated(tied, now)[0].value.isfinite()
