"""The implicit process reward model's loss: golden values, a loop over pairs, and what it leaves out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS, Credit
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from credit.worlds import Dialogues, dialogues
from golden.files import VECTORS, Case, read_cases

OUTCOME = METHODS["none"](component="outcome")


def evaluated(rollouts: Rollouts, now: torch.Tensor, credit: Credit | None = None, **settings: Any) -> Any:
    credit = OUTCOME(rollouts) if credit is None else credit
    return OBJECTIVES["implicit_prm"](**settings)({"log_probs": now}, rollouts, credit)


def trajectories(given: Any) -> Rollouts:
    """Golden rows, one a turn, as episodes."""
    names = list(dict.fromkeys(given["traj_ids"]))
    rewards = [given["episode_rewards"][given["traj_ids"].index(name)] for name in names]
    return Rollouts.from_lists(
        [range(len(row)) for row in given["old_logprobs"]],
        groups=given["group_ids"],
        episodes=given["traj_ids"],
        rewards=rewards,
        log_probs_old=given["old_logprobs"],
    )


@pytest.mark.parametrize("case", read_cases(VECTORS / "oprl.json"), ids=lambda case: case.name)
def test_golden_losses(case: Case) -> None:
    at = case.arguments
    now = torch.tensor([x for row in at["prm_logprobs"] for x in row], dtype=torch.float64)
    loss = evaluated(trajectories(at), now, beta=at["beta"], traj_score=at["traj_score"])
    assert loss.value.item() == pytest.approx(case.expected["prm_loss"], abs=case.atol)
    assert loss.metrics["prm_pairs"].item() == case.expected["prm_pairs"]


def with_old(rollouts: Rollouts) -> Rollouts:
    return rollouts.with_column("log_probs/old", -1.0 - rollouts.ids.double())


@pytest.mark.parametrize("traj_score", ["mean", "sum"])
@given(world=dialogues(), threshold=st.sampled_from([-1.0, 0.0, 1.5]))
def test_all_pairs_of_a_group(traj_score: str, world: Dialogues, threshold: float) -> None:
    """One response a turn or a growing response with turn spans: the decisions are the same."""
    scores = []
    for turns in world.turns:
        q = [sum(1.0 + 1.5 * token for token in said) for said, _ in turns]
        scores.append(0.3 * (math.fsum(q) / len(q) if traj_score == "mean" else math.fsum(q)))
    losses = [
        math.log1p(math.exp(-(scores[i] - scores[j])))
        for i in range(len(scores))
        for j in range(len(scores))
        if world.groups[i] == world.groups[j] and world.rewards[i] > threshold >= world.rewards[j]
    ]
    for rollouts in (with_old(world.growing()), with_old(world.separate(history=True))):
        now = torch.where(rollouts.trained, 0.5 * rollouts.ids.double(), torch.nan)
        loss = evaluated(rollouts, now, beta=0.3, traj_score=traj_score, threshold=threshold)
        assert loss.metrics["prm_pairs"].item() == len(losses)
        assert loss.value.item() == pytest.approx(math.fsum(losses) / max(len(losses), 1))


def four(rewards: list[float | None]) -> Rollouts:
    return Rollouts.from_lists([[1], [2], [3], [4]], groups=[0, 0, 1, 1], rewards=rewards, log_probs_old=[[-1.0]] * 4)


NOW = torch.tensor([-0.5, -1.5, -0.25, -2.0], dtype=torch.float64)


def test_without_pairs_it_is_nothing() -> None:
    for rewards in ([1.0, 1.0, 0.0, 0.0], [0.0] * 4):
        now = NOW.clone().requires_grad_()
        loss = evaluated(four(list(rewards)), now)
        loss.value.backward()
        assert loss.value.item() == 0
        assert [metric.item() for metric in loss.metrics.values()] == [0.0, 0.0]
        assert not now.grad.any()


def test_only_failures_and_successes_of_one_group_are_compared() -> None:
    now = NOW.clone().requires_grad_()
    loss = evaluated(four([1.0, 0.0, 0.0, 0.0]), now, beta=1.0)
    loss.value.backward()
    assert loss.value.item() == pytest.approx(math.log1p(math.exp(-1.0)))
    assert loss.metrics["prm_accuracy"].item() == 1
    slope = 1 / (1 + math.e)
    assert now.grad.tolist() == pytest.approx([-slope, slope, 0.0, 0.0])


def test_episodes_left_out_make_no_pairs() -> None:
    rollouts = four([1.0, None, 1.0, 0.0])
    now = NOW.clone()
    now[1] = torch.nan
    loss = evaluated(rollouts, now, OUTCOME(rollouts, unscored="drop"))
    assert loss.metrics["prm_pairs"].item() == 1
    assert loss.value.isfinite()
    with pytest.raises(InputError, match="1 episodes have an unknown 'reward/outcome', expected the credit to leave"):
        evaluated(rollouts, now, METHODS["none"]()(rollouts))


def test_graded_rewards_are_cut_at_the_threshold() -> None:
    rollouts = four([0.9, 0.6, 0.3, 0.1])
    pairs = [evaluated(rollouts, NOW, threshold=t).metrics["prm_pairs"].item() for t in (0.0, 0.2, 0.6, 0.9)]
    assert pairs == [0, 1, 1, 0]


def test_tokens_outside_decisions_do_not_count() -> None:
    """A turn span leaves the end token out, and a turn of which nothing trains is no decision."""
    rollouts = Rollouts.from_lists(
        [[1, 2, 3], [4]],
        groups=[0, 0],
        rewards=[1.0, 0.0],
        trained=[[1, 0, 1], [1]],
        log_probs_old=[[-1.0, -1.0, -1.0], [-1.0]],
    ).with_spans("turn", torch.tensor([0, 1, 3]), torch.tensor([1, 2, 4]))
    now = torch.tensor([-0.5, torch.nan, -9.0, -2.0], dtype=torch.float64)
    assert evaluated(rollouts, now, beta=1.0).value.item() == pytest.approx(math.log1p(math.exp(-1.5)))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="beta is 0, expected more than 0"):
        OBJECTIVES["implicit_prm"](beta=0)
    with pytest.raises(InputError, match="unknown traj_score 'total'"):
        OBJECTIVES["implicit_prm"](traj_score="total")
    rollouts = four([1.0, 0.0, 1.0, 0.0])
    with pytest.raises(MissingColumn, match="reward/goal"):
        evaluated(rollouts, NOW, component="goal")
    branched = rollouts.with_column("weight", torch.tensor([1.0, 0.5, 1.0, 1.0]))
    with pytest.raises(InputError, match="needs whole responses"):
        evaluated(branched, NOW)
