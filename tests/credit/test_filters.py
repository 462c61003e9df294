"""Filters: what trains, what counts, and whether what is dropped stays in the statistics of its group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import (
    METHODS,
    Claim,
    Credit,
    Stage,
    add,
    chain,
    drop_dead_groups,
    drop_overlong,
    drop_small,
    overlong_penalty,
)
from apportion.credit.filters import comparable
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import EIGHTHS, Flat, flats
from reference import baselines


def truncated(flags: list[bool], ids: list[list[int]], **given: Any) -> Rollouts:
    """Rollouts some of whose responses were cut off."""
    return Rollouts.from_lists(ids, **given).with_column("response:truncated", torch.tensor(flags))


def group(**given: Any) -> Rollouts:
    """Four members of a group, the last two cut off."""
    return truncated(
        [False, False, True, True], [[1], [2], [3, 4], [5, 6]], groups=[0] * 4, rewards=[1.0, 0.0, 1.0, 0.0], **given
    )


def masks(credit: Credit) -> tuple[list[bool], list[bool]]:
    return credit.trained.tolist(), credit.counted.tolist()


# Overlong


@pytest.mark.parametrize("max_length", [None, 2])
def test_what_was_cut_off_neither_trains_nor_counts(max_length: int | None) -> None:
    credit = chain(METHODS["dr_grpo"](), drop_overlong(max_length))(group())
    assert credit.advantages.tolist() == [0.5, -0.5, 0.0, 0.0, 0.0, 0.0]
    assert masks(credit) == ([True, True, False, False, False, False],) * 2


def test_by_its_mark_or_by_its_length() -> None:
    rollouts = truncated([True, False], [[1], [2, 3]], groups=[0, 0], rewards=[1.0, 0.0])
    assert drop_overlong()(rollouts).trained.tolist() == [False, True, True]
    assert drop_overlong(2)(rollouts).trained.tolist() == [True, False, False]
    assert drop_overlong(3)(rollouts).trained.tolist() == [True, True, True]


def test_the_length_is_that_of_the_episode_without_what_the_policy_did_not_write() -> None:
    growing = Rollouts.from_lists([[1, 9, 9, 2], [3, 4]], groups=[0, 0], trained=[[1, 0, 0, 1], [1, 1]])
    separate = Rollouts.from_lists([[1], [2], [3], [4]], groups=[0] * 4, episodes=[0, 0, 1, 1])
    for rollouts in (growing, separate):
        assert torch.equal(drop_overlong(3)(rollouts).trained, rollouts.trained)
        assert not drop_overlong(2)(rollouts).trained.any()


def test_one_response_cut_off_drops_the_whole_episode() -> None:
    rollouts = truncated([False, True, False], [[1], [2], [3]], groups=[0] * 3, episodes=[0, 0, 1])
    assert drop_overlong()(rollouts).trained.tolist() == [False, False, True]


@pytest.mark.parametrize("last", [True, False])
def test_its_reward_may_leave_the_baseline(last: bool) -> None:
    filtered = drop_overlong(in_baseline=False)
    stages = [METHODS["rloo"](), filtered] if last else [filtered, METHODS["rloo"]()]
    rollouts = group()
    credit = chain(*stages)(rollouts)
    alone = METHODS["rloo"]()(rollouts.select(torch.tensor([0, 1])))
    assert credit.advantages.tolist() == [*alone.advantages.tolist(), 0.0, 0.0, 0.0, 0.0] == [1.0, -1.0, 0, 0, 0, 0]
    assert masks(credit) == ([True, True, False, False, False, False],) * 2
    assert not credit.unknown.any()
    in_baseline = chain(METHODS["rloo"](), drop_overlong())(rollouts)
    assert in_baseline.advantages.tolist()[:2] == pytest.approx([2 / 3, -2 / 3])


def test_leaving_out_and_unknown_rewards_meet() -> None:
    rewards = [1.0, None, 0.0, None, 0.5]
    flags = [False, True, True, False, False]
    rollouts = truncated(flags, [[i] for i in range(5)], groups=[0] * 5, rewards=rewards)
    credit = chain(METHODS["rloo"](), drop_overlong(in_baseline=False))(rollouts, unscored="drop")
    assert credit.unknown.tolist() == [False, True, False, True, False]
    assert credit.advantages.tolist() == [0.5, 0.0, 0.0, 0.0, -0.5]
    assert credit.counted.tolist() == [True, False, False, False, True]


def test_a_group_left_with_one_is_dead_whatever_singleton_says() -> None:
    rollouts = truncated([False, True], [[1], [2]], groups=[0, 0], rewards=[1.0, 0.0])
    credit = chain(METHODS["rloo"](singleton="raw"), drop_overlong(in_baseline=False))(rollouts)
    assert credit.advantages.tolist() == [0.0, 0.0]
    assert credit.counted.tolist() == [True, False]


def test_details_of_what_was_left_out_are_missing() -> None:
    stage = chain(METHODS["reinforce_pp"](whiten=False), drop_overlong(in_baseline=False))
    returns = stage(group()).columns["token:credit/returns"]
    assert returns.present is not None
    assert returns.present.tolist() == [True, True, False, False, False, False]


def test_sums_of_stages_leave_out_what_any_of_them_does() -> None:
    stage = add(METHODS["rloo"](), chain(METHODS["rloo"](), drop_overlong(in_baseline=False)))
    assert stage(group()).advantages.tolist() == [2.0, -2.0, 0.0, 0.0, 0.0, 0.0]


def test_other_origins_are_not_asked_whether_they_were_cut_off() -> None:
    rollouts = Rollouts.from_lists([[1], [2], [3]], groups=[0] * 3, rewards=[1.0, 0.0, None])
    rollouts = rollouts.with_column("response:origin", ["policy", "policy", "stored"])
    marks, present = torch.tensor([False, True, False]), torch.tensor([True, True, False])
    rollouts = rollouts.with_column("response:truncated", marks, present)
    for in_baseline in (True, False):
        credit = chain(METHODS["rloo"](), drop_overlong(in_baseline=in_baseline))(rollouts)
        assert masks(credit) == ([True, False, True],) * 2


@pytest.mark.parametrize("in_baseline", [True, False])
def test_the_mark_must_be_there(in_baseline: bool) -> None:
    stage = drop_overlong(in_baseline=in_baseline)
    with pytest.raises(MissingColumn, match="'response:truncated', which these rollouts lack: sampling records it"):
        stage(Rollouts.from_lists([[1]], groups=[0]))


def test_the_loss_is_that_of_the_finished_ones_alone() -> None:
    rollouts = group().with_column("log_probs/old", torch.full((6,), -1.0, dtype=torch.float64))
    now = {"log_probs": torch.linspace(-1.2, -0.8, 6, dtype=torch.float64)}
    left_out = chain(METHODS["rloo"](), drop_overlong(in_baseline=False))(rollouts)
    few = rollouts.select(torch.tensor([0, 1]))
    for name in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum"):
        clip = OBJECTIVES["clip"](aggregate=name)
        alone = clip({"log_probs": now["log_probs"][:2]}, few, METHODS["rloo"]()(few))
        close(clip(now, rollouts, left_out).value, alone.value)


# Small advantages


def test_small_advantages_train_nothing_but_count() -> None:
    rollouts = Rollouts.from_lists([[1], [2], [3]], groups=[0] * 3, rewards=[1.0, 0.5, 0.25])
    credit = chain(METHODS["rloo"](), drop_small(0.375))(rollouts)
    assert credit.advantages.tolist() == pytest.approx([0.625, 0.0, -0.5])
    assert masks(credit) == ([True, False, True], [True, True, True])


def test_the_threshold_itself_is_not_small_and_none_drops_nothing() -> None:
    rollouts = Rollouts.from_lists([[1], [2], [3]], groups=[0, 0, 1], rewards=[1.0, 0.5, 0.0])
    assert chain(METHODS["rloo"](), drop_small(0.5))(rollouts).trained.tolist() == [True, True, False]
    assert chain(METHODS["rloo"](), drop_small(0.0))(rollouts).trained.all()


# Groups without a comparison


def test_groups_of_equal_rewards_neither_train_nor_count() -> None:
    rewards = [1.0, 1.0, 0.0, 1.0, 0.5]
    rollouts = Rollouts.from_lists([[i] for i in range(5)], groups=[7, 7, 3, 3, 9], rewards=rewards)
    credit = chain(METHODS["rloo"](singleton="raw"), drop_dead_groups())(rollouts)
    assert credit.advantages.tolist() == [0.0, 0.0, -1.0, 1.0, 0.5]
    assert masks(credit) == ([False, False, True, True, True],) * 2


@given(world=flats(rewards=[0.0, 1.0, 0.1, 0.2 + 0.1, 0.3]))
def test_which_groups_as_a_loop(world: Flat) -> None:
    values, groups = torch.tensor(world.rewards, dtype=torch.float64), torch.tensor(world.groups)
    numbers = torch.unique(groups, return_inverse=True)[1]
    assert comparable(values, numbers).tolist() == baselines.comparable(world.rewards, world.groups)


@given(rewards=st.lists(st.sampled_from(EIGHTHS), min_size=2, max_size=6), by=st.floats(-1e6, 1e6))
def test_equal_is_equal_whatever_the_numbers(rewards: list[float], by: float) -> None:
    same = torch.full((len(rewards),), by, dtype=torch.float64)
    assert not comparable(same, torch.zeros(len(rewards), dtype=torch.int64)).any()


def test_by_the_reward_as_shaped_so_far() -> None:
    rollouts = Rollouts.from_lists([[1], [2, 3]], groups=[0, 0], rewards=[1.0, 1.0])
    before = chain(drop_dead_groups(), overlong_penalty(2, 1), METHODS["rloo"]())(rollouts)
    after = chain(overlong_penalty(2, 1), METHODS["rloo"](), drop_dead_groups())(rollouts)
    assert not before.trained.any()
    assert after.advantages.tolist() == [1.0, -1.0, -1.0]


def test_no_group_at_all_is_no_loss() -> None:
    rollouts = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 1.0], log_probs_old=[[-1.0], [-1.0]])
    credit = chain(METHODS["grpo"](), drop_dead_groups())(rollouts)
    loss = OBJECTIVES["clip"]()({"log_probs": torch.tensor([-0.5, -2.0], requires_grad=True)}, rollouts, credit)
    assert loss.value.item() == 0.0


# Settings and claims


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (drop_overlong, {"max_length": 0}, "max_length is 0, expected at least 1"),
        (drop_small, {"threshold": -0.1}, "threshold is -0.1, expected 0 or more"),
        (drop_small, {"threshold": float("nan")}, "threshold is nan, expected 0 or more"),
    ],
)
def test_bad_settings(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("stage", "claim"),
    [
        (drop_overlong(), Claim.BIASED),
        (drop_small(0.1), Claim.BIASED),
        (drop_small(0.0), Claim.EXACT),
        (drop_dead_groups(), Claim.CONSISTENT),
        (chain(METHODS["rloo"](), drop_dead_groups()), Claim.CONSISTENT),
    ],
)
def test_claims(stage: Stage, claim: Claim) -> None:
    assert stage.bias.claim is claim
