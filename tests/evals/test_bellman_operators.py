"""Backups along the best action and along a policy's greedy one."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.evals.bellman_operators import (
    DecisionProcess,
    conservative_q,
    greedy_of,
    optimal_q,
    recovered_reward,
)
from reference import bellman


def process_of(seed: int, states: int, actions: int, gamma: float) -> tuple[DecisionProcess, torch.Tensor]:
    """Anything may follow anything, and end; and a policy."""
    generator = torch.Generator().manual_seed(seed)
    following = torch.randint(-1, states, (states, actions), generator=generator)
    rewards, policy = (torch.randn((states, actions), generator=generator, dtype=torch.float64) for _ in range(2))
    return DecisionProcess(following, rewards, gamma), policy.softmax(1)


@given(
    seed=st.integers(0, 10_000),
    states=st.integers(1, 5),
    actions=st.integers(1, 4),
    gamma=st.sampled_from([0.3, 0.9]),
    sweeps=st.integers(0, 8),
)
def test_sweeps_are_those_of_the_naive_loop(seed: int, states: int, actions: int, gamma: float, sweeps: int) -> None:
    process, policy = process_of(seed, states, actions, gamma)
    naive = bellman.swept(process.next_state.tolist(), process.rewards.tolist(), policy.tolist(), gamma, sweeps)
    conservative = conservative_q(process, policy, sweeps)
    for name, values in (
        ("q_conservative", conservative),
        ("q_optimal", optimal_q(process, sweeps)),
        ("recovered_reward", recovered_reward(conservative, process, policy)),
    ):
        assert torch.allclose(values, torch.tensor(naive[name], dtype=torch.float64), rtol=1e-12, atol=1e-12), name


@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([0.5, 0.9]))
def test_the_conservative_fixed_point_is_below_and_stands_for_the_reward(seed: int, gamma: float) -> None:
    process, policy = process_of(seed, 5, 3, gamma)
    conservative, best = conservative_q(process, policy, 500), optimal_q(process, 500)
    assert bool((conservative <= best + 1e-9).all())
    assert torch.allclose(recovered_reward(conservative, process, policy), process.rewards, rtol=0, atol=1e-9)
    # Where the policy is greedy for the optimum, being conservative costs nothing.
    assert torch.allclose(conservative_q(process, best, 500), best, rtol=0, atol=1e-9)


@given(seed=st.integers(0, 10_000))
def test_it_is_a_contraction(seed: int) -> None:
    process, policy = process_of(seed, 4, 3, 0.7)
    fixed = conservative_q(process, policy, 400)
    apart = [float((conservative_q(process, policy, k) - fixed).abs().max()) for k in range(6)]
    assert all(later <= 0.7 * earlier + 1e-12 for earlier, later in itertools.pairwise(apart))


def test_of_equal_actions_the_first_is_greedy() -> None:
    assert greedy_of(torch.tensor([[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("following", "rewards", "gamma", "message"),
    [
        ([[1, -1]], [[0.0]], 0.9, r"next_state has shape \(1, 2\) and rewards \(1, 1\)"),
        ([[1, -1]], [[0.0, 0.0]], 0.9, "leads outside the states, expected 0 to 0, or -1"),
        ([[-2, -1]], [[0.0, 0.0]], 0.9, "leads outside the states"),
        ([[0, -1]], [[0.0, 0.0]], 0.0, "gamma is 0.0, expected above 0 to 1"),
    ],
)
def test_bad_processes(following: list, rewards: list, gamma: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DecisionProcess(torch.tensor(following), torch.tensor(rewards), gamma)


def test_bad_policies_and_sweeps() -> None:
    process, policy = process_of(0, 2, 2, 0.9)
    with pytest.raises(InputError, match=r"the policy has shape \(2, 1\), expected \(2, 2\)"):
        conservative_q(process, policy[:, :1], 3)
    with pytest.raises(InputError, match="got -1 sweeps"):
        optimal_q(process, -1)
