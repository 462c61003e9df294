"""Implicit rewards of preference-tuned models, and the soft-optimal values they stand for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion.credit import METHODS
from apportion.credit.soft_optimal import (
    backward_induction,
    beam_search,
    proxy_tuned,
    read_logits,
    soft_optimal,
)
from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import ORIGINS, Rollouts

BETA = 0.5


def random_tree(vocabulary: int, depth: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(vocabulary**d, vocabulary) for d in range(depth)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def random_reference(vocabulary: int, depth: int, seed: int) -> list[Tensor]:
    return [logits.softmax(1) for logits in random_tree(vocabulary, depth, seed + 1000)]


def along(tree: list[Tensor], sequence: tuple[int, ...]) -> list[float]:
    """The entries of a tree that a sequence passes."""
    passed, row = [], 0
    for level, token in zip(tree, sequence, strict=True):
        passed.append(level[row, token].item())
        row = row * level.shape[1] + token
    return passed


SEEDS = st.integers(0, 2**16)


# As credit


def test_every_origin_is_credited_and_nothing_else_is_read() -> None:
    rollouts = Rollouts.from_lists([[1, 9, 2], [3], [4], [5]], groups=[0] * 4, trained=[[1, 0, 1], [1], [1], [1]])
    rollouts = rollouts.with_column("response:origin", list(ORIGINS))
    for name, values in (("old", [-1.0, -2.0, -0.5, -0.25, -3.0]), ("reference", [-2.0, -1.0, -0.5, -1.0, -1.0])):
        holed = torch.tensor([values[0], torch.nan, *values[1:]], dtype=torch.float64)
        rollouts = rollouts.with_statistic(f"log_probs/{name}", holed, "trainer")
    credit = METHODS["token_dpo"](beta=0.5)(rollouts)
    assert credit.advantages.tolist() == [0.5, 0.0, -0.5, 0.0, 0.375, -1.0]
    assert torch.equal(credit.columns["token:credit/implicit_reward"].tensor, credit.advantages)
    assert torch.equal(credit.trained, rollouts.trained)


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf")])
def test_bad_beta(beta: float) -> None:
    with pytest.raises(InputError, match=r"beta is .*, expected more than 0"):
        METHODS["token_dpo"](beta=beta)


@given(seed=SEEDS)
def test_the_soft_optimal_policys_log_ratios_are_its_advantages(seed: int) -> None:
    """Through the trainer's statistics: a table that holds Q is the soft-optimal policy at temperature beta."""
    vocabulary, depth = 3, 3
    rewards, reference = random_tree(vocabulary, depth, seed), random_reference(vocabulary, depth, seed)
    best = soft_optimal(rewards, reference, BETA)
    policy, base = TabularPolicy(vocabulary, depth), TabularPolicy(vocabulary, depth)
    with torch.no_grad():
        policy.logits.copy_(torch.cat(best.q) / BETA)
        base.logits.copy_(torch.cat(reference).log())
    sequences = list(itertools.product(range(vocabulary), repeat=depth))
    rollouts = Rollouts.from_lists(sequences, groups=[0] * len(sequences), prompts=[[0]] * len(sequences))
    everything = torch.arange(len(sequences))
    for name, model in (("old", policy), ("reference", base)):
        logs = model.statistics(rollouts, everything, ["log_probs"])["log_probs"]
        rollouts = rollouts.with_column(f"log_probs/{name}", logs)
    credit = METHODS["token_dpo"](beta=BETA)(rollouts).advantages.reshape(-1, depth)
    for sequence, given_credit in zip(sequences, credit.tolist(), strict=True):
        assert given_credit == pytest.approx(along(best.implicit_reward, sequence))
        # Over a whole trajectory the potentials cancel, up to the value of the first state.
        total = sum(along(rewards, sequence)) - best.value[0].item()
        assert sum(given_credit) == pytest.approx(total, abs=1e-9)


# Soft-optimal values


@given(seed=SEEDS, beta=st.sampled_from([0.1, 0.5, 2.0]))
def test_the_soft_optimal_policy_is_optimal(seed: int, beta: float) -> None:
    """No other policy has more reward minus beta times divergence, and its value is the root's."""
    rewards, reference = random_tree(2, 3, seed), random_reference(2, 3, seed)
    best = soft_optimal(rewards, reference, beta)

    def objective(policy: list[Tensor]) -> float:
        taxed = [r - beta * (p / q).log() for r, p, q in zip(rewards, policy, reference, strict=True)]
        return backward_induction(taxed, lambda q_SV, depth: (policy[depth] * q_SV).sum(1))[1][0].item()

    assert objective(best.policy) == pytest.approx(best.value[0].item(), abs=1e-9)
    for other in range(3):
        assert objective(random_reference(2, 3, seed + 7 + other)) <= best.value[0].item() + 1e-9
    for level in best.policy:
        torch.testing.assert_close(level.sum(1), torch.ones_like(level[:, 0]))


