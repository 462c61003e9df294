"""One ratio a segment: by hand, what the units have in common, LOOP's averages, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.credit import METHODS, Credit
from apportion.errors import InputError
from apportion.objectives import OBJECTIVES, Objective
from apportion.objectives.segment_clip import segment_of_token
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import credit_of
from golden.adapters.loop import run as golden_loop
from objectives.batches import batch
from objectives.segments import in_macros, numbered

OLD = -1.0


def attempts(trained: list[list[int]], **given: Any) -> Rollouts:
    """Responses of which only the masks matter; every old log-prob is -1."""
    ids = [list(range(len(row))) for row in trained]
    old = [[OLD] * len(row) for row in trained]
    return Rollouts.from_lists(ids, groups=[0] * len(ids), trained=trained, log_probs_old=old, **given)


def loss(objective: Objective, rollouts: Rollouts, ratios: list[float], credit: Credit) -> tuple[float, dict, Tensor]:  # type: ignore[type-arg]
    """The loss at log-ratios [N], its metrics and its slope."""
    log_probs = torch.tensor([OLD + r for r in ratios], dtype=torch.float64, requires_grad=True)
    result = objective({"log_probs": log_probs}, rollouts, credit)
    (slope,) = torch.autograd.grad(result.value, log_probs)
    return result.value.item(), {n: v.item() for n, v in result.metrics.items()}, slope


def segment_clip(**settings: Any) -> Objective:
    return OBJECTIVES["segment_clip"](**settings)


def test_one_token_each_is_clip() -> None:
    given = batch(3)
    now = given.now(["log_probs"])
    for aggregate in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum"):
        clip = OBJECTIVES["clip"](low=0.1, high=0.3, aggregate=aggregate)
        same = segment_clip(unit="token", low=0.1, high=0.3, aggregate=aggregate)
        here, there = (o(now, given.rollouts, given.credit) for o in (clip, same))
        torch.testing.assert_close(here.value, there.value, rtol=0, atol=1e-14)
        assert here.metrics.keys() == there.metrics.keys()
        for name, metric in here.metrics.items():
            torch.testing.assert_close(metric, there.metrics[name])


@pytest.mark.parametrize("unit", ["run", "episode", "macro"])
def test_segments_of_one_token_are_tokens(unit: str) -> None:
    rollouts = attempts([[1], [1], [1]])
    one_each = rollouts.with_spans("macro", torch.arange(3), torch.arange(1, 4))
    credit = credit_of(one_each, [[1.0], [-2.0], [0.5]])
    for aggregate in ("token_mean", "seq_mean_token_mean(divisor=2)"):
        here, there = (
            loss(segment_clip(unit=u, aggregate=aggregate), one_each, [0.5, -0.5, 0.1], credit) for u in (unit, "token")
        )
        assert here[0] == pytest.approx(there[0], abs=1e-15)
        assert here[1] == pytest.approx(there[1], abs=1e-15)


def test_the_ratio_is_the_product_over_the_segment() -> None:
    rollouts = attempts([[1, 1, 0, 1]])
    credit = credit_of(rollouts, [[2.0] * 4])
    value, metrics, slope = loss(segment_clip(low=0.5), rollouts, [0.1, 0.2, 9.0, -0.05], credit)
    ratio = math.exp(0.25)
    assert value == pytest.approx(-2 * ratio)
    assert slope.tolist() == pytest.approx([-2 * ratio, -2 * ratio, 0.0, -2 * ratio])
    assert metrics == pytest.approx({"clip_fraction": 0.0, "kl_old": -0.25 / 3})


def test_a_run_ends_where_the_policy_did_not_write() -> None:
    rollouts = attempts([[1, 1, 0, 1], [1, 0]])
    credit = credit_of(rollouts, [[1.0] * 4, [-1.0] * 2])
    value, metrics, _ = loss(segment_clip(unit="run"), rollouts, [0.05, 0.1, 9.0, 0.3, -0.4, 9.0], credit)
    assert value == pytest.approx((-math.exp(0.15) - 1.2 + 0.8) / 3)
    assert metrics["clip_fraction"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("style", "advantage", "log_ratio", "expected"),
    [
        ("symmetric", 1.0, 1.0, -1.5),
        ("symmetric", -1.0, -1.0, 0.5),
        ("reciprocal", 1.0, 1.0, -1.5),
        ("reciprocal", -1.0, -1.0, 1 / 1.5),
        ("reciprocal", 1.0, -1.0, -math.exp(-1.0)),
        ("reciprocal", -1.0, 1.0, math.exp(1.0)),
    ],
)
def test_bounds(style: str, advantage: float, log_ratio: float, expected: float) -> None:
    rollouts = attempts([[1, 1]])
    objective = segment_clip(low=0.5, style=style)
    value, metrics, slope = loss(objective, rollouts, [log_ratio / 2] * 2, credit_of(rollouts, [[advantage] * 2]))
    assert value == pytest.approx(expected)
    assert metrics["clip_fraction"] == float(slope.eq(0).all())


def test_no_advantage_is_never_clipped() -> None:
    rollouts = attempts([[1, 1]])
    value, metrics, slope = loss(segment_clip(low=0.1), rollouts, [3.0, 3.0], credit_of(rollouts, [[0.0] * 2]))
    assert (value, metrics["clip_fraction"]) == (0.0, 0.0)
    assert not slope.any()


def test_a_ratio_beyond_all_measure_stays_finite() -> None:
    rollouts = attempts([[1] * 400])
    value, _, slope = loss(segment_clip(), rollouts, [2.0] * 400, credit_of(rollouts, [[-1.0] * 400]))
    assert value == pytest.approx(math.exp(20))
    assert not slope.any()


def test_different_advantages_in_a_segment_are_averaged() -> None:
    rollouts = attempts([[1, 1]])
    assert loss(segment_clip(), rollouts, [0.0, 0.0], credit_of(rollouts, [[1.0, 0.5]]))[0] == -0.75


def test_turns_stored_as_one_response_or_as_several() -> None:
    """With turn spans a run ends with the turn, whether a tool said something or not."""
    growing = attempts([[1, 1, 0, 1, 1, 1]]).with_spans("turn", torch.tensor([0, 3, 5]), torch.tensor([2, 5, 6]))
    separate = attempts([[1, 1], [1, 1], [1]], episodes=[0, 0, 0])
    ratios = [0.05, 0.1, 9.0, 0.02, 0.01, -0.3]
    here = loss(segment_clip(unit="run"), growing, ratios, credit_of(growing, [[1.5] * 6]))
    there = loss(
        segment_clip(unit="run"), separate, ratios[:2] + ratios[3:], credit_of(separate, [[1.5] * 2, [1.5] * 2, [1.5]])
    )
    assert here[0] == pytest.approx(there[0], abs=1e-15)
    assert here[1] == pytest.approx(there[1], abs=1e-15)
    assert here[0] == pytest.approx(-1.5 * (math.exp(0.15) + math.exp(0.03) + math.exp(-0.3)) / 3)


def test_what_lies_outside_the_turns_ends_with_the_episode() -> None:
    rollouts = attempts([[1, 1], [1, 1]]).with_spans("turn", torch.tensor([0]), torch.tensor([1]))
    assert segment_of_token(rollouts, credit_of(rollouts), "run").unique().numel() == 3


@pytest.mark.parametrize("unit", ["run", "episode", "macro"])
@pytest.mark.parametrize("seed", range(5))
def test_segments_as_a_loop(unit: str, seed: int) -> None:
    given = batch(seed, prepare=in_macros)
    found = segment_of_token(given.rollouts, given.credit, unit)
    trained = given.rollouts.trained.nonzero().squeeze(1).tolist()
    expected = numbered(given.rollouts, unit)
    pairs = {(int(found[t]), expected[t]) for t in trained}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_a_token_filtered_out_of_a_segment_does_not_split_it() -> None:
    rollouts = attempts([[1, 1, 1]])
    credit = credit_of(rollouts, [[1.0] * 3])
    keep = torch.tensor([True, False, True])
    filtered = replace(credit, trained=keep, counted=keep)
    value, metrics, _ = loss(segment_clip(unit="run"), rollouts, [0.1, 9.0, 0.05], filtered)
    assert value == pytest.approx(-math.exp(0.15))
    assert metrics["clip_fraction"] == 0.0


# LOOP


def test_long_episodes_weigh_like_short_ones() -> None:
    rollouts = attempts([[1] * 6, [1, 1]])
    credit = credit_of(rollouts, [[1.0] * 6, [1.0] * 2])
    for action in ("token", "turn", "trajectory"):
        _, _, slope = loss(OBJECTIVES["loop"](action=action), rollouts, [0.0] * 8, credit)
        sums = [part.sum().item() for part in slope.split([6, 2])]
        scale = {"token": [1.0, 1.0], "turn": [6.0, 2.0], "trajectory": [6.0, 2.0]}[action]
        assert sums == pytest.approx([-s / 2 for s in scale])


@pytest.mark.parametrize("divisor", [None, 3, 32])
def test_the_filter_does_not_scale_the_rest_up(divisor: int | None) -> None:
    rewards = [1.0, 0.0, 0.5]
    rollouts = attempts([[1, 1], [1, 1, 1], [1]], rewards=rewards)
    every, some = (METHODS["loop"](min_abs_advantage=least)(rollouts) for least in (0.0, 0.01))
    objective = OBJECTIVES["loop"](divisor=divisor)
    ratios = [0.05, 0.02, -0.03, 0.2, 0.0, 0.01]
    assert some.trained.tolist() == [True] * 5 + [False]
    assert loss(objective, rollouts, ratios, every)[0] == pytest.approx(loss(objective, rollouts, ratios, some)[0])
    fixed = loss(OBJECTIVES["loop"](divisor=1), rollouts, ratios, some)[0]
    assert loss(objective, rollouts, ratios, some)[0] == pytest.approx(fixed / (divisor or 3))


def test_a_turn_case_of_the_card() -> None:
    given = {"turn_old_logprobs": [[-1.0, -1.0], [-0.5]], "turn_logprobs": [[-0.95, -0.9], [-0.7]], "advantage": 2.0}
    result = golden_loop(**given, clip_eps=0.1, clip_style="reciprocal", action="turn")
    assert float(result["loss"]) == pytest.approx(-(2 * 1.1 + 2 * math.exp(-0.2)) / 2)


def test_wider_units_are_clipped_more_often() -> None:
    """The card's demonstration: log-ratios with deviation 0.02 over a thousand tokens, eps 0.1."""
    rollouts = attempts([[1] * 1000] * 100)
    generator = torch.Generator().manual_seed(0)
    ratios = (torch.randn(100_000, generator=generator, dtype=torch.float64) * 0.02).tolist()
    credit = credit_of(rollouts, [[1.0] * 1000] * 100)
    share = {
        action: loss(OBJECTIVES["loop"](action=action), rollouts, ratios, credit)[1]["clip_fraction"]
        for action in ("token", "trajectory")
    }
    assert share["token"] == 0.0
    assert share["trajectory"] > 0.3


