"""The loss of a reward model that writes critiques, and the share of pairs and items it gets right."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.credit import METHODS
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.objectives.reward_model import accuracies
from apportion.rollouts import Rollouts


def scored(preferred: list[float], other: list[float], groups: list[int] | None = None) -> tuple[Rollouts, Tensor]:
    """Answers of one token."""
    n = len(preferred)
    of_pairs = groups if groups is not None else [0] * n
    rollouts = Rollouts.from_lists([[0]] * 2 * n, groups=[*of_pairs, *of_pairs])
    return rollouts.with_pairs(torch.arange(n), torch.arange(n, 2 * n)), torch.tensor([*preferred, *other]).double()


def evaluated(rollouts: Rollouts, scores: Tensor, log_probs: Tensor | None = None, **settings: Any) -> Any:
    settings = {"critic_weight": 0.0, **settings}
    now = {"scores/reward": scores} | ({} if log_probs is None else {"log_probs": log_probs})
    return OBJECTIVES["reward_model"](**settings)(now, rollouts, METHODS["none"]()(rollouts))


def surprise(z: float) -> float:
    return math.log1p(math.exp(-z))


def test_preferences_ties_and_centre_by_hand() -> None:
    rollouts, scores = scored([1.2, 0.3, 0.0], [0.2, 0.5, 0.4])
    rollouts = rollouts.with_column("pair:tie", torch.tensor([False, True, False]))
    loss = evaluated(rollouts, scores, reward_weight=2.0, tie_weight=3.0, center_coefficient=0.1)
    compare = (surprise(1.0) + surprise(-0.4)) / 2 + 3 * 0.04
    centre = (1.4**2 + 0.8**2 + 0.4**2) / 3
    assert loss.value.item() == pytest.approx(2 * compare + 0.1 * centre)
    assert loss.metrics["pair_accuracy"].item() == 0.5  # ties are neither right nor wrong
    assert loss.metrics["score_preferred"].item() == pytest.approx(0.5)


def test_ties_alone_draw_scores_together() -> None:
    rollouts, scores = scored([1.0], [-1.0])
    tied = rollouts.with_column("pair:tie", torch.tensor([True]))
    leaf = scores.requires_grad_()
    loss = evaluated(tied, leaf, center_coefficient=0.0)
    assert loss.value.item() == 4.0
    loss.value.backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [4.0, -4.0]
    assert loss.metrics["pair_accuracy"].item() == 0


def test_centring_alone_moves_both_scores_to_opposite_values() -> None:
    rollouts, scores = scored([3.0], [1.0])
    assert evaluated(rollouts, scores, reward_weight=0.0, center_coefficient=0.5).value.item() == 8.0


def test_the_score_is_read_after_the_last_token_that_trains_of_the_last_response() -> None:
    rollouts = Rollouts.from_lists(
        [[1, 2], [3, 4], [5]], groups=[0] * 3, episodes=[0, 0, 1], trained=[[1, 1], [1, 0], [1]]
    ).with_pairs(torch.tensor([0]), torch.tensor([1]))
    nan = torch.nan
    scores = torch.tensor([nan, nan, 2.0, nan, 0.5], dtype=torch.float64)
    assert evaluated(rollouts, scores, center_coefficient=0.0).value.item() == pytest.approx(surprise(1.5))


def test_critiques_are_learnt_from_the_pairs_that_have_both() -> None:
    # Answers: one token. Critiques: 2 and 1 tokens of the first pair, 1 and none of the second.
    rollouts = Rollouts.from_lists([[0, 1, 2], [0, 1], [0, 1], [0]], groups=[0] * 4)
    rollouts = rollouts.with_pairs(torch.tensor([0, 2]), torch.tensor([1, 3]))
    rollouts = rollouts.with_spans("critique", torch.tensor([1, 4, 6]), torch.tensor([3, 5, 7]))
    scores = torch.zeros(8, dtype=torch.float64)
    log_probs = torch.tensor([-9, -1, -3, -9, -4, -9, -7, -9]).double().requires_grad_()
    loss = evaluated(rollouts, scores, log_probs, critic_weight=2.0, reward_weight=0.0, center_coefficient=0.0)
    assert loss.metrics["critique_nll"].item() == pytest.approx((1 + 3) / 2 + 4)
    assert loss.value.item() == pytest.approx(2.0 * 0.5 * 6)
    loss.value.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [0, -0.5, -0.5, 0, -1, 0, 0, 0]


def test_without_the_critic_nothing_needs_to_speak() -> None:
    assert OBJECTIVES["reward_model"](critic_weight=0.0).now == ("scores/reward",)
    assert OBJECTIVES["reward_model"](head="safety").now == ("scores/safety", "log_probs")
    rollouts, scores = scored([1.0], [0.0])
    with pytest.raises(InputError, match=r"no spans of kind 'critique'.*set critic_weight=0"):
        evaluated(rollouts, scores, scores, critic_weight=1.0)


def test_margins_without_ties_only() -> None:
    rollouts, scores = scored([1.0, 0.0], [0.0, 0.5])
    with pytest.raises(MissingColumn, match="pair:margin"):
        evaluated(rollouts, scores, margin=True)
    lead = rollouts.with_column("pair:margin", torch.tensor([0.25, 2.0]))
    loss = evaluated(lead, scores, margin=True, center_coefficient=0.0)
    assert loss.value.item() == pytest.approx((surprise(0.75) + surprise(-2.5)) / 2)
    tied = lead.with_column("pair:tie", torch.tensor([False, True]))
    with pytest.raises(InputError, match="some pairs are ties, expected margins without ties"):
        evaluated(tied, scores, margin=True)


def test_accuracies_of_pairs_and_items() -> None:
    rollouts, scores = scored([1.0, 1.0, 0.0, 2.0], [0.0, 1.0, -1.0, 1.0], groups=[7, 7, 3, 9])
    loss = evaluated(rollouts, scores)
    assert loss.metrics["pair_accuracy"].item() == 0.75  # equal scores are wrong
    assert loss.metrics["item_accuracy"].item() == pytest.approx(2 / 3)
    none = torch.zeros(0)
    assert [share.item() for share in accuracies(none, none, none.long())] == [0.0, 0.0]


def test_pair_weights() -> None:
    rollouts, scores = scored([1.0, 0.0], [0.0, 1.0])
    weighted = rollouts.with_column("pair:weight", torch.tensor([3.0, 1.0]))
    loss = evaluated(weighted, scores, center_coefficient=0.0)
    assert loss.value.item() == pytest.approx((3 * surprise(1.0) + surprise(-1.0)) / 4)


@pytest.mark.parametrize("name", ["reward_weight", "tie_weight", "center_coefficient", "critic_weight"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bad_settings(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} is .*, expected 0 or more"):
        OBJECTIVES["reward_model"](**{name: value})


def test_no_pairs() -> None:
    rollouts = Rollouts.from_lists([[1]], groups=[0])
    with pytest.raises(InputError, match="no pairs, expected preferences between episodes"):
        evaluated(rollouts, torch.zeros(1))
