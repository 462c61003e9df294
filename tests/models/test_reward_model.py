"""The reward model: which states it reads, its gradient under any cut, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.models.measuring import measure, micro_batches
from apportion.models.policy import trained_tokens
from apportion.models.reward_model import RewardModel, reward_model_for
from apportion.models.tabular import TabularPolicy
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate
from builders import gradients, random_rollouts, small_llama


def opinionated(tied: bool = False) -> RewardModel:
    """A reward model whose head has begun to learn."""
    model = reward_model_for(small_llama("float64", tied=tied))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in model.score.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def preferences() -> Rollouts:
    """Three pairs; the last two tokens of most responses are a critique."""
    rollouts = random_rollouts(holes=False).with_pairs(torch.tensor([0, 5, 11]), torch.tensor([2, 6, 8]))
    lengths = rollouts.token_offsets.diff()
    ends = rollouts.token_offsets[1:][lengths > 2]
    return rollouts.with_spans("critique", ends - 2, ends)


def test_scores_are_read_off_the_state_that_has_read_a_token_and_log_probs_before_it() -> None:
    model, rollouts = opinionated(), random_rollouts()
    found = measure(model, rollouts, ["scores/reward", "log_probs"], micro_batches(rollouts, 40))
    plain = measure(model.speaker, rollouts, ["log_probs"], micro_batches(rollouts, 40))
    torch.testing.assert_close(found["log_probs"], plain["log_probs"])
    for b in range(rollouts.n_responses):
        start, end = rollouts.token_offsets[b : b + 2].tolist()
        p = int(rollouts.prompts[b])
        prompt = rollouts.prompt_ids[rollouts.prompt_offsets[p] : rollouts.prompt_offsets[p + 1]]
        with torch.no_grad():
            states = model.trunk(input_ids=torch.cat([prompt, rollouts.ids[start:end]])[None])[0][0]
            scores = model.score(states[len(prompt) :]).squeeze(1)
            last = model.end_scores(rollouts, torch.tensor([b]))
        mask = rollouts.trained[start:end]
        torch.testing.assert_close(found["scores/reward"][start:end][mask], scores[mask])
        torch.testing.assert_close(last, scores[-1:])


@pytest.mark.parametrize("tied", [False, True])
def test_the_gradient_is_that_of_one_plain_pass(tied: bool) -> None:
    rollouts, objective = preferences(), OBJECTIVES["reward_model"](critic_weight=0.5, center_coefficient=0.1)
    credit = METHODS["none"]()(rollouts)
    found = []
    for budget in (1, 40, 1 << 14):
        model = opinionated(tied)
        accumulate(model, objective, rollouts, credit, micro_batches(rollouts, budget))
        found.append(gradients(model))
    model = opinionated(tied)
    every = torch.arange(rollouts.n_responses)
    readings = model._readings(rollouts, every, trained_tokens(rollouts, every), model.provides)
    now = model.read(readings.hidden, readings.tokens, rollouts, model.provides)
    objective(now, rollouts, credit).value.backward()
    expected = gradients(model)
    for other in found:
        assert other.keys() == expected.keys()
        for name, slope in expected.items():
            torch.testing.assert_close(other[name], slope, rtol=0, atol=1e-10)
    assert any(slope.abs().max() > 1e-3 for name, slope in expected.items() if name.startswith("model."))


def test_it_begins_at_zero_and_leaves_the_policy_alone() -> None:
    policy, rollouts = small_llama("float64"), preferences()
    model = reward_model_for(policy)
    assert not measure(model, rollouts, ["scores/reward"], micro_batches(rollouts, 40))["scores/reward"].any()
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            parameter.add_(1.0)
    again = small_llama("float64")
    for (name, ours), (_, theirs) in zip(policy.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("tied", [False, True])
def test_files(tied: bool, tmp_path: Path) -> None:
    model, rollouts = opinionated(tied), random_rollouts()
    model.save(tmp_path)
    other = reward_model_for(small_llama("float64", tied=tied))
    other.load_weights(tmp_path)
    one, two = (measure(m, rollouts, m.provides, micro_batches(rollouts, 40)) for m in (model, other))
    for name in model.provides:
        assert torch.equal(one[name], two[name])


def test_tables_cannot_be_reward_models() -> None:
    with pytest.raises(InputError, match="no reward model for a TabularPolicy: choose a Hugging Face model"):
        reward_model_for(TabularPolicy(vocabulary=2, depth=2))