# What is refused


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("segment_clip", {"low": 0.0}, r"clip bounds are low=0.0, high=0.0, expected both above 0"),
        ("segment_clip", {"low": 0.1, "high": -1.0}, r"clip bounds are low=0.1, high=-1.0, expected both above 0"),
        ("segment_clip", {"low": math.inf}, "clip bounds are low=inf"),
        ("segment_clip", {"style": "symetric"}, "unknown style 'symetric': did you mean 'symmetric'"),
        ("segment_clip", {"aggregate": "mean"}, "unknown aggregation 'mean'"),
        ("loop", {"eps": 0.0}, "clip bounds are low=0.0"),
        ("loop", {"action": "run"}, "unknown action 'run'"),
        ("loop", {"divisor": 0.5}, "divisor is 0.5, expected at least 1"),
    ],
)
def test_bad_settings(name: str, settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES[name](**settings)


def test_spans_that_are_not_there() -> None:
    rollouts = attempts([[1, 1]]).with_spans("thought", torch.tensor([0]), torch.tensor([2]))
    with pytest.raises(InputError, match=r"is 'macro', of which .* expected one of token, run, episode, thought:"):
        loss(segment_clip(unit="macro"), rollouts, [0.0, 0.0], credit_of(rollouts))


def test_tokens_outside_the_spans() -> None:
    rollouts = attempts([[1, 1, 0]]).with_spans("macro", torch.tensor([0]), torch.tensor([1]))
    every = credit_of(rollouts)
    counted = replace(every, trained=torch.tensor([True, False, False]))
    for credit in (every, counted):
        with pytest.raises(InputError, match="1 tokens that train or count lie in no span of kind 'macro'"):
            loss(segment_clip(unit="macro"), rollouts, [0.0] * 3, credit)
    filtered = replace(counted, counted=counted.trained)
    assert loss(segment_clip(unit="macro"), rollouts, [0.1, 9.0, 9.0], filtered)[0] == pytest.approx(-math.exp(0.1))


def test_reinforce_is_the_gradient_of_clip_at_the_policy_that_sampled() -> None:
    given = batch(4)
    old = ragged.flatten(given.rows(given.rollouts.columns["token:log_probs/old"].tensor), torch.float64)[0]
    for aggregate in ("token_mean", "seq_mean_token_mean"):
        now = torch.where(given.credit.trained, old, torch.nan).requires_grad_()
        slopes = [
            torch.autograd.grad(
                OBJECTIVES[name](aggregate=aggregate)({"log_probs": now}, given.rollouts, given.credit).value, now
            )[0]
            for name in ("reinforce", "clip")
        ]
        torch.testing.assert_close(*slopes)
