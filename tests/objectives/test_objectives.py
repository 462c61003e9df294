"""How objectives combine, what they refuse, and single objectives beyond the common suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion import objectives
from apportion.credit import METHODS, Clock, Credit
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES, Loss, Now, Objective, Terms, add, bind, kl_estimate, token_objective
from apportion.objectives.aggregate import AGGREGATIONS
from apportion.rollouts import Rollouts
from objectives.batches import batch
from reference import losses

CLIP, KL, BONUS = OBJECTIVES["clip"](), OBJECTIVES["kl"](coefficient=0.5), OBJECTIVES["entropy_bonus"](coefficient=0.1)
NOW = ("log_probs", "entropy")


def total_log_prob(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
    """An objective over episodes."""
    value = now["log_probs"][credit.trained].sum() ** 2
    return Loss(value, {"total": value.detach()})


EPISODES = Objective("episode", ("log_probs",), evaluate=total_log_prob)


@pytest.mark.parametrize("parts", [(CLIP, KL), (CLIP, KL, BONUS), (CLIP,), (CLIP, EPISODES), (EPISODES, BONUS)])
def test_add_is_a_sum(parts: tuple[Objective, ...]) -> None:
    some = batch(1)
    now = some.now(NOW)
    whole = add(*parts)(now, some.rollouts, some.credit)
    each = [part(now, some.rollouts, some.credit) for part in parts]
    value = torch.stack([loss.value for loss in each]).sum()
    torch.testing.assert_close(whole.value, value, rtol=1e-12, atol=1e-12)
    assert {n: m.item() for n, m in whole.metrics.items()} == {
        n: m.item() for loss in each for n, m in loss.metrics.items()
    }
    slopes = [torch.autograd.grad(x, list(now.values()), allow_unused=True) for x in (whole.value, value)]
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_sum_declares_what_its_parts_declare() -> None:
    both = add(CLIP, KL, BONUS)
    assert both.scope == "token"
    assert both.now == ("log_probs", "entropy")
    assert both.needs == ("log_probs/old", "credit/advantages", "log_probs/reference")
    assert add(CLIP, EPISODES).scope == add(EPISODES, CLIP).scope == "episode"
    group = Objective("group", (), evaluate=total_log_prob, watches=("entropy",))
    assert add(EPISODES, group, CLIP).scope == "group"
    assert add(CLIP, group).watches == ("entropy",)
    with pytest.raises(InputError, match="no objectives to add"):
        add()


PART = CLIP.parts[0]


@pytest.mark.parametrize(
    ("scope", "evaluate", "parts"),
    [
        ("token", total_log_prob, ()),
        ("token", None, ()),
        ("token", total_log_prob, (PART,)),
        ("episode", None, (PART,)),
        ("group", None, ()),
        ("pair", total_log_prob, (PART,)),
        ("sentence", total_log_prob, ()),
    ],
)
def test_scopes_that_do_not_fit(scope: Any, evaluate: Any, parts: Any) -> None:
    with pytest.raises(InputError, match=r"expected one of|either token parts"):
        Objective(scope, ("log_probs",), evaluate=evaluate, parts=parts)


def test_only_sums_over_tokens_are_bound() -> None:
    some = batch(1)
    with pytest.raises(InputError, match="scope episode is not a sum over tokens, expected scope token"):
        bind(EPISODES, some.rollouts, some.credit)


def test_an_objective_may_be_evaluated_only_where_its_terms_are_not_zero() -> None:
    """Rows without advantage may be left out of the forward pass: weights are those of the whole batch."""
    some = batch(3)
    now = some.now(("log_probs",))
    whole = CLIP(now, some.rollouts, some.credit)
    kept = some.trained[some.credit.advantages[some.trained] != 0]
    assert len(kept) < len(some.trained)
    value, _ = bind(CLIP, some.rollouts, some.credit)({"log_probs": now["log_probs"][kept]}, kept)
    torch.testing.assert_close(value, whole.value, rtol=1e-12, atol=1e-12)


def test_dropped_episodes_have_no_share_in_the_loss() -> None:
    """Unknown rewards: no term, no share of the normaliser, and details of the credit may still be read."""
    told = Rollouts.from_lists([[1, 2], [1], [1, 3, 4]], groups=[0, 0, 0], rewards=[1.0, 0.0, None])
    credit = METHODS["tempo"](norm_by_std=False)(told, unscored="drop")

    def value_times_log_prob(now: Now, at: Mapping[str, Tensor]) -> Terms:
        return Terms(at["credit/prefix_value_after"] * now["log_probs"])

    column = "credit/prefix_value_after"
    objective = token_objective(value_times_log_prob, AGGREGATIONS["token_mean"](), ("log_probs",), (column,))
    log_probs = torch.tensor([-1.0, -2.0, -4.0, torch.nan, torch.nan, torch.nan], dtype=torch.float64)
    # The shared first token has value 1/2, the second token of the right answer 1.
    assert objective({"log_probs": log_probs}, told, credit).value.item() == pytest.approx((-0.5 - 2.0 - 2.0) / 3)


def test_a_credit_detail_that_nobody_made() -> None:
    some = batch(1)
    objective = token_objective(
        lambda now, at: Terms(now["log_probs"]), AGGREGATIONS["token_mean"](), (), ("credit/gone",)
    )
    with pytest.raises(MissingColumn, match="'credit/gone'"):
        objective(some.now(("log_probs",)), some.rollouts, some.credit)


def test_clip_metrics() -> None:
    rollouts = Rollouts.from_lists([[0, 1, 2, 3]], groups=[0], log_probs_old=[[-2.0] * 4])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    everything = torch.ones(4, dtype=torch.bool)
    credit = Credit(rollouts, advantages, everything, everything, {}, None, torch.zeros(1, dtype=torch.bool))
    log_probs = torch.tensor([2.0, 1.0, 0.5, 4.0], dtype=torch.float64).log() - 2.0
    loss = OBJECTIVES["clip"](low=0.2, high=0.28, dual=3.0)({"log_probs": log_probs}, rollouts, credit)
    # Clipped from above, inside, clipped from below, bounded by the dual clip.
    assert loss.value.item() == pytest.approx((-1.28 - 1.0 + 0.8 + 3.0) / 4)
    metrics = {name: metric.item() for name, metric in loss.metrics.items()}
    assert metrics == pytest.approx(
        {"clip_fraction": 0.5, "dual_clip_fraction": 0.25, "kl_old": -(log_probs + 2.0).mean().item()}
    )


def test_ratios_are_bounded() -> None:
    """Beyond 20 in the logarithm the ratio stands still and has no slope."""
    rollouts = Rollouts.from_lists([[0, 1]], groups=[0], log_probs_old=[[-50.0, -1.0]])
    everything = torch.ones(2, dtype=torch.bool)
    advantages = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    credit = Credit(rollouts, advantages, everything, everything, {}, None, torch.zeros(1, dtype=torch.bool))
    log_probs = torch.tensor([-1.0, -50.0], dtype=torch.float64, requires_grad=True)
    loss = CLIP({"log_probs": log_probs}, rollouts, credit).value
    loss.backward()
    assert loss.item() == pytest.approx(
        (torch.tensor(20.0).double().exp() - torch.tensor(-20.0).double().exp()).item() / 2
    )
    assert log_probs.grad is not None
    assert not log_probs.grad.any()


LOG_PROBS = st.lists(st.floats(-60, 0), min_size=1, max_size=6)


@pytest.mark.parametrize("estimator", ["k1", "abs", "k2", "k3"])
@given(log_probs=LOG_PROBS, other=st.floats(-60, 0))
def test_kl_estimates(estimator: str, log_probs: list[float], other: float) -> None:
    expected = [losses.kl_term(mine, other, estimator) for mine in log_probs]
    mine = torch.tensor(log_probs, dtype=torch.float64)
    estimate = kl_estimate(mine, torch.full_like(mine, other), estimator)
    torch.testing.assert_close(estimate, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_k3_is_positive_and_k1_right_on_average() -> None:
    policy, reference = (
        torch.tensor(p, dtype=torch.float64).softmax(0).log() for p in ([1.0, 0.0, -1.0], [0.0, 0.5, 0.0])
    )
    exact = (policy.exp() * (policy - reference)).sum()
    for estimator in ("k1", "k3"):
        torch.testing.assert_close((policy.exp() * kl_estimate(policy, reference, estimator)).sum(), exact)
    assert (kl_estimate(policy, reference, "k3") > 0).all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("clip", {"low": -0.1}, "low=-0.1"),
        ("clip", {"high": -0.1}, "high=-0.1"),
        ("clip", {"low": float("nan")}, "expected both 0 or more"),
        ("clip", {"high": float("inf")}, "expected both 0 or more"),
        ("clip", {"dual": 1.0}, "the dual clip is 1.0, expected more than 1"),
        ("clip", {"dual": -3.0}, "the dual clip is -3.0"),
        ("clip", {"dual": float("nan")}, "expected more than 1"),
        ("clip", {"aggregate": "mean"}, "unknown aggregation 'mean'"),
        ("kl", {"estimator": "k4"}, "unknown KL estimator 'k4'"),
        ("kl", {"aggregate": "token-mean"}, "did you mean 'token_mean'"),
        ("entropy_bonus", {"aggregate": "sum"}, "unknown aggregation"),
        ("imitation", {"aggregate": "sum"}, "unknown aggregation"),
    ],
)
def test_bad_settings_are_refused_when_the_objective_is_made(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES[name](**arguments)


def test_kl_estimates_of_nothing_that_fits() -> None:
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\), expected equal"):
        kl_estimate(torch.zeros(2), torch.zeros(3))
    with pytest.raises(InputError, match="unknown KL estimator"):
        kl_estimate(torch.zeros(2), torch.zeros(2), "k5")


def test_build() -> None:
    some = batch(1)
    now = some.now(NOW)
    built = objectives.build("clip(high=0.28)", "kl(coefficient=0.5)")
    by_hand = add(OBJECTIVES["clip"](high=0.28), KL)
    assert built(now, some.rollouts, some.credit).value == by_hand(now, some.rollouts, some.credit).value
    assert objectives.build("clip").needs == CLIP.needs


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (("clipp",), "did you mean 'clip'"),
        (("clip(hi=0.3)",), "unknown argument .* 'hi'"),
        (("os:getcwd",), r"'os:getcwd' made a str, expected an objectives.Objective"),
        (("clip", "os:getcwd"), r"'os:getcwd' made a str"),
        ((), "no objectives to add"),
    ],
)
def test_specs_that_build_nothing(specs: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        objectives.build(*specs)
