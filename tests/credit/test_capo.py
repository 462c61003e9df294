"""What is CAPO's own: votes, penalties of steps, and tokens against all tokens of the group."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from apportion.credit import METHODS, Credit, chain, voted
from apportion.credit.capo import VOTES
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import DICE

Verdicts = Sequence[Sequence[float | None]]


def judged(
    spans: Sequence[tuple[int, int]],
    verdicts: Verdicts,
    lengths: Sequence[int],
    rewards: Sequence[float],
    groups: Sequence[int] | None = None,
    **given: Any,
) -> Rollouts:
    """Responses with steps at these tokens, counted through all responses, and what critiques say of each."""
    ids = [[0] * n for n in lengths]
    rollouts = Rollouts.from_lists(ids, groups=groups or [0] * len(ids), rewards=rewards, **given)
    places = torch.tensor(spans, dtype=torch.int64).reshape(-1, 2)
    scored = torch.tensor([[v is not None for v in row] for row in verdicts], dtype=torch.bool)
    values = torch.tensor([[math.nan if v is None else v for v in row] for row in verdicts], dtype=torch.float64)
    return rollouts.with_spans("step", places[:, 0], places[:, 1]).with_reward("critique", values, scored, level="step")


def capo(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["capo"](**settings)(rollouts)


def weights(credit: Credit) -> list[float]:
    return credit.columns["step:credit/penalty_weight"].tensor.tolist()


def rewards(credit: Credit) -> Tensor:
    return credit.columns["token:credit/token_rewards"].tensor


def test_the_example_of_the_paper_by_hand() -> None:
    rollouts = judged([(0, 2), (2, 3), (3, 5)], [[1, 1], [0, 1], [0, 0]], [3, 2], [1.0, 0.0])
    credit = capo(rollouts)
    assert rewards(credit).tolist() == [1.0, 1.0, 2.0, 0.0, 0.0]
    std = math.sqrt((2 * 0.2**2 + 1.2**2 + 2 * 0.8**2) / 5)
    close(credit.advantages, torch.tensor([0.2, 0.2, 1.2, -0.8, -0.8], dtype=torch.float64) / (std + 1e-8))


@pytest.mark.parametrize(
    ("vote", "expected"),
    [
        ("intersection", [0.0, 0.0, 0.0, 0.0, 1.0]),
        ("majority", [0.0, 0.0, 1.0, 1.0, 1.0]),
        ("union", [0.0, 1.0, 1.0, 1.0, 1.0]),
        ("average", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_votes_of_four_with_a_tie_for_the_majority(vote: str, expected: list[float]) -> None:
    rows = [[1.0] * n + [0.0] * (4 - n) for n in range(5)]
    assert weights(capo(judged([(t, t + 1) for t in range(5)], rows, [5], [1.0]), vote=vote)) == expected


@given(dice=DICE)
def test_stricter_votes_never_penalise_more(dice: random.Random) -> None:
    k = dice.randint(1, 5)
    rows = [[dice.choice([0.0, 1.0, None]) for _ in range(k)] for _ in range(6)]
    rollouts = judged([(t, t + 1) for t in range(6)], rows, [6], [1.0])
    strict, half, share, loose = (
        weights(capo(rollouts, vote=v)) for v in ("intersection", "majority", "average", "union")
    )
    for s, h, a, u in zip(strict, half, share, loose, strict=True):
        assert s <= a <= u
        assert s <= h <= u


@given(dice=DICE)
def test_a_right_response_beats_a_wrong_one_at_every_token(dice: random.Random) -> None:
    rows = [[float(dice.random() < 0.5) for _ in range(3)] for _ in range(8)]
    rollouts = judged([(t, t + 1) for t in range(8)], rows, [4, 4], [1.0, 0.0])
    credit = capo(rollouts, vote=dice.choice(["intersection", "majority", "union", "average"]), w_process=0.99)
    assert credit.advantages[:4].min() > credit.advantages[4:].max()


def test_without_a_process_weight_responses_of_equal_length_are_grpos() -> None:
    rollouts = judged([(0, 2), (4, 6)], [[1.0], [1.0]], [4, 4, 4], [1.0, 0.0, 0.0])
    expected = METHODS["grpo"](eps=0.0)(rollouts).advantages
    close(capo(rollouts, w_process=0.0, ddof=0, eps=0.0).advantages, expected * math.sqrt(3 / 2))  # ddof 0 for 1


def test_long_responses_weigh_more() -> None:
    rollouts = judged([(0, 1)], [[0.0]], [1, 3], [1.0, 0.0])
    assert capo(rollouts, eps=0.0).advantages.tolist() == pytest.approx([math.sqrt(3)] + [-1 / math.sqrt(3)] * 3)


def test_tokens_that_are_not_trained_make_no_statistic() -> None:
    both = judged([(0, 2), (4, 5)], [[1.0], [0.0]], [4, 2], [1.0, 0.0], trained=[[0, 1, 1, 1], [1, 0]])
    without = judged([(0, 1), (3, 4)], [[1.0], [0.0]], [3, 1], [1.0, 0.0])
    close(capo(both).advantages[both.trained], capo(without).advantages)
    assert not capo(both).advantages[~both.trained].any()


def test_groups_are_compared_apart() -> None:
    both = judged([(0, 1), (2, 3)], [[1.0], [0.0]], [2, 2, 2], [1.0, 1.0, 0.0], groups=[0, 1, 1])
    credit = capo(both, eps=0.0)
    assert credit.advantages.tolist() == pytest.approx([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0])


def test_a_single_response_has_the_contrast_within_it() -> None:
    assert capo(judged([(0, 1)], [[1.0]], [2], [1.0]), eps=0.0).advantages.tolist() == [-1.0, 1.0]
    assert capo(judged([(0, 1)], [[1.0]], [1], [1.0])).advantages.tolist() == [0.0]


def test_equal_token_rewards_are_no_credit() -> None:
    rollouts = judged([(0, 2), (2, 3)], [[1.0], [1.0]], [2, 1], [1.0, 1.0])
    assert not capo(rollouts, eps=0.0).advantages.any()


def test_several_responses_of_an_episode_share_its_outcome() -> None:
    rollouts = judged([(0, 1), (1, 2)], [[1.0], [0.0]], [1, 1, 2], [1.0, 0.0], groups=[0, 0, 0], episodes=[0, 0, 1])
    assert rewards(capo(rollouts)).tolist() == [1.0, 2.0, 0.0, 0.0]


# Critiques that could not be read


def test_the_vote_is_over_those_that_could_be_read() -> None:
    rows = [[1.0, None, 1.0], [0.0, None, 1.0], [None, None, 1.0]]
    rollouts = judged([(0, 1), (1, 2), (2, 3)], rows, [3], [1.0])
    assert weights(capo(rollouts, vote="intersection")) == [1.0, 0.0, 1.0]
    assert weights(capo(rollouts, vote="average")) == [1.0, 0.5, 1.0]


def test_a_response_without_a_readable_critique_has_no_wrong_steps_and_is_counted() -> None:
    rows = [[None, None], [None, None], [1.0, None]]
    rollouts = judged([(0, 1), (1, 2), (2, 3)], rows, [2, 1, 1], [1.0, 0.0, 0.0])
    for vote in VOTES.keys() - {"greedy"}:
        credit = capo(rollouts, vote=vote)
        assert not credit.unknown.any()
        assert rewards(credit).tolist() == [2.0, 2.0, -1.0, 0.0]
        # The last has no steps to be criticised.
        assert credit.columns["response:credit/uncritiqued"].tensor.tolist() == [True, False, False]


def test_an_outcome_that_is_unknown_is_still_dropped() -> None:
    rollouts = judged([(0, 1), (1, 2)], [[1.0], [0.0]], [1, 1, 1], [1.0, None, 0.0])  # type: ignore[list-item]
    credit = METHODS["capo"]()(rollouts, unscored="drop")
    assert credit.unknown.tolist() == [False, True, False]
    assert credit.columns["step:credit/penalty_weight"].present.tolist() == [True, False]


# As stages, and what it refuses


def test_the_vote_goes_before_other_estimators() -> None:
    rollouts = judged([(0, 1), (1, 2)], [[1.0, 1.0], [0.0, 1.0]], [1, 1], [1.0, 0.0])
    assert chain(voted(vote="average"), METHODS["rloo"]("critique"))(rollouts).advantages.tolist() == [0.5, -0.5]


def test_one_critique_needs_no_second_dimension() -> None:
    two = judged([(0, 1), (1, 2)], [[1.0], [0.0]], [1, 1], [1.0, 0.0])
    flat = two.with_reward("critique", torch.tensor([1.0, 0.0]), level="step")
    assert torch.equal(capo(two, vote="greedy").advantages, capo(flat, vote="greedy").advantages)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vote": "unanimous"}, "unknown vote 'unanimous'"),
        ({"vote": "intersect"}, "did you mean 'intersection'"),
        ({"w_whole": 0.0}, "w_whole is 0, expected more than 0"),
        ({"w_whole": -2.0}, "w_whole is -2.0, expected 0 or more"),
        ({"w_process": -1.0}, "w_process is -1.0, expected 0 or more"),
        ({"w_process": math.nan}, "w_process is nan, expected 0 or more"),
        ({"ddof": 2}, "ddof is 2, expected 0 or 1"),
        ({"eps": -1e-8}, "eps is -1e-08, expected 0 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["capo"](**settings)


@pytest.mark.parametrize("w_process", [2.0, 5.0])
def test_a_penalty_as_large_as_the_outcome_is_warned_of(w_process: float) -> None:
    with pytest.warns(UserWarning, match=rf"w_process={w_process} is not below w_whole=2.0"):
        METHODS["capo"](w_process=w_process)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS["capo"](w_process=1.99)


def test_critiques_that_cannot_vote() -> None:
    rollouts = judged([(0, 1)], [[1.0, 0.0]], [1], [1.0])
    with pytest.raises(InputError, match="vote 'greedy' got 2 critiques, expected one"):
        capo(rollouts, vote="greedy")
    with pytest.raises(InputError, match=r"has no critiques \(k = 0\), expected at least one"):
        capo(rollouts.with_reward("critique", torch.zeros(1, 0), level="step"))
    with pytest.raises(InputError, match="values other than 0 and 1, expected 1 where a step is wrong"):
        capo(judged([(0, 1)], [[1.0, 0.5]], [1], [1.0]))
    capo(judged([(0, 1)], [[1.0, None]], [1], [1.0]))
    of_response = Rollouts.from_lists([[0]], groups=[0], rewards=[1.0]).with_reward("critique", torch.ones(1))
    with pytest.raises(InputError, match="'critique' has level 'episode', expected critiques of steps: one row a span"):
        capo(of_response)


@pytest.mark.parametrize("reward", [0.5, -1.0, 2.0])
def test_outcomes_that_are_neither_right_nor_wrong(reward: float) -> None:
    with pytest.raises(
        InputError, match=rf"'outcome' is {reward:g} for 1 episodes, expected 1 \(right\) or 0 \(wrong\)"
    ):
        capo(judged([(0, 1)], [[1.0]], [1, 1], [reward, 1.0]))
