"""What is OPRL's own: rewards of turns out of two models' log-probs, and two comparisons."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.credit import METHODS, Credit
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.agents import Agents, flat
from credit.cases import close
from credit.worlds import DICE
from golden.files import VECTORS, Case, differences, read_cases
from reference import implicit

NAMES = ("step_rewards", "episode_advantages", "step_advantages")


def turns(prm: list[list[float]], old: list[list[float]], rewards: list[float], **given: Any) -> Rollouts:
    """One response a turn, in one group."""
    rollouts = Rollouts.from_lists(
        [range(len(row)) for row in prm], groups=[0] * len(prm), rewards=rewards, log_probs_old=old, **given
    )
    return rollouts.with_column("log_probs/prm", flat(prm))


def oprl(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["oprl"](**{"beta": 1.0, "norm": "none", **settings})(rollouts)


def detail(credit: Credit, name: str, level: str = "response") -> torch.Tensor:
    return credit.columns[f"{level}:credit/{name}"].tensor


@pytest.mark.parametrize("case", read_cases(VECTORS / "oprl.json"), ids=lambda case: case.name)
def test_the_naive_loop_agrees_with_the_golden_file(case: Case) -> None:
    given = dict(case.arguments)
    attempts = sorted(set(given["traj_ids"]), key=given["traj_ids"].index)
    rows = [[k for k, t in enumerate(given["traj_ids"]) if t == attempt] for attempt in attempts]
    advantages = implicit.oprl(
        [[given["prm_logprobs"][k] for k in row] for row in rows],
        [[given["old_logprobs"][k] for k in row] for row in rows],
        [given["episode_rewards"][row[0]] for row in rows],
        [given["group_ids"][row[0]] for row in rows],
        **{name: given[name] for name in ("beta", "alpha", "estimator", "norm", "step_baseline", "eps")},
    )
    by_row = {k: a for row, numbers in zip(rows, advantages, strict=True) for k, a in zip(row, numbers, strict=True)}
    result = {"advantages": [[by_row[k]] * len(tokens) for k, tokens in enumerate(given["prm_logprobs"])]}
    expected = {"advantages": case.expected["advantages"]}
    assert not list(differences(result, expected, case.atol))


@pytest.mark.parametrize("estimator", ["rloo", "grpo_mean", "grpo_std"])
@pytest.mark.parametrize("step_baseline", ["all_rows", "first_row"])
@given(dice=DICE)
def test_equals_the_naive_loop_however_turns_are_stored(
    estimator: str, step_baseline: str, dice: random.Random
) -> None:
    agents = Agents.draw(dice)
    settings = {
        "beta": dice.choice([0.05, 1.0]),
        "alpha": dice.choice([0.0, 0.5, 1.0]),
        "estimator": estimator,
        "norm": dice.choice(["none", "batch_max"]),
        "step_baseline": step_baseline,
        "eps": 1e-6,
    }
    old, prm = {w: -dice.randint(1, 16) / 8 for w in range(2)}, {w: -dice.randint(1, 16) / 8 for w in range(2)}
    expected = implicit.oprl(
        agents.of_words(lambda w: prm[w]),
        agents.of_words(lambda w: old[w]),
        [sum(row) for row in agents.rewards],
        agents.groups,
        **settings,
    )
    for rollouts, _ in agents.stored():
        words = rollouts.ids.tolist()
        for name, numbers in (("log_probs/old", old), ("log_probs/prm", prm)):
            values = torch.tensor([numbers.get(w, 0.0) for w in words], dtype=torch.float64)
            rollouts = rollouts.with_statistic(name, values, "model")
        credit = METHODS["oprl"](**settings)(rollouts)
        close(credit.advantages[rollouts.trained], agents.on_tokens(expected))


# Limits


def test_a_reward_model_equal_to_the_policy_leaves_the_outcome() -> None:
    same = [[-1.0, -0.5], [-0.25], [-2.0]]
    rollouts = turns(same, same, [1.0, 0.0, 0.0])
    credit = oprl(rollouts, norm="batch_max")
    assert torch.equal(credit.advantages, METHODS["rloo"]()(rollouts).advantages)
    for name in ("step_rewards", "step_advantages"):
        assert not detail(credit, name).any()


def test_turns_are_compared_though_all_attempts_succeed() -> None:
    credit = oprl(turns([[-1.0], [-2.0]], [[-2.0], [-1.0]], [1.0, 1.0]))
    assert not detail(credit, "episode_advantages").any()
    assert credit.advantages.tolist() == [2.0, -2.0]


def test_a_turns_reward_is_the_sum_over_its_trained_tokens() -> None:
    prm, old = [[-1.0, -0.5, -1.0], [-1.0]], [[-2.0, -3.0, -1.5], [-1.0]]
    rollouts = turns(prm, old, [0.0], episodes=[0, 0], trained=[[1, 0, 1], [1]])
    assert detail(oprl(rollouts, beta=0.5), "step_rewards").tolist() == [0.75, 0.0]


def test_the_largest_reward_of_the_batch_is_one() -> None:
    credit = oprl(turns([[-1.0], [-3.0]], [[-2.0], [-1.0]], [1.0, 0.0]), beta=0.05, norm="batch_max")
    assert detail(credit, "step_rewards").tolist() == pytest.approx([0.5, -1.0], abs=1e-4)


def test_the_first_turns_make_the_baseline_of_all() -> None:
    prm, old = [[-1.0], [-1.0], [-2.0]], [[-2.0], [-4.0], [-1.0]]  # rewards 1, 3 and -1 in two attempts
    rollouts = turns(prm, old, [0.0, 0.0], episodes=[0, 0, 1])
    by = {b: oprl(rollouts, estimator="grpo_mean", step_baseline=b) for b in ("all_rows", "first_row")}
    assert detail(by["all_rows"], "step_advantages").tolist() == [0.0, 2.0, -2.0]
    assert detail(by["first_row"], "step_advantages").tolist() == [1.0, 3.0, -1.0]


def test_a_turn_without_trained_tokens_is_not_compared() -> None:
    prm, old = [[-1.0], [], [-2.0]], [[-2.0], [], [-1.0]]
    rollouts = turns(prm, old, [1.0, 0.0], episodes=[0, 0, 1])
    credit = oprl(rollouts)
    assert detail(credit, "step_advantages").tolist() == [2.0, 0.0, -2.0]
    assert detail(credit, "episode_advantages").tolist() == [1.0, 0.0, -1.0]


def test_a_group_of_one_attempt() -> None:
    one = turns([[-1.0], [-1.0]], [[-2.0], [-4.0]], [0.5], episodes=[0, 0])
    assert oprl(one).advantages.tolist() == [0.0, 0.0]
    raw = oprl(one, singleton="raw")
    assert detail(raw, "episode_advantages").tolist() == [0.5, 0.5]
    assert detail(raw, "step_advantages").tolist() == [-2.0, 2.0]
    first = oprl(one, singleton="raw", step_baseline="first_row")
    assert detail(first, "step_advantages").tolist() == [1.0, 3.0]
    with pytest.raises(InputError, match="1 groups have one member, expected at least two"):
        oprl(one, singleton="error")


# What it refuses


def test_both_models_must_have_seen_every_trained_token() -> None:
    rollouts = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.0], log_probs_old=[[-1.0], [-1.0]])
    with pytest.raises(MissingColumn, match="'token:log_probs/prm'"):
        oprl(rollouts)
    some = rollouts.with_column("log_probs/prm", torch.tensor([-1.0, 0.0]), torch.tensor([True, False]))
    with pytest.raises(InputError, match="oprl reads 'token:log_probs/prm' at 1 rows where it is missing"):
        oprl(some)
    with pytest.raises(InputError, match=r"log_probs/prm' has a log-probability of 0\.5, expected at most 0"):
        turns([[0.5]], [[-1.0]], [1.0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": 0.0}, "beta is 0.0, expected more than 0"),
        ({"beta": float("inf")}, "beta is inf, expected more than 0"),
        ({"alpha": -1.0}, "alpha is -1.0, expected 0 or more"),
        ({"estimator": "grpo"}, "unknown estimator 'grpo': did you mean 'grpo_"),
        ({"norm": "max"}, "unknown norm 'max'"),
        ({"step_baseline": "rows"}, "unknown step baseline 'rows'"),
        ({"eps": -1.0}, "eps is -1.0, expected 0 or more"),
        ({"singleton": "one"}, "singleton is 'one', expected"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["oprl"](**settings)
