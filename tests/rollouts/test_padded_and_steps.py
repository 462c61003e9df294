"""Padded matrices, and the decisions of an episode however it is stored."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts, from_padded, steps, to_padded

torch.set_num_threads(1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), max_size=4))
def test_padded_is_the_lists_up_to_the_last_trained_token(rows: list[list[bool]]) -> None:
    ids = torch.arange(len(rows) * 4).reshape(-1, 4)
    mask = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)
    log_probs = -torch.rand(ids.shape)
    groups = torch.zeros(len(rows), dtype=torch.int64)
    rollouts = from_padded(ids, mask, torch.zeros(len(rows)), groups, log_probs_old=log_probs)
    lengths = [max([i + 1 for i, on in enumerate(row) if on], default=0) for row in rows]
    wanted = [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)]
    assert rollouts.ids.tolist() == [token for row in wanted for token in row]
    assert rollouts.trained.tolist() == [on for row, n in zip(rows, lengths, strict=True) for on in row[:n]]
    back = to_padded(rollouts, rollouts.ids, width=4, fill=-1)
    assert back.tolist() == [[*row, *[-1] * (4 - len(row))] for row in wanted]
    assert torch.equal(to_padded(rollouts, rollouts.column("log_probs/old"), width=4) * mask, log_probs * mask)


def test_padded_rewards_may_be_unknown_and_may_be_one_a_token() -> None:
    ids, mask, groups = torch.tensor([[1, 2], [3, 4]]), torch.ones(2, 2), torch.tensor([0, 0])
    rollouts = from_padded(ids, mask, torch.tensor([1.0, torch.nan]), groups)
    assert rollouts.column("episode:scored/outcome").tolist() == [True, False]
    rollouts = from_padded(ids, mask, torch.tensor([[0.0, 1.0], [2.0, torch.nan]]), groups, component="step")
    assert rollouts.column("token:scored/step").tolist() == [True, True, True, False]


def test_padded_lengths_keep_untrained_ends() -> None:
    rollouts = from_padded(
        torch.tensor([[1, 2, 3]]),
        torch.tensor([[1, 0, 0]]),
        torch.tensor([1.0]),
        torch.tensor([0]),
        lengths=torch.tensor([2]),
    )
    assert rollouts.trained.tolist() == [True, False]


@pytest.mark.parametrize(
    ("mask", "rewards", "message"),
    [
        (torch.ones(2, 3), torch.zeros(2), "do not fit, expected both"),
        (torch.full((2, 2), 2), torch.zeros(2), "mask has values other than 0 and 1"),
        (torch.ones(2, 2), torch.zeros(3), "rewards have shape"),
    ],
)
def test_padded_shapes_that_do_not_fit(mask: torch.Tensor, rewards: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_padded(torch.zeros(2, 2, dtype=torch.int64), mask, rewards, torch.tensor([0, 0]))


@pytest.mark.parametrize("lengths", [[3, 1], [2, -1], [1, 1], [2]])
def test_padded_lengths_that_do_not_fit(lengths: list[int]) -> None:
    ids, mask = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 1], [1, 0]])
    with pytest.raises(InputError, match="from its last trained token to the width 2"):
        from_padded(ids, mask, torch.zeros(2), torch.zeros(2), lengths=torch.tensor(lengths))


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 1), (4,)])
def test_padded_columns_of_another_shape(shape: tuple[int, ...]) -> None:
    ids = torch.tensor([[1, 2], [3, 4]])
    with pytest.raises(InputError, match=r"log_probs_old has shape .*, expected that of ids, \(2, 2\)"):
        from_padded(ids, torch.ones(2, 2), torch.zeros(2), torch.zeros(2), log_probs_old=torch.zeros(shape))


def test_padded_width_must_hold_the_longest() -> None:
    rollouts = Rollouts.from_lists([[1, 2, 3]], groups=[0])
    with pytest.raises(InputError, match="a response has 3 tokens, expected at most width=2"):
        to_padded(rollouts, rollouts.ids, width=2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=3))
def test_one_growing_response_and_one_response_a_turn_have_the_same_steps(turns: list[list[int]]) -> None:
    lengths = [n for episode in turns for n in episode]
    tokens = iter(range(sum(lengths)))
    responses = [[next(tokens) for _ in range(n)] for n in lengths]
    episode = [e for e, ns in enumerate(turns) for _ in ns]
    separate = Rollouts.from_lists(responses, groups=[0] * len(responses), episodes=episode)
    grown = Rollouts.from_lists(
        [[t for row, at in zip(responses, episode, strict=True) if at == e for t in row] for e in range(len(turns))],
        groups=[0] * len(turns),
    )
    ends = torch.tensor(lengths).cumsum(0)
    grown = grown.with_spans("turn", ends - torch.tensor(lengths), ends)
    rewards, keys = torch.rand(len(lengths)), [f"state {i % 2}" for i in range(len(lengths))]
    separate = separate.with_reward("step", rewards, level="response").with_column("response:state_key", keys)
    grown = grown.with_reward("step", rewards, level="turn").with_column("turn:state_key", keys)

    first, second = steps(separate), steps(grown)
    assert (first.level, second.level) == ("response", "turn")
    assert len(first) == len(lengths)
    assert first.episode.tolist() == second.episode.tolist() == episode
    assert first.index.tolist() == second.index.tolist() == [i for ns in turns for i in range(len(ns))]
    assert first.offsets.tolist() == second.offsets.tolist()
    assert torch.equal(first.starts, second.starts)
    assert torch.equal(first.ends, second.ends)
    assert torch.equal(first.step_of_token, second.step_of_token)
    assert torch.equal(first.column("reward/step"), second.column("reward/step"))
    assert first.text("state_key") == second.text("state_key") == tuple(keys)
    assert torch.equal(separate.episode_offsets, grown.episode_offsets)


def test_tokens_between_turns_belong_to_no_step() -> None:
    rollouts = Rollouts.from_lists([[1, 2, 3, 4]], groups=[0])
    rollouts = rollouts.with_spans("turn", torch.tensor([0, 3]), torch.tensor([1, 4]))
    assert steps(rollouts).step_of_token.tolist() == [0, -1, -1, 1]
    with pytest.raises(MissingColumn, match=r"'turn:state_key'.*an environment records it"):
        steps(rollouts).text("state_key")
