"""ROVER's regression beyond the common suite, and the uniform policy it values."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS
from apportion.errors import InputError, MissingColumn
from apportion.evals.uniform_policy import (
    greedy_policy,
    rewarded_leaves,
    softmax_policy,
    success,
    success_bound,
    uniform_q,
)
from apportion.models.tabular import TabularPolicy
from apportion.objectives import OBJECTIVES
from apportion.objectives.rover import regression
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate

CENTRED = METHODS["grpo"](norm_by_std=False, singleton="raw")


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def two_turns() -> Rollouts:
    """An episode of two responses with tool output inside the first, one of one token, and one of another group."""
    rollouts = Rollouts.from_lists(
        [[1, 2, 9], [3, 4], [5], [6]],
        groups=[0, 0, 0, 1],
        episodes=[0, 0, 1, 2],
        rewards=[1.0, 0.0, 1.0],
        trained=[[1, 1, 0], [1, 1], [1], [1]],
    )
    for name in ("log_probs/old", "vocab_mean/old"):
        rollouts = rollouts.with_statistic(name, torch.full((7,), -1.0, dtype=torch.float64), "trainer")
    return rollouts


def test_the_next_value_is_that_of_the_next_trained_token_of_the_episode() -> None:
    rollouts = two_turns()
    credit = CENTRED(rollouts)
    means = doubles(0.0, 1.0, torch.nan, 2.0, 4.0, 8.0, 16.0) - 1.0
    now = {"log_probs": torch.full((7,), -1.0, dtype=torch.float64), "vocab_mean": means}
    at = regression(now, rollouts, credit, rho=2.0, next_q_scale=0.5)
    assert at.tokens.tolist() == [0, 1, 3, 4, 5, 6]
    assert at.next_q.tolist() == [2.0, 4.0, 8.0, 0.0, 0.0, 0.0]
    assert at.targets.tolist() == [1.5, 2.5, 4.5, 0.5, -0.5, 1.0]  # a group of one keeps its raw reward
    loss = OBJECTIVES["rover"](rho=2.0, next_q_scale=0.5)(now, rollouts, credit)
    assert loss.value.item() == pytest.approx(float((at.targets**2).mean()))
    assert loss.metrics["q_size"].item() == 0
    assert loss.metrics["next_q"].item() == pytest.approx(14 / 6)


@given(rho=st.sampled_from([0.5, 1.0, 2.0]), rewards=st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=3))
def test_the_first_step_is_twice_a_centred_policy_gradient(rho: float, rewards: list[float]) -> None:
    rollouts = two_turns().with_reward("outcome", torch.tensor(rewards))
    credit = CENTRED(rollouts)
    now = {name: rollouts.column(f"{name}/old").clone() for name in ("log_probs", "vocab_mean")}
    now["log_probs"].requires_grad_()
    OBJECTIVES["rover"](rho=rho)(now, rollouts, credit).value.backward()
    expected = -2 * rho * credit.advantages / int(credit.counted.sum())
    torch.testing.assert_close(now["log_probs"].grad, expected, rtol=0, atol=1e-15)
    assert OBJECTIVES["rover"]().watches == ("vocab_mean",)  # the trainer hands it over without gradient


def test_episodes_left_out_are_as_if_they_were_not_there() -> None:
    rollouts = two_turns()
    lost = rollouts.with_reward("outcome", doubles(1.0, 0.0, 1.0), scored=torch.tensor([True, False, True]))
    now = {
        "log_probs": -torch.rand(7, dtype=torch.float64) - 0.1,
        "vocab_mean": -torch.rand(7, dtype=torch.float64) - 2,
    }
    whole = OBJECTIVES["rover"]()(now, lost, CENTRED(lost, unscored="drop"))
    kept = torch.tensor([True, False, True])
    tokens = rollouts.indices(kept)["token"]
    # A group that dropping leaves with one is dead, while one sampled with one member keeps its raw reward.
    part = CENTRED(lost, unscored="drop").select(kept)
    alone = OBJECTIVES["rover"]()({n: v[tokens] for n, v in now.items()}, part.rollouts, part)
    assert whole.value.item() == pytest.approx(alone.value.item(), rel=1e-14)


def test_all_rewards_equal_only_pull_the_value_towards_the_next() -> None:
    rollouts = two_turns().with_reward("outcome", doubles(1.0, 1.0, 0.0))
    credit = CENTRED(rollouts)
    now = {name: rollouts.column(f"{name}/old").clone() for name in ("log_probs", "vocab_mean")}
    assert OBJECTIVES["rover"]()(now, rollouts, credit).value.item() == 0
    now["vocab_mean"][1] += 1.0
    assert OBJECTIVES["rover"]()(now, rollouts, credit).value.item() == pytest.approx(1 / 6)
    assert OBJECTIVES["rover"](next_q_scale=0.0)(now, rollouts, credit).value.item() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 0.0}, "rho is 0.0, expected more than 0"),
        ({"rho": -1.0}, "rho is -1.0"),
        ({"rho": float("nan")}, "rho is nan"),
        ({"next_q_scale": -0.5}, "next_q_scale is -0.5, expected 0 or more"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES["rover"](**settings)


def test_the_statistics_of_the_sampling_policy_are_needed() -> None:
    rollouts = two_turns()
    lacking = replace(rollouts, columns={n: c for n, c in rollouts.columns.items() if "vocab_mean" not in n})
    now = {name: torch.full((7,), -1.0, dtype=torch.float64) for name in ("log_probs", "vocab_mean")}
    with pytest.raises(MissingColumn, match="vocab_mean/old"):
        OBJECTIVES["rover"]()(now, lacking, CENTRED(lacking))


# The uniform policy

STRINGS = st.sets(st.tuples(*[st.integers(0, 2)] * 3), max_size=6)


@given(rewarded=STRINGS)
def test_the_uniform_value_is_the_share_of_rewarded_completions(rewarded: set[tuple[int, ...]]) -> None:
    q = uniform_q(rewarded_leaves(3, 3, sorted(rewarded)))
    for depth in range(3):
        for row, prefix in enumerate(itertools.product(range(3), repeat=depth)):
            for token in range(3):
                completions = list(itertools.product(range(3), repeat=2 - depth))
                share = sum((*prefix, token, *rest) in rewarded for rest in completions) / len(completions)
                assert q[depth][row, token].item() == pytest.approx(share)


@given(rewarded=STRINGS, rho=st.sampled_from([0.02, 0.1, 1.0, 5.0]))
def test_greedy_is_optimal_and_softmax_above_its_bound(rewarded: set[tuple[int, ...]], rho: float) -> None:
    rewards = rewarded_leaves(3, 3, sorted(rewarded))
    q = uniform_q(rewards)
    policy = softmax_policy(q, rho)
    assert success(greedy_policy(q), rewards) == float(bool(rewarded))
    exact = 0.0
    for string in rewarded:
        chance, row = 1.0, 0
        for depth, token in enumerate(string):
            chance, row = chance * policy[depth][row, token].item(), row * 3 + token
        exact += chance
    assert success(policy, rewards) == pytest.approx(exact)
    if rewarded:
        assert success_bound(q, policy, rho) <= exact + 1e-12


def test_the_tree_of_the_paper() -> None:
    """Four strings of three letters: spread over all of them at a low temperature, where greedy finds one."""
    strings = [[0, 2, 3], [1, 3, 2], [2, 0, 1], [3, 1, 0]]
    rewards = rewarded_leaves(4, 3, strings)
    q = uniform_q(rewards)
    assert q[0].tolist() == [[1 / 16] * 4]
    cold = softmax_policy(q, 0.05)
    assert success(cold, rewards) == pytest.approx(0.980, abs=5e-4)
    assert success(softmax_policy(q, 1.0), rewards) == pytest.approx(0.142, abs=5e-4)


@pytest.mark.parametrize("string", [[0, 1], [0, 1, 2, 0], [0, 1, 3], [-1, 0, 0]])
def test_strings_that_are_no_leaves(string: list[int]) -> None:
    with pytest.raises(InputError, match="expected 3 tokens from 0 to 2"):
        rewarded_leaves(3, 3, [string])


def test_values_at_no_temperature() -> None:
    with pytest.raises(InputError, match="rho is 0, expected more than 0"):
        softmax_policy(uniform_q(rewarded_leaves(2, 1, [[0]])), 0)


def test_it_learns_a_tree() -> None:
    """The paper's, by the trainer's own gradient."""
    strings = torch.tensor([[0, 2, 3], [1, 3, 2], [2, 0, 1], [3, 1, 0]])
    policy = TabularPolicy(vocabulary=4, depth=3)
    optimiser = torch.optim.Adam([policy.logits], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    objective = OBJECTIVES["rover"]()
    prompt = torch.zeros(16, dtype=torch.int64)
    for _ in range(150):
        drawn = torch.zeros((16, 0), dtype=torch.int64)
        for _ in range(3):
            chances = policy.next_logits(prompt, drawn).detach().softmax(1)
            drawn = torch.cat([drawn, torch.multinomial(chances, 1, generator=generator)], 1)
        right = (drawn[:, None] == strings).all(2).any(1)
        rollouts = Rollouts.from_lists(
            drawn.tolist(), groups=[0] * 16, rewards=right.double().tolist(), prompts=[[0]] * 16
        )
        old = policy.statistics(rollouts, torch.arange(16), ["log_probs", "vocab_mean"])
        for name, values in old.items():
            rollouts = rollouts.with_column(f"{name}/old", values)
        credit = CENTRED(rollouts)
        for _ in range(4):
            optimiser.zero_grad()
            accumulate(policy, objective, rollouts, credit, [torch.arange(16)])
            optimiser.step()
    tree = [policy.logits[policy.starts[d] : policy.starts[d + 1]].detach().softmax(1) for d in range(3)]
    assert success(tree, rewarded_leaves(4, 3, strings.tolist())) > 0.95
