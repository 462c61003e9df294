"""What is Trust-GRPO's own: whom a score of the thinking is trusted for, how it fades, and scores that are missing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.credit import METHODS, Clock, Credit, chain, trusted_thinking
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import DICE

BEGIN = Clock(0, 100)


def scored(
    outcomes: Sequence[float | None], thinking: Sequence[float | None], groups: Sequence[int] | None = None
) -> Rollouts:
    """One token an episode, with a thinking score where it has one."""
    rollouts = Rollouts.from_lists([[0]] * len(outcomes), groups=groups or [0] * len(outcomes), rewards=outcomes)
    values = torch.tensor([math.nan if t is None else t for t in thinking], dtype=torch.float64)
    known = torch.tensor([t is not None for t in thinking], dtype=torch.bool)
    return rollouts.with_reward("thinking", values, known, level="response")


def trust_grpo(rollouts: Rollouts, clock: Clock = BEGIN, **settings: Any) -> Credit:
    return METHODS["trust_grpo"](**settings)(rollouts, clock=clock)


def detail(credit: Credit, name: str) -> list[float]:
    return credit.columns[f"episode:credit/{name}"].tensor.tolist()


def test_a_group_whose_wrong_answer_scores_higher_is_trusted_less() -> None:
    credit = trust_grpo(scored([1.0, 0.0], [0.2, 0.9]))
    gamma = math.exp(0.2 - 0.9)
    assert detail(credit, "trust") == pytest.approx([gamma, gamma])
    assert detail(credit, "trusted_reward") == pytest.approx([1 + 0.3 * gamma * 0.2, 0.3 * gamma * 0.9])
    assert detail(trust_grpo(scored([1.0, 0.0], [0.9, 0.2])), "trust") == [1.0, 1.0]
    assert detail(trust_grpo(scored([1.0, 0.0], [0.5, 0.5])), "trust") == [1.0, 1.0]


def test_trust_is_of_the_group() -> None:
    credit = trust_grpo(scored([1.0, 0.0, 1.0, 0.0], [0.2, 0.9, 0.9, 0.2], groups=[5, 5, 3, 3]))
    assert detail(credit, "trust") == pytest.approx([math.exp(-0.7)] * 2 + [1.0] * 2)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_without_weight_it_is_grpo(variant: str) -> None:
    rollouts = scored([1.0, 0.0, 0.5], [0.2, 0.9, 0.1])
    assert torch.equal(
        trust_grpo(rollouts, alpha=0.0, variant=variant).advantages, METHODS["grpo"]()(rollouts).advantages
    )


def test_the_thinking_fades() -> None:
    rollouts = scored([1.0, 0.0], [0.9, 0.2])

    def bonus(clock: Clock, **settings: Any) -> float:
        return detail(trust_grpo(rollouts, clock, **settings), "trusted_reward")[1] / (0.3 * 0.2)

    assert bonus(Clock(0, 10)) == pytest.approx(1.0)
    assert bonus(Clock(10, 10)) == pytest.approx(1 / math.e)
    assert bonus(Clock(10, 10), total_steps=20) == pytest.approx(math.exp(-0.5))
    assert bonus(Clock(10**6, 10)) == 0.0


def test_half_an_outcome_is_right() -> None:
    assert detail(trust_grpo(scored([0.5, 0.49], [0.2, 0.9])), "trust")[0] == pytest.approx(math.exp(-0.7))


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_with_nobody_to_compare_with_it_is_trusted(outcome: float) -> None:
    credit = trust_grpo(scored([outcome] * 2, [0.2, 0.9]))
    assert detail(credit, "trust") == [1.0, 1.0]
    assert credit.advantages.tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], abs=1e-4)
    skipped = trust_grpo(scored([outcome] * 2, [0.2, 0.9]), skip_uniform_groups=True)
    assert detail(skipped, "trust") == detail(skipped, "thinking_used") == [0.0, 0.0]
    assert not skipped.advantages.any()


def test_a_group_is_uniform_only_when_all_of_it_is() -> None:
    for outcomes in ([0.9, 1.0], [0.0, 0.1]):
        assert detail(trust_grpo(scored(outcomes, [0.5, 0.5]), skip_uniform_groups=True), "trust") == [0.0, 0.0]
    for outcomes in ([0.89, 1.0], [0.0, 0.11], [0.0, 1.0]):
        assert detail(trust_grpo(scored(outcomes, [0.5, 0.5]), skip_uniform_groups=True), "trust") == [1.0, 1.0]


@given(dice=DICE)
def test_the_code_trusts_every_group_of_outcomes_0_and_1(dice: random.Random) -> None:
    outcomes = [0.0, 1.0, *(float(dice.random() < 0.5) for _ in range(4))]
    thinking = [dice.randint(0, 8) / 8 for _ in outcomes]
    credit = trust_grpo(scored(outcomes, thinking), variant="code")
    assert detail(credit, "trust") == [1.0] * 6
    assert detail(credit, "thinking_used") == [t * r for t, r in zip(thinking, outcomes, strict=True)]


# Scores that the judge did not give


def test_a_missing_score_is_in_no_mean_and_adds_nothing() -> None:
    with_hole, without = scored([1.0, 0.0, 0.0], [0.2, 0.9, None]), scored([1.0, 0.0], [0.2, 0.9])
    credit = trust_grpo(with_hole)
    assert not credit.unknown.any()
    assert detail(credit, "trust")[:2] == detail(trust_grpo(without), "trust")
    assert detail(credit, "thinking_used") == [0.2, 0.9, 0.0]
    assert detail(credit, "trusted_reward")[2] == 0.0
    # Nobody right has a score: nothing speaks against the judge.
    assert detail(trust_grpo(scored([1.0, 0.0], [None, 0.9])), "trust") == [1.0, 1.0]


def test_without_any_score_it_is_grpo() -> None:
    rollouts = scored([1.0, 0.0, 0.5], [None, None, None])
    for variant in ("paper", "code"):
        credit = trust_grpo(rollouts, variant=variant)
        assert torch.equal(credit.advantages, METHODS["grpo"]()(rollouts).advantages)


def test_an_outcome_that_is_unknown_is_dropped_with_its_score() -> None:
    credit = METHODS["trust_grpo"]()(scored([1.0, 0.0, None], [0.2, 0.9, 0.9]), clock=BEGIN, unscored="drop")
    assert credit.unknown.tolist() == [False, False, True]
    close(credit.advantages[:2], trust_grpo(scored([1.0, 0.0], [0.2, 0.9])).advantages)


def test_an_episode_of_several_responses_has_the_mean_of_their_scores() -> None:
    ids, episodes = [[0]] * 4, [0, 0, 0, 1]
    rollouts = Rollouts.from_lists(ids, groups=[0] * 4, rewards=[1.0, 0.0], episodes=episodes)
    known = torch.tensor([True, True, False, True])
    rollouts = rollouts.with_reward("thinking", torch.tensor([0.25, 0.75, 0.0, 0.25]), known, level="response")
    assert detail(trust_grpo(rollouts), "thinking_used") == [0.5, 0.25]


# As a stage, and what it refuses


def test_the_shaper_goes_before_other_estimators() -> None:
    rollouts = scored([1.0, 0.0], [0.9, 0.2])
    method = chain(trusted_thinking(alpha=1.0), METHODS["rloo"]())
    assert method(rollouts, clock=BEGIN).advantages.tolist() == pytest.approx([1.7, -1.7])


def test_the_shaper_reads_and_writes_other_components() -> None:
    rollouts = Rollouts.from_lists([[0]] * 2, groups=[0, 0], rewards=[1.0, 0.0], component="exact")
    rollouts = rollouts.with_reward("style", torch.tensor([0.2, 0.9]))
    credit = trust_grpo(rollouts, component="exact", thinking="style")
    assert detail(credit, "trust")[0] == pytest.approx(math.exp(-0.7), abs=1e-6)


def test_a_group_of_one() -> None:
    one = scored([1.0], [0.5])
    assert trust_grpo(one).advantages.tolist() == [0.0]
    assert trust_grpo(one, singleton="raw").advantages.tolist() == pytest.approx([1.15 / (1 + 1e-6)])


def test_it_needs_a_clock() -> None:
    with pytest.raises(InputError, match="anneals over training and was given no clock"):
        METHODS["trust_grpo"](total_steps=10)(scored([1.0], [0.5]))
    for clock in (Clock(-1, 10), Clock(0, 0)):
        with pytest.raises(InputError, match=rf"the clock is at step {clock.step} of {clock.total_steps}, expected"):
            trust_grpo(scored([1.0], [0.5]), clock)


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_numbers_outside_0_to_1(wrong: float) -> None:
    with pytest.raises(InputError, match=rf"reward 'outcome' is {wrong} for 1 of 2, expected 0 to 1"):
        trust_grpo(scored([1.0, wrong], [0.5, 0.5]))
    with pytest.raises(InputError, match=rf"reward 'thinking' is {wrong} for 1 of 2, expected 0 to 1"):
        trust_grpo(scored([1.0, 0.0], [wrong, 0.5]))


def test_scores_of_steps_are_refused() -> None:
    rollouts = Rollouts.from_lists([[0]], groups=[0], rewards=[1.0])
    with pytest.raises(InputError, match="'thinking' is not one number a response or episode"):
        trust_grpo(rollouts.with_reward("thinking", torch.ones(1), level="token"))
    with pytest.raises(InputError, match="'thinking' is not one number a response or episode"):
        trust_grpo(rollouts.with_reward("thinking", torch.ones(1, 2), level="response"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": -0.3}, "alpha is -0.3, expected 0 or more"),
        ({"alpha": math.nan}, "alpha is nan, expected 0 or more"),
        ({"total_steps": 0}, "total_steps is 0, expected more than 0"),
        ({"variant": "codes"}, "unknown variant 'codes': did you mean 'code'"),
        ({"eps": -1.0}, "eps is -1.0, expected 0 or more"),
        ({"singleton": "none"}, "singleton is 'none', expected"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["trust_grpo"](**settings)
