"""PACS against a loop over lists, and what it promises."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS, Credit
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.objectives.pacs import CLASS_WEIGHTS, ESTIMATORS, REWARD_PROXIES
from apportion.rollouts import Rollouts

LABELS = METHODS["none"](component="outcome")


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def naive(
    deltas: list[list[float]], logs: list[list[float]], labels: list[float], groups: list[int], **how: Any
) -> float:
    """From the log-ratios and log-probs of every episode's trained tokens."""
    beta, total = how["beta"], 0.0
    sums = how["reward_proxy"] == "log_ratio_sum"
    proxy = [beta * (math.fsum(d) if sums else mean(x)) for d, x in zip(deltas, logs, strict=True)]
    for i, group in enumerate(groups):
        peers = [j for j in range(len(groups)) if groups[j] == group]
        centre = mean([proxy[j] for j in peers])
        score = {
            "rloo": lambda: proxy[i] - mean([proxy[j] for j in peers if j != i]),  # noqa: B023
            "grpo": lambda: (
                (proxy[i] - centre)  # noqa: B023
                / (math.sqrt(math.fsum((proxy[j] - centre) ** 2 for j in peers) / (len(peers) - 1)) + 1e-6)  # noqa: B023
            ),
            "naive": lambda: proxy[i],  # noqa: B023
        }[how["estimator"]]()
        right = [labels[j] for j in peers]
        mixed = 0 < sum(right) < len(right)
        weight = {
            "question": len(peers) / (2 * right.count(labels[i])) if mixed else 1.0,
            "only_positive": labels[i],
            "only_negative": 1 - labels[i],
            "none": 1.0,
        }[how["class_weight"]]
        chance = 1 / (1 + math.exp(-score))
        total -= weight * (math.log(chance) if labels[i] else math.log(1 - chance))
    return total / len(groups)


@pytest.mark.parametrize("reward_proxy", REWARD_PROXIES)
@pytest.mark.parametrize("class_weight", CLASS_WEIGHTS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(seed=st.integers(0, 2**32))
def test_equals_the_naive_loop(estimator: str, class_weight: str, reward_proxy: str, seed: int) -> None:
    """Groups of unequal size, interleaved; episodes of two responses; tokens that do not train."""
    dice = random.Random(seed)
    groups = [0, 1, 1, 0, 2, 2, 0]
    trained = [[1, *(dice.randint(0, 1) for _ in range(dice.randint(0, 4)))] for _ in range(14)]
    old = [[-dice.uniform(0, 3) for _ in row] for row in trained]
    new = [[-dice.uniform(0, 3) for _ in row] for row in trained]
    labels = [float(dice.randint(0, 1)) for _ in groups]
    rollouts = Rollouts.from_lists(
        trained,
        groups=[g for g in groups for _ in range(2)],
        episodes=[e for e in range(7) for _ in range(2)],
        rewards=labels,
        trained=trained,
        log_probs_old=old,
    )
    how = {"beta": 0.7, "estimator": estimator, "class_weight": class_weight, "reward_proxy": reward_proxy}
    now = torch.tensor([x for row in new for x in row], dtype=torch.float64)
    loss = OBJECTIVES["pacs"](**how)({"log_probs": now}, rollouts, LABELS(rollouts))

    def of_episodes(rows: list[list[float]]) -> list[list[float]]:
        kept = [[x for x, t in zip(row, mask, strict=True) if t] for row, mask in zip(rows, trained, strict=True)]
        return [a + b for a, b in zip(kept[::2], kept[1::2], strict=True)]

    deltas = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(new, old, strict=True)]
    expected = naive(of_episodes(deltas), of_episodes(new), labels, groups, **how)
    assert loss.value.item() == pytest.approx(expected, rel=1e-10)


def group(labels: list[float | None], old: float = -1.0, tokens: int = 2, **given: Any) -> Rollouts:
    """One group, one response an episode."""
    ids = [[i] * tokens for i in range(len(labels))]
    return Rollouts.from_lists(
        ids, groups=[0] * len(ids), rewards=labels, log_probs_old=[[old] * tokens for _ in ids], **given
    )


def slopes(rollouts: Rollouts, credit: Credit, now: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
    now = rollouts.column("log_probs/old").clone() if now is None else now.clone()
    OBJECTIVES["pacs"](**settings)({"log_probs": now.requires_grad_()}, rollouts, credit).value.backward()
    assert now.grad is not None
    return now.grad


@given(labels=st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=9), beta=st.sampled_from([0.5, 1.0, 3.0]))
def test_the_first_step_is_a_leave_one_out_policy_gradient(labels: list[float], beta: float) -> None:
    rollouts = group(list(labels))
    share = {y: len(labels) / (2 * labels.count(y)) if len(set(labels)) == 2 else 1.0 for y in labels}
    rewards = torch.tensor([share[y] * (y - 0.5) for y in labels], dtype=torch.float64)
    advantages = METHODS["rloo"]()(rollouts.with_reward("outcome", rewards)).advantages
    gradient = slopes(rollouts, LABELS(rollouts), beta=beta)
    torch.testing.assert_close(gradient, -beta * advantages / len(labels), rtol=0, atol=1e-12)
    if len(set(labels)) == 1:
        assert gradient.abs().max() < 1e-15


