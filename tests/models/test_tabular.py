"""The policy that is a table: states by brute force, probabilities by softmax, files."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.models.statistics import STATISTICS
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.sampling import SamplingSettings, engine_for


def filled(vocabulary: int = 3, depth: int = 3, prompts: int = 2) -> TabularPolicy:
    policy = TabularPolicy(vocabulary, depth, prompts)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(0)).double())
    return policy


@given(vocabulary=st.integers(1, 4), depth=st.integers(1, 4), prompts=st.integers(1, 3))
def test_every_prompt_and_prefix_has_a_state_of_its_own(vocabulary: int, depth: int, prompts: int) -> None:
    policy = TabularPolicy(vocabulary, depth, prompts)
    seen = []
    for prompt in range(prompts):
        for length in range(depth):
            prefixes = list(itertools.product(range(vocabulary), repeat=length))
            rows = torch.tensor(prefixes, dtype=torch.int64).reshape(len(prefixes), length)
            seen += policy.state(torch.full((len(prefixes),), prompt), rows).tolist()
    assert sorted(seen) == list(range(policy.logits.shape[0]))


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(0, 2), min_size=1, max_size=3)), min_size=1, max_size=8
    )
)
def test_states_of_rollouts_are_those_of_their_prefixes(rows: list[tuple[int, list[int]]]) -> None:
    policy = filled()
    rollouts = Rollouts.from_lists([ids for _, ids in rows], groups=[0] * len(rows), prompts=[[p] for p, _ in rows])
    states = policy.states_of(rollouts).tolist()
    expected = [
        int(policy.state(torch.tensor([prompt]), torch.tensor([ids[:t]], dtype=torch.int64).reshape(1, t)))
        for prompt, ids in rows
        for t in range(len(ids))
    ]
    assert states == expected


def test_statistics_are_those_of_its_rows() -> None:
    policy = filled()
    ids = [[0, 1, 2], [2, 2], [1]]
    rollouts = Rollouts.from_lists(ids, groups=[0, 0, 0], prompts=[[0], [1], [1]], trained=[[1, 0, 1], [1, 1], [1]])
    rollouts = rollouts.with_column("response:temperature", torch.tensor([1.0, 0.5, 2.0]))
    found = policy.statistics(rollouts, torch.tensor([2, 0, 1]), list(STATISTICS))
    rows = []
    for b in (2, 0, 1):
        for t, token in enumerate(ids[b]):
            if (b, t) == (0, 1):
                continue  # not trained
            prefix = torch.tensor([ids[b][:t]], dtype=torch.int64).reshape(1, t)
            logits = policy.next_logits(torch.tensor([[0, 1, 1][b]]), prefix)[0] / [1.0, 0.5, 2.0][b]
            p = logits.softmax(0)
            rows.append((p[token].log(), -(p * p.log()).sum(), p.log().mean(), p.max().log(), p.argmax()))
    for name, expected in zip(STATISTICS, zip(*rows, strict=True), strict=True):
        assert torch.allclose(found[name], torch.stack(expected)), name


def test_samples_have_the_frequencies_of_the_table() -> None:
    policy = filled(vocabulary=2, depth=2, prompts=1)
    n = 20_000
    drawn = engine_for(policy).generate([[0]], n, SamplingSettings(2), torch.Generator().manual_seed(1))
    leaves = drawn.ids.reshape(n, 2)
    for leaf in itertools.product(range(2), repeat=2):
        first = policy.next_logits(torch.tensor([0]), torch.zeros((1, 0), dtype=torch.int64)).softmax(1)[0, leaf[0]]
        second = policy.next_logits(torch.tensor([0]), torch.tensor([[leaf[0]]])).softmax(1)[0, leaf[1]]
        share = float((leaves == torch.tensor(leaf)).all(1).double().mean())
        assert share == pytest.approx(float((first * second).detach()), abs=0.02)


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    policy, other = filled(), TabularPolicy(3, 3, 2)
    policy.save(tmp_path)
    other.load_weights(tmp_path)
    assert torch.equal(policy.logits, other.logits)


def test_copies() -> None:
    policy = filled()
    clone, frozen = policy.clone(), policy.frozen_copy()
    expected = policy.logits.detach().clone()
    with torch.no_grad():
        policy.logits.zero_()
    assert torch.equal(clone.logits, expected)
    assert torch.equal(frozen.logits, expected)
    assert clone.logits.requires_grad
    assert not frozen.logits.requires_grad
    assert frozen.end_ids == policy.end_ids
    single = TabularPolicy(2, 1, dtype="float32")
    assert single.clone().logits.dtype == single.frozen_copy().logits.dtype == torch.float32


def test_what_the_table_does_not_have_is_refused() -> None:
    policy = filled()
    with pytest.raises(InputError, match="a prefix of 3 tokens has no state, expected at most 2"):
        policy.state(torch.tensor([0]), torch.zeros((1, 3), dtype=torch.int64))
    with pytest.raises(InputError, match="a response has 4 tokens, expected at most 3"):
        policy.states_of(Rollouts.from_lists([[0, 1, 2, 0]], groups=[0], prompts=[[0]]))
    with pytest.raises(InputError, match="states is too large"):
        TabularPolicy(vocabulary=100, depth=5)
    with pytest.raises(InputError, match="reads numbers only: leave instruction and chat out"):
        policy.codec("Say {prompt}")
    with pytest.raises(InputError, match="reads numbers only"):
        policy.codec(chat=True)
    with pytest.raises(InputError, match="sampling_dtype is 'bfloat16', but a tabular policy has one dtype only"):
        engine_for(policy, "bfloat16")
    assert policy.context == 4
