"""LOOP's advantages: who is in the baseline, the deviation, the filter, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS, Claim
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from credit.cases import close
from reference import baselines


def attempts(rewards: list[float], groups: list[int] | None = None) -> Rollouts:
    """One token each."""
    return Rollouts.from_lists([[1]] * len(rewards), groups=groups or [0] * len(rewards), rewards=rewards)


@given(
    rewards=st.lists(st.floats(-100, 100), min_size=2, max_size=8),
    baseline=st.sampled_from(["leave_one_out", "leave_none_out"]),
    normalize=st.booleans(),
)
def test_arbitrary_returns(rewards: list[float], baseline: str, normalize: bool) -> None:
    groups = [i % 2 for i in range(len(rewards))] if len(rewards) > 3 else [0] * len(rewards)
    credit = METHODS["loop"](baseline=baseline, normalize=normalize, min_abs_advantage=0.0)(attempts(rewards, groups))
    expected = baselines.loop(rewards, groups, baseline=baseline, normalize=normalize)
    torch.testing.assert_close(credit.advantages, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_without_filter_it_is_rloo_and_with_the_whole_mean_dr_grpo() -> None:
    rollouts = attempts([1.0, 0.25, 0.0, 0.5], [0, 0, 0, 1])
    plain = METHODS["loop"](min_abs_advantage=0.0)(rollouts).advantages
    close(plain, METHODS["rloo"]()(rollouts).advantages, atol=0)
    whole = METHODS["loop"](min_abs_advantage=0.0, baseline="leave_none_out")(rollouts).advantages
    close(whole, METHODS["dr_grpo"]()(rollouts).advantages, atol=0)


def test_the_deviation_is_the_populations() -> None:
    credit = METHODS["loop"](normalize=True, baseline="leave_none_out")(attempts([1.0, 0.0]))
    assert credit.advantages.tolist() == [1.0, -1.0]
    others = METHODS["loop"](normalize=True)(attempts([1.0, 0.0]))
    assert others.advantages.tolist() == [2.0, -2.0]


def test_a_deviation_next_to_nothing_is_floored() -> None:
    credit = METHODS["loop"](normalize=True, baseline="leave_none_out", min_abs_advantage=0.0)(attempts([2e-9, 0.0]))
    assert credit.advantages.tolist() == pytest.approx([0.01, -0.01])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("baseline", ["leave_one_out", "leave_none_out"])
def test_equal_returns_are_exactly_zero(normalize: bool, baseline: str) -> None:
    method = METHODS["loop"](normalize=normalize, baseline=baseline, min_abs_advantage=0.0)
    assert not method(attempts([0.1] * 3 + [0.7] * 6, [0] * 3 + [1] * 6)).advantages.any()


def test_what_is_filtered_counts() -> None:
    credit = METHODS["loop"](min_abs_advantage=0.3)(attempts([1.0, 0.75, 0.5, 0.0], [0, 0, 1, 1]))
    assert credit.advantages.tolist() == [0.0, 0.0, 0.5, -0.5]
    assert credit.trained.tolist() == [False, False, True, True]
    assert credit.counted.all()


def test_everything_filtered_trains_nothing() -> None:
    credit = METHODS["loop"]()(attempts([0.5, 0.5]))
    assert not credit.trained.any()


def test_a_group_of_one() -> None:
    alone = attempts([0.7, 1.0, 0.0], [5, 2, 2])
    assert METHODS["loop"]()(alone).advantages.tolist() == [0.0, 1.0, -1.0]
    for normalize in (True, False):
        assert METHODS["loop"](singleton="raw", normalize=normalize)(alone).advantages[0] == 0.7
    with pytest.raises(InputError, match="1 groups have one member, expected at least two to compare"):
        METHODS["loop"](singleton="error")(alone)


@pytest.mark.parametrize("singleton", ["raw", "error"])
def test_a_group_that_dropping_leaves_with_one_is_dead(singleton: str) -> None:
    rollouts = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[0.7, None])
    credit = METHODS["loop"](singleton=singleton)(rollouts, unscored="drop")
    assert credit.advantages.tolist() == [0.0, 0.0]
    assert credit.counted.tolist() == [True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "leave_two_out"}, "unknown baseline 'leave_two_out': did you mean"),
        ({"min_abs_advantage": -0.01}, "threshold is -0.01, expected 0 or more"),
        ({"singleton": "skip"}, "singleton is 'skip', expected"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        METHODS["loop"](**settings)


def test_claims() -> None:
    assert METHODS["loop"](min_abs_advantage=0.0).bias.claim is Claim.EXACT
    assert METHODS["loop"](min_abs_advantage=0.0, baseline="leave_none_out").bias.claim is Claim.EXACT_UP_TO_SCALE
    assert METHODS["loop"]().bias.claim is Claim.BIASED
    assert METHODS["loop"](min_abs_advantage=0.0, normalize=True).bias.claim is Claim.BIASED