def test_a_long_drift_saturates_without_overflow() -> None:
    rollouts = group([1.0, 0.0], old=-1e4)
    now = torch.tensor([-1.0, -1.0, -2e4, -2e4], dtype=torch.float64)
    assert slopes(rollouts, LABELS(rollouts), now).abs().max() == 0  # judged right already
    turned = rollouts.with_reward("outcome", torch.tensor([0.0, 1.0]))
    # However wrong, the pull of a score is its weight at most; here two scores pull at every proxy.
    assert slopes(turned, LABELS(turned), now).tolist() == [1.0, 1.0, -1.0, -1.0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_scores_have_a_finite_slope(estimator: str) -> None:
    rollouts = group([1.0, 0.0, 1.0])
    assert slopes(rollouts, LABELS(rollouts), estimator=estimator).isfinite().all()


def test_episodes_left_out_are_in_no_statistic() -> None:
    rollouts = group([1.0, None, 0.0, 0.0])
    now = torch.tensor([-0.5, -2.0, torch.nan, torch.nan, -1.0, -3.0, -0.1, -0.2], dtype=torch.float64)
    credit = LABELS(rollouts, unscored="drop")
    kept = torch.tensor([True, False, True, True])
    part = credit.select(kept)
    tokens = rollouts.indices(kept)["token"]
    objective = OBJECTIVES["pacs"]()
    whole, alone = (
        objective({"log_probs": now}, rollouts, credit),
        objective({"log_probs": now[tokens]}, part.rollouts, part),
    )
    assert whole.value.item() == alone.value.item()
    gradient = slopes(rollouts, credit, now)
    assert gradient.isfinite().all()
    assert not gradient[2:4].any()


def test_a_group_that_dropping_leaves_with_one_has_no_gradient_and_counts() -> None:
    rollouts = group([1.0, None])
    now = torch.tensor([-0.5, -2.0, torch.nan, torch.nan], dtype=torch.float64)
    credit = LABELS(rollouts, unscored="drop")
    assert not slopes(rollouts, credit, now).any()
    assert OBJECTIVES["pacs"]()({"log_probs": now}, rollouts, credit).value.item() == pytest.approx(math.log(2))
    assert slopes(rollouts, credit, now, estimator="naive")[:2].all()


def test_episodes_never_asked_for_a_verdict_are_left_out() -> None:
    labels = group([1.0, 0.0, 0.0]).with_reward(
        "outcome", torch.tensor([1.0, 0.0, torch.nan]), present=torch.tensor([True, True, False])
    )
    credit = METHODS["none"]()(labels)
    now = torch.tensor([-0.5, -2.0, -1.0, -1.0, -3.0, -3.0], dtype=torch.float64)
    gradient = slopes(labels, credit, now)
    assert not gradient[4:].any()
    pair = labels.select(torch.tensor([0, 1]))
    assert torch.equal(gradient[:4], slopes(pair, METHODS["none"]()(pair), now[:4]))


def test_verdicts_below_the_episode_are_summed() -> None:
    rollouts = Rollouts.from_lists(
        [[1], [2], [3], [4]], groups=[0] * 4, episodes=[0, 0, 1, 1], log_probs_old=[[-1.0]] * 4
    )
    by_response = rollouts.with_reward("outcome", torch.tensor([1.0, 0.0, 0.0, 0.0]), level="response")
    at_end = rollouts.with_reward("outcome", torch.tensor([1.0, 0.0]))
    now = torch.tensor([-0.5, -2.0, -1.5, -0.3], dtype=torch.float64)
    assert torch.equal(slopes(by_response, LABELS(by_response), now), slopes(at_end, LABELS(at_end), now))
    holed = rollouts.with_reward(
        "outcome", torch.tensor([1.0, 0.0, 0.0, 0.0]), scored=torch.tensor([True, True, True, False]), level="response"
    )
    with pytest.raises(InputError, match="1 episodes have an unknown 'reward/outcome', expected the credit to leave"):
        slopes(holed, METHODS["none"]()(holed), now)
    assert LABELS(holed, unscored="drop").unknown.tolist() == [False, True]


def test_metrics() -> None:
    rollouts = group([1.0, 0.0])
    now = torch.tensor([-0.5, -1.0, -1.0, -2.0], dtype=torch.float64)
    metrics = OBJECTIVES["pacs"]()({"log_probs": now}, rollouts, LABELS(rollouts)).metrics
    assert {name: metric.item() for name, metric in metrics.items()} == {"pacs_accuracy": 1.0, "pacs_score": 1.5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0, expected more than 0"),
        ({"beta": float("inf")}, "beta is inf"),
        ({"estimator": "rlo"}, "unknown estimator 'rlo': did you mean 'rloo'"),
        ({"class_weight": "balanced"}, "unknown class_weight 'balanced'"),
        ({"reward_proxy": "mean"}, "unknown reward_proxy 'mean'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES["pacs"](**settings)


def test_bad_rollouts() -> None:
    graded = group([1.0, 0.5])
    with pytest.raises(InputError, match=r"has the reward 0\.5, expected 0 or 1"):
        slopes(graded, LABELS(graded))
    alone = group([1.0])
    for estimator in ("rloo", "grpo"):
        with pytest.raises(InputError, match="a group has one member, expected at least two"):
            slopes(alone, LABELS(alone), estimator=estimator)
    assert slopes(alone, LABELS(alone), estimator="naive").all()
    empty = Rollouts.from_lists([[1], []], groups=[0, 0], rewards=[1.0, 0.0], log_probs_old=[[-1.0], []])
    with pytest.raises(InputError, match="an episode has no tokens"):
        slopes(empty, LABELS(empty))
    branched = group([1.0, 0.0]).with_column("weight", torch.tensor([1.0, 0.5, 1.0, 1.0]))
    with pytest.raises(InputError, match="needs whole responses"):
        slopes(branched, LABELS(branched))
    silent = Rollouts.from_lists([[1], [2]], groups=[0, 0], log_probs_old=[[-1.0], [-1.0]])
    with pytest.raises(MissingColumn, match="reward/outcome"):
        slopes(silent, METHODS["none"]()(silent))
