"""Pairs of a data set chosen by how much they would displace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from apportion.annotations.ches import quantile_window
from apportion.curricula.pair_filter import filter_file, filter_pairs, with_ches
from apportion.errors import InputError
from apportion.rollouts import Rollouts, read_jsonl
from apportion.rollouts.store import write
from builders import random_rollouts, small_llama


def paired(holes: bool = True) -> Rollouts:
    """Three groups of four; a pair of each."""
    return random_rollouts(holes=holes).with_pairs(torch.tensor([0, 5, 11]), torch.tensor([2, 6, 8]))


def test_a_file_keeps_the_pairs_and_their_episodes(tmp_path: Path) -> None:
    policy, rollouts = small_llama("float64"), paired(holes=False)
    write(rollouts, tmp_path / "all.jsonl")
    kept = filter_file(tmp_path / "all.jsonl", tmp_path / "some.jsonl", policy, keep_fraction=0.5)
    scores = with_ches(rollouts, policy).column("pair:ches_length_normalised")
    lowest = sorted(range(3), key=lambda k: float(scores[k]))[:2]
    again = read_jsonl(tmp_path / "some.jsonl")
    for found in (kept, again):
        assert found.n_episodes == 4
        torch.testing.assert_close(found.column("pair:ches_length_normalised"), scores[sorted(lowest)])
        assert found.pairs is not None
        group = found.group_of_episode
        assert torch.equal(group[found.pairs.preferred], group[found.pairs.other])
    write(random_rollouts(), tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"none.jsonl has no pairs.*apportion rollout --pairs"):
        filter_file(tmp_path / "none.jsonl", tmp_path / "x.jsonl", policy)


def test_pairs_around_a_quantile_of_a_data_set() -> None:
    rollouts = paired().with_column("pair:ches", torch.tensor([2.0, 1.0, 3.0]))
    highest = filter_pairs(rollouts, lambda scores: quantile_window(scores, 1.0, 1), length_normalised=False)
    assert highest.n_episodes == 2
    assert highest.column("pair:ches").tolist() == [3.0]
