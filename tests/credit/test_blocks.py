"""Cutting rollouts into blocks of whole groups, and putting columns together again."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from apportion import credit
from apportion.credit.blocks import Joined, blocks_of
from apportion.errors import InputError
from apportion.rollouts import Column, Rollouts


def of_groups(groups: list[int], length: int = 2) -> Rollouts:
    rewards = [float(i % 3) for i in range(len(groups))]
    return Rollouts.from_lists([[1] * length] * len(groups), groups=groups, rewards=rewards)


def test_a_group_larger_than_a_block_is_a_block() -> None:
    assert blocks_of(of_groups([5, 5, 5, 1, 2, 2]), tokens=4) == [(0, 3), (3, 4), (4, 6)]


def test_few_tokens_are_one_block() -> None:
    assert blocks_of(of_groups([5, 5, 1]), tokens=6) == [(0, 3)]


def test_groups_that_lie_apart_are_one_block() -> None:
    assert blocks_of(of_groups([5, 1, 5]), tokens=1) == [(0, 3)]


def test_pairs_may_join_groups() -> None:
    paired = of_groups([5, 5, 1, 1]).with_pairs(torch.tensor([0, 2]), torch.tensor([1, 3]))
    assert blocks_of(paired, tokens=1) == [(0, 4)]


def test_columns_that_only_some_parts_have_are_missing_elsewhere() -> None:
    whole = of_groups([5, 5, 1])
    joined = Joined(whole, "credit")
    joined.add(whole.between(0, 2), {"episode:credit/a": Column(torch.tensor([1.0, 2.0]))})
    present = torch.tensor([False])
    joined.add(
        whole.between(2, 3),
        {"episode:credit/a": Column(torch.tensor([3.0]), present), "token:credit/b": Column(torch.tensor([7, 8]))},
    )
    columns = joined.columns()
    assert columns["episode:credit/a"].tensor.tolist() == [1, 2, 3]
    assert columns["episode:credit/a"].present.tolist() == [True, True, False]  # type: ignore[union-attr]
    assert columns["token:credit/b"].tensor.tolist() == [0, 0, 0, 0, 7, 8]
    assert columns["token:credit/b"].present.tolist() == [False] * 4 + [True] * 2  # type: ignore[union-attr]


def test_unknown_rewards_are_counted_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("apportion.credit.assign"), "blocks_of", lambda rollouts: blocks_of(rollouts, 1))
    rollouts = Rollouts.from_lists([[1, 2]] * 4, groups=[0, 0, 1, 1], rewards=[None, 1.0, None, 0.0])
    with pytest.raises(InputError, match="2 of 4 episodes have an unknown reward"):
        credit.METHODS["grpo"]()(rollouts)
    kept = credit.assign(credit.METHODS["rloo"](), rollouts, unscored="drop")
    assert kept.unknown.tolist() == [True, False, True, False]
    assert kept.trained.tolist() == [False, False, True, True] * 2


def test_an_advantage_beyond_the_precision_of_the_log_probs_is_refused() -> None:
    rollouts = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1e6, 0.0])
    small = rollouts.with_column("log_probs/old", torch.zeros(2, dtype=torch.float16))
    with pytest.raises(InputError, match="not finite in float16"):
        credit.METHODS["rloo"]()(small)
