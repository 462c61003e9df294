"""Tables whose states share parameters, against tables that do not."""

from __future__ import annotations

import torch

from apportion.models.critic import critic_for
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.shared import SharedPolicy, by_position
from apportion.studies.tabular import Trained, rewarded, sample

IDS, PROMPTS = [[0, 1, 2], [2, 2], [1], [0, 1]], [[0], [1], [1], [0]]
NAMES = ("log_probs", "entropy", "vocab_mean", "max_log_prob", "greedy")


def some() -> Rollouts:
    rollouts = Rollouts.from_lists(IDS, groups=[0, 1, 1, 0], prompts=PROMPTS)
    return rollouts.with_column("response:temperature", torch.tensor([1.0, 0.5, 2.0, 1.0]))


def filled(shape: torch.Size) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_with_a_state_for_every_prefix_it_is_a_tabular_policy() -> None:
    table = TabularPolicy(3, 3, prompts=2)
    shared = SharedPolicy(3, 3, states=len(table.logits), prompts=2, state_of=table.state)
    with torch.no_grad():
        table.logits.copy_(filled(table.logits.shape))
        shared.logits.copy_(table.logits)
    rollouts, rows = some(), torch.arange(4)
    assert shared.states_of(rollouts).tolist() == table.states_of(rollouts).tolist()
    for name in NAMES:
        own, other = (policy.statistics(rollouts, rows, (name,))[name] for policy in (shared, table))
        assert torch.equal(own, other), name
    drawn = [sample(policy, [0, 1], 4, torch.Generator().manual_seed(1)).ids for policy in (shared, table)]
    assert torch.equal(*drawn)


def test_prefixes_of_one_state_share_a_row() -> None:
    policy = SharedPolicy(3, 3, states=3, prompts=2, state_of=by_position)
    assert policy.states_of(some()).tolist() == [0, 1, 2, 0, 1, 0, 0, 1]
    with torch.no_grad():
        policy.logits.copy_(filled(policy.logits.shape))
    log_probs = policy.logits.log_softmax(1)
    measured = policy.statistics(some(), torch.tensor([0, 3]), ("log_probs",))["log_probs"]
    expected = [log_probs[0, 0], log_probs[1, 1], log_probs[2, 2], log_probs[0, 0], log_probs[1, 1]]
    assert torch.allclose(measured, torch.stack(expected), atol=1e-12)


def test_features_mix_rows_and_pass_the_gradient_on() -> None:
    features = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    policy = SharedPolicy(3, 1, features, prompts=2)
    with torch.no_grad():
        policy.logits.copy_(filled(policy.logits.shape))
    mixed = (features @ policy.logits).detach()
    assert torch.equal(policy.next_logits(torch.tensor([0, 1]), torch.zeros((2, 0), dtype=torch.int64)), mixed)
    one = Rollouts.from_lists([[2]], groups=[0], prompts=[[1]])
    policy.accumulate(one, torch.tensor([0]), ("log_probs",), lambda now, tokens: now["log_probs"].sum())
    error = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - mixed[1].softmax(0)
    assert policy.logits.grad is not None
    assert torch.allclose(policy.logits.grad, features[1][:, None] * error, atol=1e-12)


def test_a_copy_has_rows_of_its_own_and_a_critic_a_value_for_every_state() -> None:
    policy = SharedPolicy(3, 3, states=3, prompts=2, state_of=by_position)
    twin, frozen = policy.clone(), policy.frozen_copy()
    rollouts = rewarded(sample(policy, [0, 1], 4, torch.Generator().manual_seed(1)), lambda prompt, tokens: tokens[0])
    Trained(policy, "rloo", "reinforce", learning_rate=1.0).step(rollouts)
    assert policy.logits.abs().sum() > 0
    assert twin.logits.abs().sum() == frozen.logits.abs().sum() == 0
    assert twin.logits.requires_grad
    assert not frozen.logits.requires_grad
    assert [len(values) for _, values in critic_for(policy).named_parameters()] == [3]
