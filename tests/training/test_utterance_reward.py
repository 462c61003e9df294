"""The reward model of utterances as a learner: its targets, what it makes, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from apportion.credit import METHODS, Clock
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.training.config import TrainConfig
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.learners import LEARNERS
from builders import small_llama

SETTINGS = UpdateSettings.of(TrainConfig(learning_rate=1e-3, seed=3))


def made(**settings: Any) -> Learner:
    given = {"dimensions": ("goal",), "output_scale": 1.0, "learning_rate": 3e-3, **settings}
    return LEARNERS["utterance_reward_model"](**given).make(small_llama(), SETTINGS)


def talk(as_turns: bool = False) -> Rollouts:
    """Two dialogues of two utterances that all begin alike; the one with a 7 contributed."""
    said = [[5, 7], [6, 5], [5, 6], [6, 6]]
    groups = [0] * 4
    if as_turns:
        whole = [said[0] + said[1], said[2] + said[3]]
        rollouts = Rollouts.from_lists(whole, groups=groups[:2], prompts=[[1, 2]] * 2)
        rollouts = rollouts.with_spans("turn", torch.tensor([0, 2, 4, 6]), torch.tensor([2, 4, 6, 8]))
    else:
        rollouts = Rollouts.from_lists(said, groups=groups, episodes=[0, 0, 1, 1], prompts=[[1, 2]] * 4)
    given = torch.tensor([3.0, 0.0, 1.0, 0.0])
    level = "turn" if as_turns else "response"
    rollouts = rollouts.with_reward("goal", torch.tensor([8.0, 6.0]))
    return rollouts.with_reward("attribution/goal", given, level=level)


@pytest.mark.parametrize("as_turns", [True, False])
def test_targets_are_the_credits_rewards(as_turns: bool) -> None:
    rollouts = talk(as_turns)
    level = "turn" if as_turns else "response"
    annotated = made().annotate(rollouts)
    credit = METHODS["sotopia_rl"](("goal",), output_scale=1.0)(rollouts)
    expected = credit.columns[f"{level}:credit/utterance_rewards"].tensor
    assert torch.equal(annotated.column(f"{level}:target/utterance"), expected)
    assert annotated.column(f"{level}:reward/utterance_rm").tolist() == [0.0] * 4  # a head begins at 0


def test_it_learns_from_words_alone_what_the_judge_said_in_hindsight() -> None:
    learner, rollouts = made(), talk()
    first = {}
    for step in range(60):
        annotated = learner.annotate(rollouts)
        metrics = learner.update(METHODS["none"]()(annotated), Clock(step, 60))
        first = first or metrics
    scores = learner.annotate(rollouts).column("response:reward/utterance_rm")
    target = annotated.column("response:target/utterance")
    assert target.tolist() == [1.0, 0.0, 0.25, 0.0]
    assert (scores - target).abs().max() < 0.1
    assert metrics["score_error"] < 0.1 < first["score_error"]
    ends = learner.model.end_scores(rollouts, torch.arange(4)).double()  # type: ignore[attr-defined]
    torch.testing.assert_close(scores, ends, rtol=0, atol=1e-5)


def test_what_the_judge_left_open_is_no_target() -> None:
    rollouts = talk()
    known = torch.tensor([True, False, True, True])
    unsure = rollouts.with_reward("attribution/goal", torch.tensor([3.0, 0.0, 1.0, 0.0]), known, level="response")
    annotated = made().annotate(unsure)
    assert annotated.columns["response:target/utterance"].present.tolist() == [False, False, True, True]
    assert torch.isfinite(annotated.column("response:reward/utterance_rm")).all()


def test_settings_are_those_of_the_credit() -> None:
    factory = LEARNERS["utterance_reward_model"](("goal",), method="uniform")
    assert factory.needs == ("reward/goal",)
    assert {"reward/utterance_rm", "steps:target/utterance"} <= set(factory.makes)
    with pytest.raises(InputError, match="unknown method 'softmax'"):
        LEARNERS["utterance_reward_model"](method="softmax")