@given(seed=SEEDS, width=st.integers(1, 40))
def test_beams(seed: int, width: int) -> None:
    """Wide enough it is exhaustive, and what it finds has the log-prob it says; every width is a sequence."""
    logs = [p.log() for p in random_reference(3, 3, seed)]
    scored = [(-sum(along(logs, s)), s) for s in itertools.product(range(3), repeat=3)]
    tokens, log_prob = beam_search(logs, width)
    assert log_prob == pytest.approx(sum(along(logs, tuple(tokens))))
    worst, best = -max(scored)[0], -min(scored)[0]
    assert worst - 1e-9 <= log_prob <= best + 1e-9
    if width >= 27:
        assert tuple(tokens) == min(scored)[1]
    if width == 1:
        row = 0
        for level, token in zip(logs, tokens, strict=True):
            assert token == level[row].argmax()
            row = row * 3 + token


@given(seed=SEEDS)
def test_search_for_likelihood_is_search_for_return(seed: int) -> None:
    rewards, reference = random_tree(2, 4, seed), random_reference(2, 4, seed)
    best = soft_optimal(rewards, reference, BETA)
    found, _ = beam_search([p.log() for p in best.policy], width=16)
    returns = {
        s: sum(along(rewards, s)) + BETA * sum(math.log(p) for p in along(reference, s))
        for s in itertools.product(range(2), repeat=4)
    }
    assert returns[tuple(found)] == pytest.approx(max(returns.values()))


def test_ties_go_to_the_smaller_sequence() -> None:
    uniform = [torch.full((2**d, 2), math.log(0.5), dtype=torch.float64) for d in range(3)]
    for width in (1, 2, 3, 8):
        assert beam_search(uniform, width)[0] == [0, 0, 0]
    # Behind the smaller first token by one, and ahead by one after the second.
    crossing = [doubles(-2, -1)[None], torch.stack([doubles(-1, -9), doubles(-2, -9)])]
    assert beam_search(crossing, 2) == ([0, 0], -3.0)
    late = [level.clone() for level in uniform]
    late[0][0] = torch.tensor([0.4, 0.6]).log()
    assert beam_search(late, 2)[0] == [1, 0, 0]


# One state


@given(seed=SEEDS, beta=st.sampled_from([0.2, 1.0, 3.0]), shift=st.floats(-5, 5))
def test_logits_as_values(seed: int, beta: float, shift: float) -> None:
    logits, reference = random_tree(5, 1, seed)[0][0], random_tree(5, 1, seed + 1)[0][0]
    at, moved = read_logits(logits, reference, beta), read_logits(logits + shift, reference, beta)
    torch.testing.assert_close(moved.policy, at.policy)
    torch.testing.assert_close(moved.advantage, at.advantage)
    assert moved.value.item() == pytest.approx(at.value.item() + shift)
    torch.testing.assert_close(at.policy, (at.advantage / beta).exp())
    torch.testing.assert_close(at.expected_under_reference, at.minus_divergence)
    assert at.minus_divergence.item() <= 1e-12


@given(seed=SEEDS, beta=st.sampled_from([0.5, 1.0]))
def test_proxy_tuning(seed: int, beta: float) -> None:
    base, proxy, reference = (random_reference(4, 1, seed + i)[0][0] for i in range(3))
    moved = proxy_tuned(base, proxy, reference, beta)
    expected = base * (proxy / reference) ** beta
    torch.testing.assert_close(moved, expected / expected.sum())
    torch.testing.assert_close(proxy_tuned(base, reference, reference, beta), base)
    torch.testing.assert_close(proxy_tuned(reference, proxy, reference, 1.0), proxy)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


BAD: list[tuple[Any, str]] = [
    (lambda: soft_optimal(random_tree(2, 2, 0), random_reference(2, 2, 0), 0.0), r"beta is 0\.0, expected more than 0"),
    (lambda: soft_optimal(random_tree(2, 2, 0), random_reference(2, 3, 0), 1.0), "trees of different shapes, expected"),
    (lambda: soft_optimal([doubles(1.0, 2.0)[None]], [doubles(1.0, 0.0)[None]], 1.0), "expected all above 0"),
    (lambda: backward_induction([torch.zeros(1, 2), torch.zeros(3, 2)], lambda q, d: q.sum(1)), r"expected \(2, 2\)"),
    (lambda: beam_search([torch.zeros(1, 2)], 0), "the beam width is 0, expected at least 1"),
    (lambda: read_logits(doubles(1.0, 2.0), doubles(1.0), 1.0), "expected one vocabulary"),
    (lambda: read_logits(doubles(1.0), doubles(1.0), -1.0), "beta is -1"),
    (lambda: proxy_tuned(doubles(0.5, 0.5), doubles(1.0, 0.0), doubles(0.5, 0.5), 1.0), "expected all above 0"),
    (lambda: proxy_tuned(doubles(1.0), doubles(0.5, 0.5), doubles(0.5, 0.5), 1.0), "expected one"),
    (lambda: proxy_tuned(doubles(1.0), doubles(1.0), doubles(1.0), 0.0), r"beta is 0\.0"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
