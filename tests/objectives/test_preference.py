"""DPO beyond the common suite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate

NOTHING = METHODS["none"]()


def paired(pairs: list[tuple[int, int]], reference: list[list[float]], **given: Any) -> Rollouts:
    """One response an episode, with log-probs of a reference."""
    ids = [list(range(1, len(row) + 1)) for row in reference]
    rollouts = Rollouts.from_lists(ids, groups=[0] * len(ids), log_probs_reference=reference, **given)
    sides = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return rollouts.with_pairs(sides[:, 0].contiguous(), sides[:, 1].contiguous())


def evaluated(rollouts: Rollouts, now: torch.Tensor, beta: float = 0.1, unscored: str = "error") -> tuple[Any, Any]:
    """The loss, and its gradient at all tokens."""
    leaf = now.clone().requires_grad_()
    loss = OBJECTIVES["dpo"](beta=beta)({"log_probs": leaf}, rollouts, NOTHING(rollouts, unscored=unscored))
    loss.value.backward()
    return loss, leaf.grad


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(
    new=st.lists(st.floats(-5, -0.01), min_size=5, max_size=5),
    old=st.lists(st.floats(-5, -0.01), min_size=5, max_size=5),
    beta=st.sampled_from([0.05, 0.5, 2.0]),
)
def test_every_token_of_a_pair_has_the_same_slope(new: list[float], old: list[float], beta: float) -> None:
    rollouts = paired([(0, 1)], [old[:2], old[2:]])
    loss, gradient = evaluated(rollouts, doubles(*new), beta)
    z = beta * (sum(new[:2]) - sum(old[:2]) - sum(new[2:]) + sum(old[2:]))
    assert loss.value.item() == pytest.approx(math.log1p(math.exp(-z)))
    slope = beta / (1 + math.exp(z))
    assert gradient.tolist() == pytest.approx([-slope] * 2 + [slope] * 3)
    metrics = {name: metric.item() for name, metric in loss.metrics.items()}
    assert metrics["margin"] == pytest.approx(z)
    assert metrics["reward_chosen"] - metrics["reward_rejected"] == pytest.approx(z)
    assert metrics["pair_accuracy"] == float(z > 0)


def test_equal_models_cost_a_logarithm_of_two() -> None:
    rollouts = paired([(0, 1), (2, 1)], [[-1.0], [-2.0, -0.5], [-0.1]])
    loss, _ = evaluated(rollouts, rollouts.column("log_probs/reference"))
    assert loss.value.item() == pytest.approx(math.log(2), rel=1e-15)
    assert [m.item() for m in loss.metrics.values()] == [0.0] * 4


def test_a_large_margin_does_not_overflow() -> None:
    rollouts = paired([(0, 1)], [[-1e5], [-1.0]])
    now = doubles(-1.0, -1e5)
    for pairs, expected in (([0, 1], 0.0), ([1, 0], 2e5 - 2)):
        turned = rollouts.with_pairs(torch.tensor(pairs[:1]), torch.tensor(pairs[1:]))
        loss, gradient = evaluated(turned, now, beta=1.0)
        assert loss.value.item() == pytest.approx(expected)
        assert gradient.isfinite().all()


def test_tokens_are_those_the_credit_trains_across_responses() -> None:
    rollouts = Rollouts.from_lists(
        [[1, 9], [2], [3]],
        groups=[0] * 3,
        episodes=[0, 0, 1],
        trained=[[1, 0], [1], [1]],
        log_probs_reference=[[-1.0, -7.0], [-1.0], [-1.0]],
    ).with_pairs(torch.tensor([0]), torch.tensor([1]))
    loss, gradient = evaluated(rollouts, doubles(-0.5, torch.nan, -0.25, -2.0), beta=1.0)
    assert loss.metrics["margin"].item() == 0.5 + 0.75 + 1.0
    assert gradient[1] == 0


def test_weights_ties_and_episodes_left_out() -> None:
    reference = [[-1.0], [-1.0], [-1.0], [-1.0]]
    rollouts = paired([(0, 1), (2, 1), (0, 3)], reference, rewards=[1.0, 0.0, 1.0, None])
    now = doubles(-0.5, -1.5, -2.0, torch.nan)

    def value(of: Rollouts) -> float:
        credit = METHODS["none"](component="outcome")(of, unscored="drop")
        return OBJECTIVES["dpo"](beta=1.0)({"log_probs": now}, of, credit).value.item()

    each = [math.log1p(math.exp(-1.0)), math.log1p(math.exp(0.5))]  # the third pair has an unknown episode
    assert value(rollouts) == pytest.approx(sum(each) / 2)
    weighted = rollouts.with_column("pair:weight", doubles(3.0, 1.0, 5.0))
    assert value(weighted) == pytest.approx((3 * each[0] + each[1]) / 4)
    assert value(weighted.with_column("pair:weight", doubles(0.0, 0.0, 5.0))) == 0
    tied = rollouts.with_column("pair:tie", torch.tensor([False, True, False]))
    assert value(tied) == pytest.approx(each[0])
    with pytest.raises(InputError, match="a pair has the weight -1, expected 0 or more"):
        value(rollouts.with_column("pair:weight", doubles(-1.0, 1.0, 1.0)))


def test_an_episode_without_trained_tokens_takes_its_pair_out() -> None:
    rollouts = paired([(0, 1), (0, 2)], [[-1.0], [-1.0], [-1.0]], trained=[[1], [1], [0]])
    loss, gradient = evaluated(rollouts, doubles(-0.5, -1.5, torch.nan), beta=1.0)
    assert loss.value.item() == pytest.approx(math.log1p(math.exp(-1.0)))
    assert gradient.isfinite().all()
    none = paired([], [[-1.0], [-1.0]])
    assert evaluated(none, doubles(-1.0, -1.0))[0].value.item() == 0


def test_equal_prompts_may_be_stored_twice() -> None:
    reference = [[-1.0], [-2.0], [-1.0]]
    same = paired([(0, 1)], reference, prompts=[[7, 8], [7, 8], [9]])
    assert evaluated(same, doubles(-1.0, -2.0, -1.0))[0].value.item() == pytest.approx(math.log(2))
    for prompts in ([[7, 8], [7, 9], []], [[7, 8], [7], [8]], [[], [7], []]):
        with pytest.raises(InputError, match="episodes of a pair have different prompts, expected the same"):
            evaluated(paired([(0, 1)], reference, prompts=prompts), doubles(-1.0, -2.0, -1.0))


def test_the_prompts_that_count_are_the_first_of_each_episode() -> None:
    def turns(*prompts: list[int]) -> Rollouts:
        rollouts = Rollouts.from_lists(
            [[1]] * 8,
            groups=[0] * 8,
            episodes=[0, 0, 1, 1, 2, 2, 3, 3],
            prompts=list(prompts),
            log_probs_reference=[[-1.0]] * 8,
        )
        return rollouts.with_pairs(torch.tensor([0, 2]), torch.tensor([1, 3]))

    now = torch.full((8,), -1.0, dtype=torch.float64)
    fine = turns([7], [0], [7], [1], [8, 9], [2], [8, 9], [3])
    assert evaluated(fine, now)[0].value.item() == pytest.approx(math.log(2))
    # End to end the prompts of both sides are the same tokens, cut elsewhere.
    with pytest.raises(InputError, match="different prompts"):
        evaluated(turns([7, 8], [0], [7], [0], [9], [0], [8, 9], [0]), now)


def test_bad_input() -> None:
    for beta in (0.0, -0.1, float("nan")):
        with pytest.raises(InputError, match=r"beta is .*, expected more than 0"):
            OBJECTIVES["dpo"](beta=beta)
    bare = Rollouts.from_lists([[1]], groups=[0], log_probs_reference=[[-1.0]])
    with pytest.raises(InputError, match="no pairs, expected preferences between episodes"):
        evaluated(bare, doubles(-1.0))
    with pytest.raises(InputError, match="an episode of a pair has no tokens, expected at least the end token"):
        evaluated(paired([(0, 1)], [[-1.0], []]), doubles(-1.0))
    branched = paired([(0, 1)], [[-1.0], [-1.0]]).with_column("weight", doubles(1.0, 0.5))
    with pytest.raises(InputError, match="needs whole responses"):
        evaluated(branched, doubles(-1.0, -1.0))


def test_equal_answers_have_no_gradient_in_parameters() -> None:
    policy = TabularPolicy(vocabulary=3, depth=2)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(1)).double())
    rollouts = Rollouts.from_lists(
        [[1, 2], [1, 2], [0]],
        groups=[0] * 3,
        prompts=[[0]] * 3,
        log_probs_reference=[[-1.0, -0.5], [-1.0, -0.5], [-2.0]],
    )
    for other, silent in ((1, True), (2, False)):
        pair = rollouts.with_pairs(torch.tensor([0]), torch.tensor([other]))
        accumulate(policy, OBJECTIVES["dpo"](), pair, NOTHING(pair), [torch.arange(3)])
        assert policy.logits.grad is not None
        assert (policy.logits.grad.abs().max() < 1e-15) == silent
        policy.logits.grad = None


def test_rewards_of_the_references_own_answers_fall() -> None:
    """Starting at the reference, the mean implicit reward of its samples is minus a divergence: never positive."""
    policy = TabularPolicy(vocabulary=3, depth=1)
    answers = Rollouts.from_lists(
        [[0], [1], [2]], groups=[0] * 3, prompts=[[0]] * 3, log_probs_reference=[[-math.log(3)]] * 3
    ).with_pairs(torch.tensor([0, 0]), torch.tensor([1, 2]))
    seen = []
    for _ in range(5):
        credit = METHODS["token_dpo"](beta=0.1)(
            answers.with_column(
                "log_probs/old", policy.statistics(answers, torch.arange(3), ["log_probs"])["log_probs"]
            )
        )
        seen.append(credit.advantages.mean().item())
        accumulate(policy, OBJECTIVES["dpo"](), answers, NOTHING(answers), [torch.arange(3)])
        with torch.no_grad():
            policy.logits -= 10 * policy.logits.grad
        policy.logits.grad = None
    assert seen[0] == pytest.approx(0, abs=1e-15)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < -0.01
