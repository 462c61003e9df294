"""The overlong penalty: its ramp, where it stands, and DAPO's credit made of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS, Claim, chain, overlong_penalty
from apportion.credit.overlong import overlong_penalties
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from credit.cases import close
from reference import baselines


def ramp(lengths: list[int], **settings: float) -> list[float]:
    return overlong_penalties(torch.tensor(lengths), **settings).tolist()  # type: ignore[arg-type]


@given(
    lengths=st.lists(st.integers(0, 200), max_size=8),
    max_length=st.integers(1, 100),
    share=st.floats(0.01, 1.0),
    factor=st.floats(0, 8),
)
def test_the_ramp_as_a_loop(lengths: list[int], max_length: int, share: float, factor: float) -> None:
    buffer = max(int(share * max_length), 1)
    expected = [baselines.overlong_penalty(n, max_length, buffer, factor) for n in lengths]
    assert ramp(lengths, max_length=max_length, buffer=buffer, factor=factor) == pytest.approx(expected, abs=1e-12)


def test_beyond_the_limit_it_stays_and_a_buffer_of_all_of_it_begins_at_once() -> None:
    assert ramp([8, 9, 10, 11, 1000], max_length=10, buffer=2, factor=3.0) == [0.0, -1.5, -3.0, -3.0, -3.0]
    assert ramp([0, 1, 4], max_length=4, buffer=4) == [0.0, -0.25, -1.0]
    assert ramp([4], max_length=4, buffer=4, factor=0.0) == [0.0]


def test_it_joins_an_episodes_reward_and_is_shown() -> None:
    rollouts = Rollouts.from_lists([[1, 2, 3], [4]], groups=[0, 0], rewards=[1.0, 0.5], trained=[[1, 0, 1], [1]])
    credit = chain(overlong_penalty(2, 2), METHODS["reinforce_pp"](whiten=False))(rollouts)
    assert credit.columns["episode:credit/overlong_penalty"].tensor.tolist() == [-1.0, -0.5]
    assert credit.advantages.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_among_rewards_of_tokens_it_stands_on_the_last_that_trains() -> None:
    rollouts = Rollouts.from_lists([[1, 2, 3]], groups=[0], token_rewards=[[1.0, 0.0, 0.0]], trained=[[1, 1, 0]])
    credit = chain(overlong_penalty(2, 1), METHODS["reinforce_pp"](whiten=False))(rollouts)
    assert credit.advantages.tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize("level", ["token", "response", "turn"])
def test_the_total_is_the_same_at_every_level(level: str) -> None:
    rollouts = Rollouts.from_lists([[1, 2], [3], [4]], groups=[0, 0, 0], episodes=[0, 0, 1])
    if level == "turn":
        rollouts = rollouts.with_spans("turn", rollouts.token_offsets[:-1], rollouts.token_offsets[1:])
    parts = torch.arange(rollouts.rows(level), dtype=torch.float64)
    below = rollouts.with_reward("outcome", parts, level=level)
    totals = {"token": [3.0, 3.0], "response": [1.0, 2.0], "turn": [1.0, 2.0]}[level]
    whole = rollouts.with_reward("outcome", torch.tensor(totals, dtype=torch.float64))
    method = METHODS["dapo"](max_length=3, buffer=3, dynamic=False, norm_by_std=False)
    close(method(below).advantages, method(whole).advantages)


# DAPO


def test_dapo_without_its_parts_is_grpo() -> None:
    rollouts = Rollouts.from_lists([[1], [2, 3], [4]], groups=[0, 0, 1], rewards=[1.0, 0.0, 1.0])
    plain, grpo = METHODS["dapo"](dynamic=False)(rollouts), METHODS["grpo"]()(rollouts)
    close(plain.advantages, grpo.advantages, atol=0)
    assert torch.equal(plain.counted, grpo.counted)


def test_dapo_drops_groups_by_the_reward_before_the_penalty() -> None:
    rollouts = Rollouts.from_lists([[1], [2, 3], [4], [5, 6]], groups=[0, 0, 1, 1], rewards=[1.0, 1.0, 1.0, 0.5])
    credit = METHODS["dapo"](max_length=2, buffer=1, factor=0.25, norm_by_std=False)(rollouts)
    assert credit.advantages.tolist() == [0.0, 0.0, 0.0, 0.375, -0.375, -0.375]
    assert credit.counted.tolist() == [False, False, False, True, True, True]


def test_dapo_masks_what_was_cut_off() -> None:
    rollouts = Rollouts.from_lists([[1], [2, 3]], groups=[0, 0], rewards=[1.0, 0.0])
    by_length = METHODS["dapo"](max_length=2, mask_overlong=True)
    assert by_length.needs == ("reward/outcome",)
    assert by_length(rollouts).counted.tolist() == [True, False, False]
    by_mark = METHODS["dapo"](mask_overlong=True)
    assert by_mark.needs == ("reward/outcome", "response:truncated")
    marked = rollouts.with_column("response:truncated", torch.tensor([True, False]))
    assert by_mark(marked).counted.tolist() == [False, True, True]


def test_dapo_has_the_papers_buffer() -> None:
    rollouts = Rollouts.from_lists([[0] * n for n in (16, 18, 20)], groups=[0] * 3, rewards=[0.0] * 3)
    credit = METHODS["dapo"](max_length=20)(rollouts)
    assert credit.columns["episode:credit/overlong_penalty"].tensor.tolist() == [0.0, -0.5, -1.0]


@pytest.mark.parametrize("settings", [{"buffer": 4}, {"factor": 0.5}])
def test_dapo_refuses_settings_that_nothing_would_read(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="buffer or factor is set but max_length is not, so nothing would read it"):
        METHODS["dapo"](**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0, "buffer": 1}, "max_length is 0, expected at least 1"),
        ({"max_length": 4, "buffer": 0}, "buffer is 0, expected 1 to max_length, which is 4"),
        ({"max_length": 4, "buffer": 5}, "buffer is 5, expected 1 to max_length, which is 4"),
        ({"max_length": 4, "buffer": 2, "factor": -1.0}, "factor is -1.0, expected 0 or more"),
        ({"max_length": 4, "buffer": 2, "factor": float("inf")}, "factor is inf, expected 0 or more"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        overlong_penalty(**settings)
    with pytest.raises(InputError, match=message):
        METHODS["dapo"](**settings)


def test_claims() -> None:
    assert METHODS["dapo"]().bias.claim is Claim.BIASED
    assert METHODS["dapo"](dynamic=False, norm_by_std=False).bias.claim is Claim.EXACT_UP_TO_SCALE


def test_the_reward_of_a_response_that_is_not_trained_is_not_lost() -> None:
    rollouts = Rollouts.from_lists(
        [[1], [2], [3]], groups=[0, 0, 0], episodes=[0, 0, 1], trained=[[1], [0], [1]]
    ).with_reward("step", torch.tensor([0.0, 1.0, 0.0]), level="response")
    plain = METHODS["dapo"](component="step", norm_by_std=False)(rollouts).advantages
    assert plain.tolist() == [0.5, 0.0, -0.5]
    due_nothing = METHODS["dapo"](component="step", norm_by_std=False, max_length=100)(rollouts)
    assert torch.equal(due_nothing.advantages, plain)


def test_a_charge_for_length_is_a_bias_and_no_charge_is_none() -> None:
    assert overlong_penalty(4, 2).bias.claim == Claim.BIASED
    assert overlong_penalty(4, 2, factor=0.0).bias.claim == Claim.EXACT
