"""What the trainer applies, against the policy gradient by enumeration: every group of two responses, weighted."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from apportion import credit, objectives
from apportion.credit import Stage
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.sampling import SamplingSettings, ScriptedEngine, sample_groups
from apportion.training.annotate import annotate
from apportion.training.gradient import accumulate

VOCABULARY, DEPTH = 3, 2
LEAVES = list(itertools.product(range(VOCABULARY), repeat=DEPTH))
GRADED = dict(zip(LEAVES, [0.0, 1.0, 0.2, 0.7, 0.0, 0.1, 1.0, 0.4, 0.9], strict=True))
BINARY = {leaf: float(reward > 0.5) for leaf, reward in GRADED.items()}
# The surrogate at ratio 1 is the policy gradient; the sum over an episode's tokens leaves lengths out of it.
OBJECTIVE = objectives.clip(aggregate="seq_mean_token_sum")


def policy() -> TabularPolicy:
    table = TabularPolicy(VOCABULARY, DEPTH)
    with torch.no_grad():
        table.logits.copy_(torch.randn(table.logits.shape, generator=torch.Generator().manual_seed(4)).double())
    return table


def probability(table: TabularPolicy, leaf: tuple[int, ...]) -> float:
    logits = table.logits.detach()
    total = 0.0
    for depth, token in enumerate(leaf):
        state = table.state(torch.tensor([0]), torch.tensor([leaf[:depth]], dtype=torch.int64).reshape(1, depth))
        total += float(logits[state].log_softmax(1)[0, token])
    return math.exp(total)


def exact(table: TabularPolicy, reward: dict[tuple[int, ...], float]) -> Tensor:
    """Gradient of the expected reward, by autograd through the enumerated expectation."""
    logits = table.logits.detach().clone().requires_grad_()
    value = torch.zeros((), dtype=torch.float64)
    for leaf in LEAVES:
        log_probability = torch.zeros((), dtype=torch.float64)
        for depth, token in enumerate(leaf):
            prefix = torch.tensor([leaf[:depth]], dtype=torch.int64).reshape(1, depth)
            log_probability = log_probability + logits[table.state(torch.tensor([0]), prefix)].log_softmax(1)[0, token]
        value = value + log_probability.exp() * reward[leaf]
    return torch.autograd.grad(value, logits)[0]


def applied(table: TabularPolicy, method: Stage, rollouts: Rollouts) -> Tensor:
    """The ascent direction of one update of the trainer."""
    parts = [torch.arange(rollouts.n_responses)]
    rollouts = annotate(rollouts, {"old": table}, {"old": ["log_probs"]}, max_tokens=1 << 14)
    accumulate(table, OBJECTIVE, rollouts, method(rollouts), parts)
    assert table.logits.grad is not None
    gradient = -table.logits.grad.clone()
    table.logits.grad = None
    return gradient


def expected(table: TabularPolicy, method: Stage, reward: dict[tuple[int, ...], float], size: int) -> Tensor:
    total = torch.zeros_like(table.logits)
    for members in itertools.product(LEAVES, repeat=size):
        rollouts = Rollouts.from_lists(
            members, groups=[0] * size, rewards=[reward[leaf] for leaf in members], prompts=[[0]] * size
        )
        weight = math.prod(probability(table, leaf) for leaf in members)
        total += weight * applied(table, method, rollouts).detach()
    return total


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("reward", [GRADED, BINARY], ids=["graded", "binary"])
def test_leave_one_out_is_exact(reward: dict[tuple[int, ...], float]) -> None:
    table = policy()
    error = expected(table, credit.METHODS["rloo"](), reward, 2) - exact(table, reward)
    assert float(error.abs().max()) < 1e-12


def test_the_group_mean_shrinks_by_n_minus_one_over_n() -> None:
    table = policy()
    found = expected(table, credit.METHODS["grpo"](norm_by_std=False), GRADED, 2)
    assert torch.allclose(found, exact(table, GRADED) / 2, atol=1e-12)


def test_dividing_by_the_std_keeps_the_direction_for_two_reward_values_and_turns_it_for_more() -> None:
    table, method = policy(), credit.METHODS["grpo"]()
    assert cosine(expected(table, method, BINARY, 2), exact(table, BINARY)) == pytest.approx(1.0, abs=1e-9)
    assert cosine(expected(table, method, GRADED, 2), exact(table, GRADED)) < 0.99


def test_sampled_gradients_show_no_bias_of_leave_one_out_and_the_stated_one_of_grpo() -> None:
    """Projected on where enumeration says that normalised GRPO turns away from the truth."""
    table, truth = policy(), exact(policy(), GRADED)
    biased = expected(table, credit.METHODS["grpo"](), GRADED, 2)
    turn = biased - truth * (biased * truth).sum() / (truth * truth).sum()
    turn = turn / turn.norm()
    engine = ScriptedEngine(table.next_logits)
    found: dict[str, list[float]] = {"rloo": [], "grpo": []}
    for batch in range(150):
        generator = torch.Generator().manual_seed(batch)
        drawn = sample_groups(engine, [[0]] * 32, 2, SamplingSettings(DEPTH), generator)
        leaves = drawn.ids.reshape(-1, DEPTH).tolist()
        rewards = torch.tensor([GRADED[tuple(leaf)] for leaf in leaves], dtype=torch.float64)
        for name, values in found.items():
            gradient = applied(table, credit.METHODS[name](), drawn.with_reward("outcome", rewards))
            values.append(float((gradient * turn).sum()))
    for name, unbiased in (("rloo", True), ("grpo", False)):
        values = torch.tensor(found[name], dtype=torch.float64)
        half = 2.6 * float(values.std()) / math.sqrt(len(values))
        assert (abs(float(values.mean())) <= half) == unbiased, name
