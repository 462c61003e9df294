"""What is GiGPO's own: states that come back, two comparisons, penalties, and where rewards stand."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.credit import METHODS, Credit
from apportion.credit.members import against_members
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.agents import Agents, flat
from credit.cases import close
from credit.worlds import DICE
from golden.files import VECTORS, Case, differences, read_cases
from reference import anchors

NAMES = ("step_returns", "episode_advantages", "step_advantages")


def attempts(rewards: list[list[float]], states: list[list[str]], groups: list[int] | None = None) -> Rollouts:
    """One response of one token a step."""
    episodes = [i for i, row in enumerate(rewards) for _ in row]
    of_group = [0] * len(rewards) if groups is None else groups
    rollouts = Rollouts.from_lists(
        [[0]] * len(episodes), groups=[of_group[i] for i in episodes], episodes=episodes
    ).with_reward("step", flat(rewards), level="response")
    return rollouts.with_column("response:state_key", [s for row in states for s in row])


def gigpo(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["gigpo"](**settings)(rollouts)


def detail(credit: Credit, name: str, level: str = "response") -> torch.Tensor:
    return credit.columns[f"{level}:credit/{name}"].tensor


@pytest.mark.parametrize("case", read_cases(VECTORS / "gigpo.json"), ids=lambda case: case.name)
def test_the_naive_loop_agrees_with_the_golden_file(case: Case) -> None:
    given = case.arguments
    rewards = given["step_rewards"]
    parts = anchors.gigpo(
        rewards,
        given["anchor_states"],
        given["group_ids"],
        given.get("step_penalties", [[0.0] * len(row) for row in rewards]),
        [[given["gamma"]] * len(row) for row in rewards],
        mode=given["mode"],
        eps=given["eps"],
        episode_stats=given["episode_stats"],
    )
    whole = [
        [a + given["step_weight"] * b for a, b in zip(*rows, strict=True)] for rows in zip(*parts[1:], strict=True)
    ]
    result = {**dict(zip(NAMES, parts, strict=True)), "advantages": whole}
    assert not list(differences(result, case.expected, case.atol))


@pytest.mark.parametrize("mode", ["mean_norm", "mean_std_norm"])
@pytest.mark.parametrize("episode_stats", ["trajectory", "step"])
@pytest.mark.parametrize("per", ["step", "token"])
@given(dice=DICE)
def test_equals_the_naive_loop_however_turns_are_stored(
    mode: str, episode_stats: str, per: str, dice: random.Random
) -> None:
    agents, gamma, weight = Agents.draw(dice), dice.choice([0.0, 0.5, 1.0]), dice.choice([0.5, 1.0])
    penalties = [[dice.choice([0.0, 0.125]) for _ in row] for row in agents.rewards]
    sizes = [[len(turn) if per == "token" else 1 for turn in turns] for turns in agents.said]
    expected = anchors.gigpo(
        agents.rewards,
        agents.states,
        agents.groups,
        penalties,
        [[gamma**size for size in row] for row in sizes],
        mode=mode,
        eps=1e-6,
        episode_stats=episode_stats,
    )
    stage = METHODS["gigpo"](gamma=gamma, step_weight=weight, mode=mode, episode_stats=episode_stats, per=per)
    for rollouts, level in agents.stored():
        credit = stage(rollouts.with_column(f"{level}:penalty", flat(penalties)))
        for name, rows in zip(NAMES, expected, strict=True):
            close(detail(credit, name, level), flat(rows))
        whole = agents.on_tokens(expected[1]) + weight * agents.on_tokens(expected[2])
        close(credit.advantages[rollouts.trained], whole)


# States


def test_without_states_that_come_back_it_compares_attempts_alone() -> None:
    rewards, states = [[0.0, 1.0], [0.0, 0.0]], [["a", "b"], ["a", "c"]]
    unique = [[f"{s} {i} {t}" for t, s in enumerate(row)] for i, row in enumerate(states)]
    alone, both = gigpo(attempts(rewards, unique)), gigpo(attempts(rewards, states))
    assert not detail(alone, "step_advantages").any()
    assert alone.advantages.tolist() == [0.5, 0.5, -0.5, -0.5]
    assert detail(both, "step_advantages").tolist() == [0.475, 0.0, -0.475, 0.0]
    assert torch.equal(detail(both, "episode_advantages"), alone.advantages)


def test_an_attempt_that_comes_back_to_a_state_counts_twice() -> None:
    credit = gigpo(attempts([[0.0, 1.0], [0.0]], [["a", "a"], ["a"]]), gamma=0.5)
    assert detail(credit, "step_advantages").tolist() == [0.0, 0.5, -0.5]


def test_the_same_state_in_another_group_is_another() -> None:
    rewards, states = [[1.0], [0.0], [4.0], [0.0]], [["a"], ["b"], ["a"], ["b"]]
    credit = gigpo(attempts(rewards, states, groups=[0, 0, 1, 1]))
    assert not detail(credit, "step_advantages").any()


def test_states_may_be_alike_instead_of_equal() -> None:
    first, near, far = "x" * 20, "x" * 19 + "y", "x" * 17 + "yyy"
    rollouts = attempts([[1.0], [0.0], [3.0]], [[first], [near], [far]])
    assert not detail(gigpo(rollouts), "step_advantages").any()
    # ``far`` is alike ``near`` (0.9) but not the first of their cluster (0.85).
    assert detail(gigpo(rollouts, similarity=0.9), "step_advantages").tolist() == [0.5, -0.5, 0.0]
    backwards = rollouts.select(torch.tensor([2, 1, 0]))
    assert detail(gigpo(backwards, similarity=0.9), "step_advantages").tolist() == [1.5, -1.5, 0.0]
    apart = rollouts.with_groups(torch.tensor([0, 1, 1]))
    assert not detail(gigpo(apart, similarity=0.95), "step_advantages").any()


@pytest.mark.parametrize("present", [None, torch.tensor([True, False])])
def test_every_step_needs_a_state(present: torch.Tensor | None) -> None:
    rollouts = attempts([[1.0], [0.0]], [["a"], ["a"]])
    keys = ["a", None] if present is None else ["a", "a"]
    with pytest.raises(InputError, match="1 steps have no state key, expected one each"):
        gigpo(rollouts.with_column("response:state_key", keys, present))
    without = replace(rollouts, columns={n: c for n, c in rollouts.columns.items() if n != "response:state_key"})
    with pytest.raises(MissingColumn, match="'steps:state_key', which these rollouts lack"):
        gigpo(without)


# Rewards


def test_a_penalty_is_of_its_own_step() -> None:
    rollouts = attempts([[0.0, 1.0], [0.0, 0.0]], [["a", "b"], ["a", "b"]])
    credit = gigpo(rollouts.with_column("response:penalty", torch.tensor([0.0, 0.25, 0.0, 0.0])), gamma=1.0)
    assert detail(credit, "step_returns").tolist() == [1.0, 0.75, 0.0, 0.0]
    assert detail(credit, "episode_advantages").tolist() == [0.5, 0.25, -0.5, -0.5]


def test_a_discount_a_token_passes_the_words_of_the_step() -> None:
    rollouts = Rollouts.from_lists([[1, 1, 1], [1]], groups=[0, 0], episodes=[0, 0], trained=[[1, 0, 1], [1]])
    rollouts = rollouts.with_reward("step", torch.tensor([1.0, 4.0]), level="response")
    rollouts = rollouts.with_column("response:state_key", ["a", "b"])
    by = {per: detail(gigpo(rollouts, gamma=0.5, per=per), "step_returns").tolist() for per in ("step", "token")}
    assert by == {"step": [3.0, 4.0], "token": [2.0, 4.0]}


@given(dice=DICE)
def test_an_outcome_is_the_last_steps_reward(dice: random.Random) -> None:
    agents = Agents.draw(dice)
    ended = replace(agents, rewards=[[0.0] * (len(row) - 1) + [sum(row)] for row in agents.rewards])
    for (rollouts, _), (at_end, _) in zip(agents.stored(), ended.stored(), strict=True):
        close(gigpo(rollouts, component="outcome").advantages, gigpo(at_end).advantages)


def test_a_reward_below_the_turn_belongs_to_the_turn_it_ends_in_or_follows() -> None:
    ids, trained = [[8, 1, 1, 9, 1, 9], [1]], [[0, 1, 1, 0, 1, 0], [1]]
    rollouts = Rollouts.from_lists(ids, groups=[0, 0], trained=trained)
    rollouts = rollouts.with_spans("turn", torch.tensor([1, 4, 6]), torch.tensor([3, 5, 7]))
    rollouts = rollouts.with_column("turn:state_key", ["a", "b", "c"])
    rewards = torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    settings = {"component": "tokens", "gamma": 0.0}
    credit = gigpo(rollouts.with_reward("tokens", rewards, level="token"), **settings)
    assert detail(credit, "step_returns", "turn").tolist() == [7.0, 24.0, 32.0]
    by_response = rollouts.with_reward("tokens", torch.tensor([31.0, 32.0]), level="response")
    assert detail(gigpo(by_response, **settings), "step_returns", "turn").tolist() == [0.0, 31.0, 32.0]
    spans = rollouts.with_spans("macro", torch.tensor([1, 3]), torch.tensor([2, 7 - 1]))
    spans = spans.with_reward("tokens", torch.tensor([1.0, 2.0]), level="macro")
    assert detail(gigpo(spans, **settings), "step_returns", "turn").tolist() == [1.0, 2.0, 0.0]
    rewards[0] = 0.5
    with pytest.raises(InputError, match="1 rewards 'tokens' come before the first turn of their episode"):
        gigpo(rollouts.with_reward("tokens", rewards, level="token"), **settings)


def test_attempts_without_steps_are_left_out() -> None:
    rollouts = Rollouts.from_lists([[1], [1], [1]], groups=[0, 0, 0], rewards=[1.0, 0.0, 64.0])
    rollouts = rollouts.with_spans("turn", torch.tensor([0, 1]), torch.tensor([1, 2]))
    rollouts = rollouts.with_column("turn:state_key", ["a", "b"])
    assert gigpo(rollouts, component="outcome").advantages.tolist() == [0.5, -0.5, 0.0]


def test_an_unknown_reward_of_a_step_makes_its_attempt_unknown() -> None:
    rollouts = attempts([[0.0, 1.0], [0.0, 0.0], [0.0]], [["a", "b"], ["a", "b"], ["a"]])
    known = torch.tensor([True, True, False, True, True])
    unsure = rollouts.with_reward("step", torch.tensor([0.0, 1.0, math.nan, 0.0, 0.0]), known, level="response")
    stage = METHODS["gigpo"]()
    credit = stage(unsure, unscored="drop")
    assert credit.unknown.tolist() == [False, True, False]
    kept = torch.tensor([True, False, True])
    close(credit.select(kept).advantages, stage(rollouts.select(kept)).advantages)


# Groups of one attempt


def test_a_group_of_one_attempt() -> None:
    one = attempts([[0.0, 1.0]], [["a", "a"]])
    assert gigpo(one).advantages.tolist() == [0.0, 0.0]
    raw = gigpo(one, singleton="raw", gamma=0.5)
    assert detail(raw, "episode_advantages").tolist() == [1.0, 1.0]
    assert detail(raw, "step_advantages").tolist() == [-0.25, 0.25]
    with pytest.raises(InputError, match="1 groups have one member, expected at least two"):
        gigpo(one, singleton="error")
    known = torch.tensor([True, True, False])
    two = attempts([[0.0, 1.0], [0.0]], [["a", "a"], ["a"]])
    lost = two.with_reward("step", torch.tensor([0.0, 1.0, 0.0]), known, level="response")
    assert not METHODS["gigpo"](singleton="raw")(lost, unscored="drop").advantages.any()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.0, 0.0, 2.0, 0.0]),
        ({"leave_one_out": True}, [0.0, 0.0, 4.0, 0.0]),
        ({"singleton": "raw"}, [0.0, 5.0, 2.0, 0.0]),
        ({"singleton": "raw", "norm_by_std": True, "eps": 1.0}, [0.0, 2.5, 2.0 / (8**0.5 + 1), 0.0]),
        ({"norm_by_std": True, "eps": 0.0}, [0.0, 0.0, 0.5**0.5, 0.0]),
    ],
)
def test_some_make_the_statistic_and_all_receive_it(settings: dict[str, Any], expected: list[float]) -> None:
    # Group 0 has no member, group 1 one, group 2 the members 2 and 6 among three rows.
    values = torch.tensor([3.0, 5.0, 6.0, 4.0, 2.0], dtype=torch.float64)
    group, members = torch.tensor([0, 1, 2, 2, 2]), torch.tensor([False, True, True, False, True])
    result = against_members(values, group, members, **settings)
    close(result[:4], torch.tensor(expected, dtype=torch.float64))
    assert result[4] == -result[2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": 1.5}, "gamma is 1.5, expected 0 to 1"),
        ({"step_weight": -1.0}, "step_weight is -1.0, expected 0 or more"),
        ({"mode": "mean"}, "unknown mode 'mean'"),
        ({"episode_stats": "episode"}, "unknown episode_stats 'episode'"),
        ({"per": "turn"}, "unknown discount 'turn'"),
        ({"similarity": 1.0}, "similarity is 1.0, expected a number between 0 and 1"),
        ({"similarity": 0.0}, "similarity is 0.0, expected a number between 0 and 1"),
        ({"eps": -1.0}, "eps is -1.0, expected 0 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["gigpo"](**settings)
