"""NSR, PSR and W-REINFORCE: by hand, what they refuse, and what holds of their expected gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from apportion.credit import METHODS, Claim
from apportion.errors import InputError
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts

MODES = ("psr", "nsr", "weighted")


def answered(rewards: list[float], **given: Any) -> Rollouts:
    """A response of two tokens for every reward."""
    return Rollouts.from_lists([[1, 2]] * len(rewards), groups=[0] * len(rewards), rewards=rewards, **given)


@pytest.mark.parametrize(
    ("settings", "right", "wrong"),
    [
        ({"mode": "psr"}, 1.0, 0.0),
        ({"mode": "nsr"}, 0.0, -1.0),
        ({"mode": "weighted"}, 0.1, -1.0),
        ({"mode": "weighted", "positive_weight": 1.0}, 1.0, -1.0),
        ({"mode": "weighted", "positive_weight": 0.0}, 0.0, -1.0),
    ],
)
def test_a_constant_by_verdict(settings: dict[str, Any], right: float, wrong: float) -> None:
    credit = METHODS["nsr"](**settings)(answered([1.0, 0.0]))
    assert credit.advantages.tolist() == [right, right, wrong, wrong]
    assert credit.trained.all()
    assert credit.counted.all()


def test_the_default_is_blame_alone() -> None:
    assert METHODS["nsr"]()(answered([1.0, 0.0])).advantages.tolist() == [0.0, 0.0, -1.0, -1.0]


@pytest.mark.parametrize("mode", MODES)
def test_no_group_is_needed(mode: str) -> None:
    one = METHODS["nsr"](mode=mode)(answered([0.0])).advantages
    assert torch.equal(one, METHODS["nsr"](mode=mode)(answered([0.0, 1.0])).advantages[:2])
    assert not METHODS["nsr"](mode=mode).compares_groups


@pytest.mark.parametrize(("mode", "reward"), [("nsr", 1.0), ("psr", 0.0)])
def test_nothing_to_say_is_no_loss(mode: str, reward: float) -> None:
    rollouts = answered([reward] * 3, log_probs_old=[[-1.0, -1.0]] * 3)
    log_probs = torch.linspace(-2, -0.5, 6, dtype=torch.float64, requires_grad=True)
    credit = METHODS["nsr"](mode=mode)(rollouts)
    loss = OBJECTIVES["clip"]()({"log_probs": log_probs}, rollouts, credit)
    loss.value.backward()
    assert loss.value.item() == 0.0
    assert log_probs.grad is not None
    assert not log_probs.grad.any()


def test_right_answers_stay_in_the_denominator() -> None:
    """One wrong answer in eight makes an eighth of the step of one alone."""
    losses = []
    for rewards in ([0.0], [0.0] + [1.0] * 7):
        rollouts = answered(rewards, log_probs_old=[[-1.0, -1.0]] * len(rewards))
        now = {"log_probs": torch.full((rollouts.n_tokens,), -1.0, dtype=torch.float64)}
        losses.append(OBJECTIVES["clip"]()(now, rollouts, METHODS["nsr"]()(rollouts)).value.item())
    assert losses == [1.0, 0.125]


def test_an_empty_response_and_no_token_at_all() -> None:
    some = Rollouts.from_lists([[], [3]], groups=[0, 0], rewards=[0.0, 0.0])
    assert METHODS["nsr"]()(some).advantages.tolist() == [-1.0]
    none = Rollouts.from_lists([[]], groups=[0], rewards=[0.0], log_probs_old=[[]])
    now = {"log_probs": torch.zeros(0, dtype=torch.float64)}
    assert OBJECTIVES["clip"]()(now, none, METHODS["nsr"]()(none)).value.item() == 0.0


@pytest.mark.parametrize("mode", MODES)
def test_in_expectation_all_modes_have_one_direction(mode: str) -> None:
    """The exact gradient of a three-armed bandit, from a sample of one, by enumeration."""
    logits = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
    probs, rewards = logits.softmax(0), [1.0, 0.0, 0.0]
    expected = torch.zeros(3, dtype=torch.float64)
    for arm in range(3):
        drawn = Rollouts.from_lists([[arm]], groups=[0], rewards=[rewards[arm]])
        advantage = METHODS["nsr"](mode=mode, positive_weight=0.25)(drawn).advantages
        expected += probs[arm] * advantage * (torch.eye(3, dtype=torch.float64)[arm] - probs)
    true = probs[0] * (torch.eye(3, dtype=torch.float64)[0] - probs)
    torch.testing.assert_close(expected, true * (1.25 if mode == "weighted" else 1.0))


def test_claims() -> None:
    assert METHODS["nsr"](mode="psr").bias.claim is Claim.EXACT
    assert METHODS["nsr"]().bias.claim is Claim.EXACT
    assert METHODS["nsr"](mode="weighted").bias.claim is Claim.EXACT_UP_TO_SCALE


@pytest.mark.parametrize("reward", [0.5, -1.0, 2.0, 1.0 + 1e-9])
def test_a_reward_that_is_no_verdict_is_refused(reward: float) -> None:
    with pytest.raises(InputError, match=r"an episode has the reward .*, expected 0 or 1: choose a verifier that says"):
        METHODS["nsr"]()(answered([1.0, reward]))


def test_an_unknown_verdict_is_neither() -> None:
    credit = METHODS["nsr"]()(answered([None, 0.0]), unscored="drop")  # type: ignore[list-item]
    assert credit.advantages.tolist() == [0.0, 0.0, -1.0, -1.0]
    assert credit.counted.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "nrs"}, "unknown mode 'nrs': did you mean 'nsr'"),
        ({"mode": "weighted", "positive_weight": -0.1}, "positive_weight is -0.1, expected 0 or more"),
        ({"mode": "weighted", "positive_weight": float("nan")}, "positive_weight is nan, expected 0 or more"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        METHODS["nsr"](**settings)
