"""GRPO and RLOO beyond the common suite: arbitrary rewards, groups of one, how they relate, bad settings."""

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
from reference import outcome

REWARDS = st.lists(st.floats(-100, 100), min_size=1, max_size=8)


def one_token_each(rewards: list[float], groups: list[int]) -> Rollouts:
    return Rollouts.from_lists([[1]] * len(rewards), groups=groups, rewards=rewards)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(rewards=REWARDS)
def test_arbitrary_rewards(rewards: list[float]) -> None:
    groups = [i % 2 for i in range(len(rewards))]
    rollouts = one_token_each(rewards, groups)
    for norm_by_std in (True, False):
        expected = outcome.grpo(rewards, groups, norm_by_std=norm_by_std, eps=1e-6)
        close(METHODS["grpo"](norm_by_std=norm_by_std)(rollouts).advantages, tensor(expected), atol=1e-7)
    close(METHODS["rloo"]()(rollouts).advantages, tensor(outcome.rloo(rewards, groups)), atol=1e-7)


@given(rewards=st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_rloo_is_grpo_without_std_times_n_over_n_minus_1(rewards: list[float]) -> None:
    rollouts = one_token_each(rewards, [0] * len(rewards))
    n = len(rewards)
    grpo = METHODS["grpo"](norm_by_std=False)(rollouts).advantages
    close(METHODS["rloo"]()(rollouts).advantages, grpo * n / (n - 1))


@pytest.mark.parametrize(
    ("method", "raw"), [("grpo", 0.7 / (1 + 1e-6)), ("rloo", 0.7), ("grpo(norm_by_std=False)", 0.7)]
)
def test_groups_of_one(method: str, raw: float) -> None:
    name, _, argument = method.partition("(")
    arguments: dict[str, Any] = {"norm_by_std": False} if argument else {}
    alone = one_token_each([0.7, 1.0, 0.0], [5, 2, 2])
    assert METHODS[name](**arguments)(alone).advantages[0] == 0
    assert METHODS[name](singleton="raw", **arguments)(alone).advantages[0].item() == pytest.approx(raw, abs=1e-12)
    with pytest.raises(InputError, match="1 groups have one member"):
        METHODS[name](singleton="error", **arguments)(alone)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("singleton", ["raw", "error"])
def test_a_group_that_dropping_leaves_with_one_is_dead_whatever_singleton_says(method: str, singleton: str) -> None:
    rollouts = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[0.7, None])
    credit = METHODS[method](singleton=singleton)(rollouts, unscored="drop")
    assert credit.advantages.tolist() == [0.0, 0.0]
    assert credit.counted.tolist() == [True, False]


@pytest.mark.parametrize("method", ["grpo", "rloo", "tempo"])
def test_another_component(method: str) -> None:
    rollouts = one_token_each([1.0, 0.0], [0, 0]).with_reward("style", tensor([0.0, 1.0]))
    style = METHODS[method](component="style")(rollouts).advantages
    assert torch.equal(style, METHODS[method]()(rollouts).advantages.flip(0))
    assert METHODS[method](component="style").needs == ("reward/style",)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("grpo", {"eps": -1e-6}),
        ("grpo", {"eps": float("nan")}),
        ("grpo", {"eps": float("inf")}),
        ("grpo", {"singleton": "skip"}),
        ("rloo", {"singleton": "skip"}),
        ("tempo", {"eps": -1.0}),
        ("tempo", {"eps": float("nan")}),
    ],
)
def test_bad_settings_are_refused_when_the_method_is_made(method: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        METHODS[method](**arguments)


def test_claims() -> None:
    assert METHODS["rloo"]().bias.claim is Claim.EXACT
    assert METHODS["grpo"](norm_by_std=False).bias.claim is Claim.EXACT_UP_TO_SCALE
    assert METHODS["grpo"]().bias.claim is Claim.BIASED
    assert METHODS["tempo"]().bias.claim is Claim.BIASED
    assert str(METHODS["rloo"]().bias) == "exact"
    assert str(METHODS["grpo"](norm_by_std=False).bias).startswith("exact up to scale: the mean includes")


def test_the_claims_hold_on_a_bandit() -> None:
    """Expected policy gradient of a two-armed bandit in groups of three, by enumeration: RLOO's is the true one."""
    p = 0.3
    grad_log = {1: 1 - p, 0: -p}  # of the logit of arm 1, whose reward is 1
    expected = {"rloo": 0.0, "grpo": 0.0}
    for arms in ((a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)):
        chance = torch.tensor([p if arm else 1 - p for arm in arms]).prod().item()
        rollouts = one_token_each([float(arm) for arm in arms], [0, 0, 0])
        for method, arguments in (("rloo", {}), ("grpo", {"norm_by_std": False})):
            advantages = METHODS[method](**arguments)(rollouts).advantages.tolist()
            expected[method] += chance * sum(a * grad_log[arm] for a, arm in zip(advantages, arms, strict=True)) / 3
    true = p * (1 - p)
    assert expected["rloo"] == pytest.approx(true, abs=1e-7)
    assert expected["grpo"] == pytest.approx(true * 2 / 3, abs=1e-7)
