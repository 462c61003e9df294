"""Walks on a table: what is sampled, and exact values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.studies.walks import END, Walk

# From state 0, action 1 leads on to state 1 and action 0 stays; from state 1, action 1 ends and pays 2, action 0 leads
# back and pays 1.
TO = torch.tensor([[0, 1], [0, END]])
REWARD = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)


def _even(walk: Walk) -> TabularPolicy:
    return TabularPolicy(vocabulary=2, depth=1, prompts=len(walk.to))


def test_values_and_advantages_are_those_by_hand() -> None:
    walk = Walk(TO, REWARD, limit=3)
    policy = _even(walk)
    # One turn left: V(0) = 0, V(1) = (1 + 2) / 2. Two: V(0) = 1.5 / 2, V(1) = (1 + 0 + 2) / 2. Three: V(0) =
    # (0.75 + 1.5) / 2.
    assert walk.values(policy)[:, 0].tolist() == pytest.approx([0.0, 0.0, 0.75, 1.125])
    assert walk.values(policy)[:, 1].tolist() == pytest.approx([0.0, 1.5, 1.5, 1.875])
    assert walk.expected(policy) == pytest.approx(1.125)
    rollouts = walk.sample(policy, torch.tensor([0]), 64, torch.Generator().manual_seed(1))
    found = walk.advantages(policy, rollouts)
    by_hand = {(0, 0, 0): -0.375, (0, 0, 1): 0.375, (1, 0, 0): -0.75, (1, 0, 1): 0.75, (1, 1, 0): -0.5}
    by_hand |= {(1, 1, 1): 0.5, (2, 0, 0): 0.0, (2, 0, 1): 0.0, (2, 1, 0): -0.5, (2, 1, 1): 0.5}
    turn = [i for length in rollouts.response_offsets.diff().tolist() for i in range(length)]
    taken = list(zip(turn, rollouts.prompts.tolist(), rollouts.ids.tolist(), strict=True))
    assert set(taken) == set(by_hand)
    assert found.tolist() == pytest.approx([by_hand[place] for place in taken])


def test_episodes_follow_the_table() -> None:
    walk = Walk(TO, REWARD, limit=3)
    policy = _even(walk)
    with torch.no_grad():
        policy.logits[0] = torch.tensor([0.0, math.log(3.0)])
    rollouts = walk.sample(policy, torch.tensor([0, 1]), 200, torch.Generator().manual_seed(2))
    state, action = rollouts.prompts, rollouts.ids
    first = rollouts.response_offsets[:-1]
    assert state[first].tolist() == [0] * 200 + [1] * 200
    last = rollouts.response_offsets[1:] - 1
    inner = torch.ones(len(state), dtype=torch.bool).index_fill(0, last, False).nonzero().squeeze(1)
    assert torch.equal(state[inner + 1], TO[state[inner], action[inner]])
    ended = TO[state[last], action[last]] == END
    cut = rollouts.column("response:truncated")
    assert torch.equal(cut[last], ~ended)
    assert not bool(cut[inner].any())
    assert torch.equal(rollouts.response_offsets.diff()[~ended], torch.full((int((~ended).sum()),), 3))
    assert torch.equal(rollouts.column("response:reward/step"), REWARD[state, action])
    sums = [REWARD[state[a:b], action[a:b]].sum() for a, b in zip(first, last + 1, strict=True)]
    assert rollouts.column("episode:reward/outcome").tolist() == pytest.approx([float(x) for x in sums])
    log_probs = rollouts.column("log_probs/behaviour")
    assert log_probs[(state == 0) & (action == 1)].tolist() == pytest.approx(
        [math.log(0.75)] * int(((state == 0) & (action == 1)).sum())
    )
    onwards = action[state == 0].double().mean()
    assert abs(float(onwards) - 0.75) < 0.1
    assert set(rollouts.columns["response:state_key"].text) == {"0", "1"}


def test_copies_lie_beside_each_other() -> None:
    walk = Walk(TO, REWARD, limit=3)
    twice = walk.copies(2)
    assert twice.to.tolist() == [[0, 1], [0, END], [2, 3], [2, END]]
    policy = _even(twice)
    with torch.no_grad():
        policy.logits[2:, 0] = -50.0
    assert [twice.expected(policy, start) for start in (0, 2)] == pytest.approx([1.125, 2.0])


@pytest.mark.parametrize(
    ("to", "reward", "limit"),
    [(TO, REWARD[:1], 3), (torch.tensor([[0, 2]]), REWARD[:1], 3), (TO, REWARD, 0)],
)
def test_tables_that_do_not_fit_are_refused(to: torch.Tensor, reward: torch.Tensor, limit: int) -> None:
    with pytest.raises(InputError, match="expected"):
        Walk(to, reward, limit)
