"""Regression of scores after decisions, by hand."""

from __future__ import annotations

import pytest
import torch

from apportion.errors import MissingColumn
from apportion.objectives.score_regression import score_regression
from apportion.rollouts import Rollouts
from golden.adapters._build import credit_of

SCORES = torch.tensor([9.0, 2.0, 9.0, 4.0, 1.0, 9.0], dtype=torch.float64)
"""After every token: of a decision of three tokens the last of which is not trained, of one of one, one of two."""


def talk(as_turns: bool, present: list[bool] | None = None) -> Rollouts:
    """Decisions of tokens 0-2, 3 and 4-5, as two episodes of responses or of turn spans."""
    trained = [1, 1, 0, 1, 1, 0]
    if as_turns:
        rollouts = Rollouts.from_lists([[0] * 4, [0] * 2], groups=[0, 0], trained=[trained[:4], trained[4:]])
        rollouts = rollouts.with_spans("turn", torch.tensor([0, 3, 4]), torch.tensor([3, 4, 6]))
    else:
        rows = [trained[:3], trained[3:4], trained[4:]]
        rollouts = Rollouts.from_lists([[0] * 3, [0], [0] * 2], groups=[0] * 3, episodes=[0, 0, 1], trained=rows)
    known = None if present is None else torch.tensor(present)
    return rollouts.with_column(
        f"{'turn' if as_turns else 'response'}:target/utterance", torch.tensor([3.0, 4.0, 5.0]), known
    )


@pytest.mark.parametrize("as_turns", [True, False])
def test_the_score_after_the_last_trained_token_goes_to_the_target(as_turns: bool) -> None:
    rollouts, scores = talk(as_turns), SCORES.clone().requires_grad_()
    loss = score_regression()({"scores/reward": scores}, rollouts, credit_of(rollouts))
    assert loss.value.item() == pytest.approx((1 + 0 + 16) / 3)
    assert float(loss.metrics["score_error"]) == pytest.approx((17 / 3) ** 0.5)
    assert float(loss.metrics["score"]) == pytest.approx(7 / 3)
    assert float(loss.metrics["target"]) == pytest.approx(4)
    loss.value.backward()
    assert scores.grad.tolist() == pytest.approx([0, -2 / 3, 0, 0, -8 / 3, 0])


def test_what_has_no_target_or_is_not_trained_is_left_out() -> None:
    rollouts = talk(True, [False, True, True])
    credit = credit_of(rollouts)
    loss = score_regression()({"scores/reward": SCORES}, rollouts, credit)
    assert loss.value.item() == 8.0
    credit.trained[4] = False
    assert score_regression()({"scores/reward": SCORES}, rollouts, credit).value.item() == 0.0
    nothing = talk(False, [False] * 3)
    loss = score_regression()({"scores/reward": SCORES}, nothing, credit_of(nothing))
    assert loss.value.item() == 0.0
    assert all(metric.item() == 0.0 for metric in loss.metrics.values())


def test_a_missing_target_is_named_with_its_maker() -> None:
    bare = Rollouts.from_lists([[0]], groups=[0])
    with pytest.raises(MissingColumn, match=r"'steps:target/utterance', .*--learners utterance_reward_model"):
        score_regression()({"scores/reward": SCORES[:1]}, bare, credit_of(bare))
