"""What is MA-RLHF's own: values and rewards of macro actions, and that one token each makes it GAE."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.annotations import ANNOTATORS
from apportion.credit import METHODS, Claim, Credit, chain
from apportion.credit.ma_rlhf import clamped
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.cases import close, with_log_probs
from credit.columns import with_values
from credit.worlds import DICE, Dialogues, Flat, dialogues, flats
from reference import macro as naive


def cut(rollouts: Rollouts, n: int) -> Rollouts:
    return ANNOTATORS["macro_actions"](rule=f"fixed(n={n})").apply(rollouts, None)


def ma_rlhf(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["ma_rlhf"](**{"kl_coefficient": 0.0, "score_clamp": None, **settings})(rollouts)


def gae(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["gae"](**{"whiten": False, **settings})(rollouts)


def one(values: list[float], rewards: list[float], n: int, **given: Any) -> Rollouts:
    """One response with rewards of tokens."""
    rollouts = Rollouts.from_lists([range(len(values))], groups=[0], token_rewards=[rewards], **given)
    return cut(rollouts.with_column("values/critic", torch.tensor(values, dtype=torch.float64)), n)


def of_macros(credit: Credit, name: str) -> list[float]:
    return [round(x, 12) for x in credit.columns[f"macro:credit/{name}"].tensor.tolist()]


# One token each


@given(world=flats(), gamma=st.sampled_from([0.0, 0.5, 1.0]), lam=st.sampled_from([0.0, 0.5, 1.0]))
def test_macro_actions_of_one_token_are_gae(world: Flat, gamma: float, lam: float) -> None:
    rollouts = with_values(with_log_probs(world.rollouts()))
    settings = {"gamma": gamma, "lam": lam, "kl_coefficient": 0.25}
    expected = gae(rollouts, **settings)
    for value_function in ("equal", "unit", "position"):
        for reward_reduce in ("sum", "mean"):
            credit = ma_rlhf(cut(rollouts, 1), value_function=value_function, reward_reduce=reward_reduce, **settings)
            close(credit.advantages, expected.advantages)
            close(credit.columns["token:credit/returns"].tensor, expected.columns["token:credit/returns"].tensor)


@given(world=dialogues(), dice=DICE)
def test_so_are_they_over_turns_and_truncated_ends(world: Dialogues, dice: random.Random) -> None:
    for rollouts in (world.growing(), world.separate(history=True)):
        ends = torch.tensor([dice.randint(-4, 4) / 4 for _ in range(rollouts.n_responses)], dtype=torch.float64)
        valued = with_values(rollouts).with_column("response:values_end/critic", ends)
        close(ma_rlhf(cut(valued, 1), lam=0.5).advantages, gae(valued, lam=0.5).advantages)


# Macro actions


@given(dice=DICE)
def test_every_setting_equals_the_naive_loop(dice: random.Random) -> None:
    length, n = dice.randint(1, 9), dice.randint(1, 5)
    values, rewards = ([dice.randint(-8, 8) / 8 for _ in range(length)] for _ in range(2))
    settings: dict[str, Any] = {
        "gamma": dice.choice([0.0, 0.9, 1.0]),
        "lam": dice.choice([0.0, 0.95, 1.0]),
        "reward_reduce": dice.choice(["sum", "mean"]),
        "value_function": dice.choice(["equal", "unit", "position"]),
    }
    end = dice.choice([0.0, 0.75])
    rollouts = one(values, rewards, n).with_column("response:values_end/critic", torch.tensor([end]))
    credit = ma_rlhf(rollouts, **settings)
    macros = naive.cut(length, naive.fixed(length, n))
    expected = naive.ma_rlhf(rewards, values, macros, end_value=end, **settings)
    for name in ("value", "reward", "advantage", "return"):
        close(
            credit.columns[f"macro:credit/{name}"].tensor,
            torch.tensor(expected[f"macro_{name}s"], dtype=torch.float64),
        )
    close(credit.advantages, torch.tensor(expected["token_advantages"], dtype=torch.float64))


def test_by_hand() -> None:
    rollouts = one([0.25, 0.75, 0.5, 1.0], [0.5, 0.25, 0.0, 1.0], 2)
    credit = ma_rlhf(rollouts, lam=0.5)
    assert of_macros(credit, "value") == [0.5, 0.5, 1.0]
    assert of_macros(credit, "reward") == [0.75, 0.0, 1.0]
    # 0.75 + 0.5 - 0.5 + 0.5 * 0.5; 0 + 1 - 0.5 + 0.5 * 0; 1 - 1
    assert of_macros(credit, "advantage") == [1.0, 0.5, 0.0]
    assert credit.advantages.tolist() == [1.0, 1.0, 0.5, 0.0]
    assert credit.columns["token:credit/returns"].tensor.tolist() == [1.5, 1.5, 1.0, 1.0]
    assert of_macros(ma_rlhf(rollouts, value_function="unit"), "value") == [0.75, 0.5, 1.0]
    assert of_macros(ma_rlhf(rollouts, value_function="position"), "value") == [0.416666666667, 0.5, 1.0]
    assert of_macros(ma_rlhf(rollouts, reward_reduce="mean"), "reward") == [0.375, 0.0, 1.0]


def test_a_late_reward_reaches_the_beginning_with_fewer_discounts() -> None:
    first = []
    for n in (1, 5, 10):
        rollouts = one([0.0] * 40, [0.0] * 39 + [1.0], n)
        spans = len(rollouts.spans["macro"].starts)
        first.append(float(ma_rlhf(rollouts, lam=0.95).advantages[0]))
        assert first[-1] == pytest.approx(0.95 ** (spans - 1))
        assert float(ma_rlhf(rollouts, lam=1.0).advantages[0]) == 1.0
    assert first == sorted(first)


def test_rewards_and_values_of_untrained_tokens_are_in_no_macro_action() -> None:
    given = one([0.5, 9.0, 0.25, 0.25], [0.0, 9.0, 0.0, 1.0], 4, trained=[[1, 0, 1, 1]])
    credit = ma_rlhf(given, lam=1.0)
    assert of_macros(credit, "value") == [0.5, 0.25, 0.25]
    assert credit.advantages.tolist() == [0.5, 0.0, 0.75, 0.75]


def test_episodes_of_several_responses_go_on() -> None:
    rollouts = Rollouts.from_lists([[1, 2, 3], [4, 5]], groups=[0, 0], rewards=[1.0], episodes=[0, 0])
    valued = cut(rollouts.with_column("values/critic", torch.zeros(5)), 5)
    credit = ma_rlhf(valued, gamma=0.5, lam=1.0)
    assert credit.advantages.tolist() == [0.125, 0.125, 0.25, 0.5, 1.0]


# The reward


def test_the_score_is_clamped_before_the_divergence_is_subtracted() -> None:
    rollouts = with_log_probs(Rollouts.from_lists([[1, 1]], groups=[0], rewards=[9.0]))  # a divergence of 0.5 a token
    valued = cut(rollouts.with_column("values/critic", torch.zeros(2)), 5)
    credit = METHODS["ma_rlhf"](lam=1.0, kl_coefficient=2.0)(valued)
    assert of_macros(credit, "reward") == [-1.0, 1.5]
    assert of_macros(METHODS["ma_rlhf"](lam=1.0, kl_coefficient=2.0, score_clamp=0.5)(valued), "reward") == [-1.0, -0.5]
    assert "log_probs/reference" in METHODS["ma_rlhf"]().needs
    assert "log_probs/reference" not in METHODS["ma_rlhf"](kl_coefficient=0.0).needs


def test_a_clamp_acts_at_the_reward_s_own_level() -> None:
    pair = Rollouts.from_lists([[1, 2], [3]], groups=[0, 0], token_rewards=[[3.0, -3.0], [0.5]])
    assert chain(clamped(1.0), METHODS["dr_grpo"]())(pair).advantages.tolist() == [-0.25, -0.25, 0.25]
    with pytest.raises(InputError, match="the clamp of the score is -1, expected 0 or more"):
        clamped(-1)


# What it refuses


def test_rollouts_without_macro_actions() -> None:
    rollouts = with_values(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0]))
    with pytest.raises(MissingColumn, match=r"needs the column 'macro:size', .*in a run --annotators macro_actions"):
        ma_rlhf(rollouts)
    with pytest.raises(MissingColumn, match=r"values/critic.*--learners critic"):
        ma_rlhf(cut(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0]), 2))


def test_macro_actions_that_do_not_hold_just_what_trains() -> None:
    rollouts = with_values(Rollouts.from_lists([[1, 1, 1]], groups=[0], rewards=[1.0]))
    some = rollouts.with_spans("macro", torch.tensor([1]), torch.tensor([2])).with_column("macro:size", torch.ones(1))
    with pytest.raises(InputError, match="hold 1 trained tokens by 'macro:size', and 1 of the 3 there are, expected"):
        ma_rlhf(some)
    later = cut(rollouts, 2).with_column("trained", torch.tensor([True, False, True]))
    with pytest.raises(InputError, match="hold 3 trained tokens by 'macro:size', and 2 of the 2 there are, expected"):
        ma_rlhf(later)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": 1.1}, "gamma is 1.1, expected 0 to 1"),
        ({"lam": -0.1}, "lam is -0.1, expected 0 to 1"),
        ({"kl_coefficient": math.nan}, "kl_coefficient is nan, expected 0 or more"),
        ({"kl_coefficient": 0.1, "kl_estimator": "k0"}, "unknown KL estimator 'k0'"),
        ({"value_function": "mean"}, "unknown value_function 'mean'"),
        ({"reward_reduce": "max"}, "unknown reward_reduce 'max'"),
        ({"score_clamp": -1.0}, "the clamp of the score is -1.0, expected 0 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["ma_rlhf"](**settings)


def test_it_does_not_claim_to_be_exact() -> None:
    for settings in ({}, {"lam": 1.0, "kl_coefficient": 0.0, "score_clamp": None}):
        assert METHODS["ma_rlhf"](**settings).bias.claim is Claim.BIASED
