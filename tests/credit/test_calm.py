"""What is CALM's own: which subgoals end, what that pays, and returns against those of others at the same turn."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.credit import METHODS, Claim, Credit
from apportion.credit.step_returns import step_relative
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.agents import Agents, flat
from credit.cases import close
from credit.worlds import DICE
from reference import options

Verdicts = list[list[list[bool | None]]]
T, F, N = True, False, None


def attempts(rewards: list[list[float]], verdicts: Verdicts, groups: list[int] | None = None) -> Rollouts:
    """One response of one token a decision."""
    episodes = [i for i, row in enumerate(rewards) for _ in row]
    of_group = [0] * len(rewards) if groups is None else groups
    rollouts = Rollouts.from_lists([[0]] * len(episodes), groups=[of_group[i] for i in episodes], episodes=episodes)
    rollouts = rollouts.with_reward("step", flat(rewards), level="response")
    return judged(rollouts, verdicts, "response")


def judged(rollouts: Rollouts, verdicts: Verdicts, level: str) -> Rollouts:
    rows = [row for episode in verdicts for row in episode]
    values = torch.tensor([[math.nan if v is None else float(v) for v in row] for row in rows], dtype=torch.float64)
    known = torch.tensor([[v is not None for v in row] for row in rows], dtype=torch.bool)
    return rollouts.with_reward("subgoals", values, known, level=level)


def calm(rollouts: Rollouts, unscored: str = "error", **settings: Any) -> Credit:
    return METHODS["calm"](**settings)(rollouts, unscored=unscored)


def detail(credit: Credit, name: str, level: str = "response") -> torch.Tensor:
    return credit.columns[f"{level}:credit/{name}"].tensor


def ended(credit: Credit, level: str = "response") -> list[list[int]]:
    return [row.nonzero().squeeze(1).tolist() for row in detail(credit, "terminations", level)]


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("potential", [True, False])
@given(dice=DICE)
def test_equals_the_naive_loop_however_turns_are_stored(
    once: bool, ordered: bool, potential: bool, dice: random.Random
) -> None:
    agents, goals, gamma = Agents.draw(dice), dice.randint(1, 3), dice.choice([0.0, 0.5, 1.0])
    verdicts = [[[dice.choice([T, T, F, N]) for _ in range(goals)] for _ in row] for row in agents.rewards]
    terminations = [options.terminations(rows, once, ordered) for rows in verdicts]
    shaped = [
        options.shaped(row, rows, bonus=0.25, gamma=gamma, once=once, ordered=ordered, potential=potential)
        for row, rows in zip(agents.rewards, verdicts, strict=True)
    ]
    returns = [options.returns(row, gamma) for row in shaped]
    advantages = options.against_the_turn(returns, agents.groups)
    for rollouts, level in agents.stored():
        credit = calm(
            judged(rollouts, verdicts, level), bonus=0.25, gamma=gamma, once=once, ordered=ordered, potential=potential
        )
        assert ended(credit, level) == [now for row in terminations for now in row]
        close(detail(credit, "shaped_rewards", level), flat(shaped))
        close(detail(credit, "step_returns", level), flat(returns))
        close(credit.advantages[rollouts.trained], agents.on_tokens(advantages))


# Which subgoals end


def test_several_subgoals_at_one_decision_all_pay_unless_ordered() -> None:
    rollouts = attempts([[0.0, 0.0, 0.0]], [[[T, T], [T, T], [T, T]]])
    assert ended(calm(rollouts)) == [[0, 1], [], []]
    assert ended(calm(rollouts, once=False)) == [[0, 1], [0, 1], [0, 1]]
    assert ended(calm(rollouts, ordered=True)) == [[0], [1], []]
    assert ended(calm(rollouts, ordered=True, once=False)) == [[0], [1], [0]]


def test_every_episode_begins_with_the_first_subgoal() -> None:
    rollouts = attempts([[0.0, 0.0], [0.0, 0.0]], [[[T, F], [F, T]], [[F, T], [T, F]]])
    assert ended(calm(rollouts, ordered=True)) == [[0], [1], [], [0]]


def test_a_long_walk_in_order() -> None:
    goals, steps = 3, 1000
    verdicts = [[[(t * 7 + g * g) % 5 == 0 for g in range(goals)] for t in range(steps)]]
    for once in (True, False):
        credit = calm(attempts([[0.0] * steps], verdicts), ordered=True, once=once)
        assert ended(credit) == options.terminations(verdicts[0], once, True)


def test_without_verdicts_it_is_the_plain_return() -> None:
    rewards = [[0.0, 1.0], [0.5]]
    nothing = attempts(rewards, [[[N, N], [N, N]], [[N, N]]])
    refused = attempts(rewards, [[[F, F], [F, F]], [[F, F]]])
    plain = step_relative(gamma=0.99)(nothing)
    assert torch.equal(calm(nothing).advantages, plain.advantages)
    assert torch.equal(calm(refused).advantages, plain.advantages)
    assert calm(nothing).unknown.tolist() == [False, False]  # no verdict is an answer here, not an unknown reward
    none_to_reach = nothing.with_reward("subgoals", torch.zeros(3, 0), level="response")
    for ordered in (True, False):
        assert torch.equal(calm(none_to_reach, ordered=ordered).advantages, plain.advantages)


def test_one_subgoal_may_be_one_number_a_decision() -> None:
    rollouts = attempts([[0.0, 0.0]], [[[F], [T]]])
    flat_verdicts = rollouts.with_reward("subgoals", torch.tensor([0.0, 1.0]), level="response")
    assert torch.equal(detail(calm(flat_verdicts), "terminations"), detail(calm(rollouts), "terminations"))


# What they pay


def test_a_potential_leaves_the_return_of_the_first_decision_alone() -> None:
    rewards, verdicts = [[0.0, 0.0, 1.0]], [[[T, F], [F, F], [F, T]]]
    plain = calm(attempts(rewards, verdicts), bonus=0.0, gamma=0.5)
    shaped = calm(attempts(rewards, verdicts), bonus=2.0, gamma=0.5, potential=True)
    assert detail(shaped, "shaped_rewards").tolist() == [1.0, -1.0, -1.0]
    # 0 of the potential after the end, 2 before the second and third decisions.
    assert (detail(plain, "step_returns") - detail(shaped, "step_returns")).tolist() == [0.0, 2.0, 2.0]


def test_a_subgoal_that_comes_back_cannot_be_farmed_with_a_potential() -> None:
    idle, busy = [[F], [F], [F]], [[T], [T], [T]]
    rollouts = attempts([[0.0] * 3, [0.0] * 3], [idle, busy])
    farmed = calm(rollouts, once=False, gamma=1.0)
    assert farmed.advantages[3] > 0
    safe = calm(rollouts, once=False, gamma=1.0, potential=True)
    assert float(safe.advantages[3]) == 0.0


def test_an_unknown_reward_of_the_task_drops_the_attempt() -> None:
    rollouts = attempts([[0.0, 1.0], [0.0, 0.0], [0.0]], [[[T], [F]], [[F], [F]], [[N]]])
    known = torch.tensor([True, True, True, False, True])
    unsure = rollouts.with_reward("step", torch.tensor([0.0, 1.0, 0.0, math.nan, 0.0]), known, level="response")
    credit = calm(unsure, "drop")
    assert credit.unknown.tolist() == [False, True, False]
    kept = torch.tensor([True, False, True])
    close(credit.select(kept).advantages, calm(rollouts.select(kept)).advantages)


def test_an_outcome_is_the_last_decisions_reward() -> None:
    rollouts = attempts([[0.0, 0.0], [0.0]], [[[T], [F]], [[F]]]).with_reward("outcome", torch.tensor([1.0, 0.0]))
    credit = calm(rollouts, component="outcome", bonus=0.5, gamma=0.5)
    assert detail(credit, "shaped_rewards").tolist() == [0.5, 1.0, 0.0]
    assert credit.advantages.tolist() == [1.0, 1.0, -1.0]


# The baseline


def test_a_decision_alone_at_its_turn_keeps_its_return() -> None:
    rollouts = attempts([[0.0, 3.0], [1.0]], [[[F], [F]], [[F]]])
    assert step_relative()(rollouts).advantages.tolist() == [2.0, 3.0, -2.0]
    by_std = step_relative(norm_by_std=True, eps=0.0)(rollouts)
    assert by_std.advantages.tolist() == pytest.approx([0.5**0.5, 0.0, -(0.5**0.5)])
    assert step_relative(norm_by_std=True, eps=0.0, singleton="raw")(rollouts).advantages[1] == 3.0


def test_a_group_of_one_attempt() -> None:
    one = attempts([[0.0, 1.0]], [[[T], [F]]])
    assert calm(one).advantages.tolist() == [0.0, 0.0]
    assert calm(one, singleton="raw", gamma=0.5, bonus=0.5).advantages.tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="1 groups have one member, expected at least two"):
        calm(one, singleton="error")


def test_by_state_a_later_visit_is_compared_too() -> None:
    rollouts = attempts([[0.0, 1.0], [4.0]], [[[F], [F]], [[F]]])
    keyed = rollouts.with_column("response:state_key", ["a", "b", "b"])
    assert calm(keyed, place="state", gamma=0.5).advantages.tolist() == [0.5, -3.0, 3.0]
    apart = keyed.with_groups(torch.tensor([0, 1]))
    assert not calm(apart, place="state").advantages.any()
    with pytest.raises(MissingColumn, match="'steps:state_key', which these rollouts lack: an environment"):
        calm(rollouts, place="state")
    with pytest.raises(InputError, match="1 steps have no state key, expected one each"):
        calm(keyed.with_column("response:state_key", ["a", None, "b"]), place="state")


@dataclass(frozen=True)
class Walk:
    """A path through a small world: rewards and verdicts of its turns, and the gradient of its log-probability."""

    probability: float
    rewards: list[float]
    verdicts: list[list[bool | None]]
    gradients: list[list[float]]


GO = [0.3, 0.6]
"""Probability to go on, before the first and the second turn; a third ends anyway."""


def walks() -> list[Walk]:
    """Every path: stopping early pays at once, going on pays and achieves a subgoal, the end pays most."""
    found = []
    for turns in (1, 2, 3):
        gradients, probability = [], 1.0
        for t in range(min(turns, len(GO))):
            goes = t + 1 < turns
            probability *= GO[t] if goes else 1 - GO[t]
            # d log p / d theta_t of a sigmoid.
            row = [0.0] * len(GO)
            row[t] = (1 - GO[t]) if goes else -GO[t]
            gradients.append(row)
        gradients += [[0.0] * len(GO)] * (turns - len(gradients))
        rewards = [0.5] * (turns - 1) + [[0.25, 1.0, 3.0][turns - 1]]
        going_on = [t + 1 < turns for t in range(turns)]
        found.append(Walk(probability, rewards, [[go, go and t == 1] for t, go in enumerate(going_on)], gradients))
    return found


def expected_gradient(size: int, **settings: Any) -> list[float]:
    """Of the mean over a group of ``size`` walks of ``sum_t A_t d log p_t``, over all groups there are."""
    total = [0.0] * len(GO)
    for group in itertools.product(walks(), repeat=size):
        rollouts = attempts([walk.rewards for walk in group], [walk.verdicts for walk in group])
        advantages = calm(rollouts, **settings).advantages.tolist()
        weight = math.prod(walk.probability for walk in group) / size
        for advantage, gradient in zip(advantages, [g for walk in group for g in walk.gradients], strict=True):
            total = [a + weight * advantage * g for a, g in zip(total, gradient, strict=True)]
    return total


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("settings", [{"bonus": 0.0}, {"potential": True}, {"potential": True, "ordered": True}])
def test_without_discount_the_expected_gradient_is_exact(size: int, settings: dict[str, Any]) -> None:
    settings = {"gamma": 1.0, **settings}
    true = [0.0] * len(GO)
    for walk in walks():
        for gradient in walk.gradients:
            true = [a + walk.probability * sum(walk.rewards) * g for a, g in zip(true, gradient, strict=True)]
    assert expected_gradient(size, **settings) == pytest.approx(true, abs=1e-12)
    assert METHODS["calm"](**settings).bias.claim is Claim.EXACT
    # The world can tell: bonuses move the gradient, and so they claim.
    assert expected_gradient(size, gamma=1.0) != pytest.approx(true, abs=1e-3)
    assert METHODS["calm"](gamma=1.0).bias.claim is Claim.BIASED


def test_claims() -> None:
    for settings in ({}, {"potential": True}, {"potential": True, "gamma": 1.0, "place": "state"}):
        assert METHODS["calm"](**settings).bias.claim is Claim.BIASED
    assert step_relative(norm_by_std=True).bias.claim is Claim.BIASED


# What cannot be used


def test_verdicts_are_of_decisions_and_of_0_and_1() -> None:
    rollouts = attempts([[0.0, 1.0]], [[[T], [F]]])
    with pytest.raises(InputError, match=r"verdicts 'subgoals' hold other numbers than 1 .* and 0"):
        calm(rollouts.with_reward("subgoals", torch.tensor([0.5, 1.0]), level="response"))
    bare = Rollouts.from_lists([[0], [0]], groups=[0, 0], episodes=[0, 0], rewards=[1.0])
    above = bare.with_reward("subgoals", torch.tensor([1.0]))
    with pytest.raises(InputError, match="verdicts 'subgoals' are one a episode, expected one row a response"):
        calm(above, component="outcome")
    with pytest.raises(MissingColumn, match=r"'reward/subgoals', which these rollouts lack: .*--annotators subgoals"):
        calm(bare, component="outcome")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": 1.5}, "gamma is 1.5, expected 0 to 1"),
        ({"gamma": -0.1}, "gamma is -0.1, expected 0 to 1"),
        ({"bonus": -1.0}, "bonus is -1.0, expected 0 or more"),
        ({"bonus": math.nan}, "bonus is nan, expected 0 or more"),
        ({"place": "room"}, "unknown place 'room'.*Known: state, turn"),
        ({"singleton": "mean"}, "singleton is 'mean', expected"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["calm"](**settings)
