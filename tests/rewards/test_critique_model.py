"""Rewards as means over critiques that a model writes, and the same rows to train on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from apportion.errors import InputError
from apportion.models.reward_model import RewardModel, reward_model_for
from apportion.rewards.critique_model import critique_rewards, with_critiques
from apportion.rollouts import Rollouts, ragged
from apportion.sampling import SamplingSettings
from builders import random_rollouts, small_llama


def model() -> RewardModel:
    """One with opinions."""
    made = reward_model_for(small_llama("float64"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in made.score.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return made


def rewarded(rollouts: Rollouts, **given: Any) -> tuple[torch.Tensor, Rollouts]:
    settings = SamplingSettings(given.pop("length", 4), given.pop("temperature", 1.0), end_ids=(22,))
    return critique_rewards(model(), rollouts, settings, torch.Generator().manual_seed(0), **given)


def test_a_reward_is_the_mean_score_behind_the_critiques() -> None:
    rollouts = random_rollouts(groups=2, size=2)
    rewards, written = rewarded(rollouts, critiques=3, cue=[9, 8], micro_batch_tokens=50)
    assert written.n_responses == 3 * rollouts.n_responses
    critiques = ragged.unflatten(written.ids, written.token_offsets)
    assert len({tuple(row) for row in critiques}) > 6
    judge = model()
    # Stored behind the answers to train on, the same critiques score the same.
    for draw in range(3):
        rows = critiques[draw::3]
        stored = with_critiques(rollouts, rows, cue=[9, 8])
        scores = judge.end_scores(stored, torch.arange(stored.n_responses))
        torch.testing.assert_close(written.column("episode:reward/critique")[draw::3], scores)
        spans = stored.spans["critique"]
        found = [stored.ids[a:b].tolist() for a, b in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)]
        assert found == rows
    expected = written.column("episode:reward/critique").reshape(-1, 3).mean(1)
    torch.testing.assert_close(rewards, expected)
    assert rewards.std() > 1e-3


def test_at_temperature_zero_one_critique_says_all() -> None:
    rollouts = random_rollouts(groups=1, size=3)
    many, written = rewarded(rollouts, critiques=3, temperature=0.0)
    one, _ = rewarded(rollouts, critiques=1, temperature=0.0)
    torch.testing.assert_close(many, one)
    scores = written.column("episode:reward/critique").reshape(-1, 3)
    torch.testing.assert_close(scores, scores[:, :1].expand(-1, 3))


def test_what_is_kept_of_rows_with_critiques() -> None:
    rollouts = random_rollouts(groups=1, size=3).with_pairs(torch.tensor([0]), torch.tensor([2]))
    rollouts = rollouts.with_column("pair:tie", torch.tensor([True]))
    longer = with_critiques(rollouts, [[1], None, [2, 3]], cue=[7])
    assert longer.pairs is not None
    assert longer.column("pair:tie").tolist() == [True]
    assert longer.column("episode:reward/outcome").tolist() == rollouts.column("episode:reward/outcome").tolist()
    assert not longer.has("log_probs/old")
    lengths = (longer.token_offsets.diff() - rollouts.token_offsets.diff()).tolist()
    assert lengths == [2, 0, 3]
    rows = ragged.unflatten(longer.trained, longer.token_offsets)
    before = ragged.unflatten(rollouts.trained, rollouts.token_offsets)
    assert rows == [[*before[0], False, True], before[1], [*before[2], False, True, True]]


def test_bad_input() -> None:
    rollouts = random_rollouts(groups=1, size=2)
    with pytest.raises(InputError, match="critiques is 0, expected 1 or more"):
        rewarded(rollouts, critiques=0)
    with pytest.raises(InputError, match="exceed the model's context"):
        rewarded(rollouts, length=200)
    with pytest.raises(InputError, match="got 1 critiques of 2 responses"):
        with_critiques(rollouts, [[1]])
    with pytest.raises(InputError, match="a critique has no tokens"):
        with_critiques(rollouts, [[1], []])
    turns = Rollouts.from_lists([[1], [2]], groups=[0, 0], episodes=[0, 0])
    with pytest.raises(InputError, match="in 1 episodes, expected one of every response, and one response an episode"):
        with_critiques(turns, [[1], [2]])
