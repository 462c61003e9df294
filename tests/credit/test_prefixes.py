"""The prefix tree against a dictionary of prefixes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from apportion.credit import prefixes
from apportion.credit.prefixes import prefix_tree
from apportion.rollouts import Rollouts, ragged
from credit.cases import close
from credit.worlds import Dialogues, Flat, dialogues, flats
from reference.prefixes import passers, prefix_values


@given(world=flats())
def test_nodes_are_prefixes(world: Flat) -> None:
    rollouts = world.rollouts()
    tree = prefix_tree(rollouts)
    before, after = (ragged.unflatten(nodes, rollouts.token_offsets) for nodes in (tree.before, tree.after))
    through = passers(world.ids, world.groups)
    node_of: dict[tuple[int, tuple[int, ...]], int] = {}
    for i, (row, group) in enumerate(zip(world.ids, world.groups, strict=True)):
        path = [int(tree.root[i]), *after[i]]
        assert before[i] == path[:-1]
        for length, node in enumerate(path):
            assert node_of.setdefault((group, tuple(row[:length])), node) == node
    assert len(set(node_of.values())) == len(node_of) == len(through) == tree.n_nodes
    assert {node_of[prefix]: len(members) for prefix, members in through.items()} == dict(
        enumerate(tree.visits.tolist())
    )


@given(world=flats())
def test_means_of_nodes(world: Flat) -> None:
    rollouts = world.rollouts()
    tree = prefix_tree(rollouts)
    value = tree.mean(torch.tensor(world.rewards, dtype=torch.float64))
    expected = prefix_values(world.ids, world.rewards, world.groups)
    close(value[tree.root], torch.tensor([row[0] for row in expected], dtype=torch.float64))
    close(value[tree.before], torch.tensor([v for row in expected for v in row[:-1]], dtype=torch.float64))
    close(value[tree.after], torch.tensor([v for row in expected for v in row[1:]], dtype=torch.float64))


def as_symbols(world: Dialogues) -> list[list[int]]:
    """What was said, and what was heard between turns as one symbol each."""
    heard: dict[tuple[int, ...], int] = {}
    rows = []
    for turns in world.turns:
        row: list[int] = []
        for i, (words, answer) in enumerate(turns):
            row += words
            if i + 1 < len(turns):
                row.append(1000 + heard.setdefault(tuple(answer), len(heard)))
        rows.append(row)
    return rows


@given(world=dialogues())
def test_what_a_tool_said_is_one_step_of_the_path(world: Dialogues) -> None:
    symbols = as_symbols(world)
    expected = prefix_values(symbols, world.rewards, world.groups)
    said = [
        (before, after)
        for row, values in zip(symbols, expected, strict=True)
        for symbol, before, after in zip(row, values[:-1], values[1:], strict=True)
        if symbol < 1000
    ]
    rewards = torch.tensor(world.rewards, dtype=torch.float64)
    for rollouts in (world.growing(), world.separate(history=True), world.separate(history=False)):
        tree = prefix_tree(rollouts)
        value = tree.mean(rewards)
        close(value[tree.before][rollouts.trained], torch.tensor([b for b, _ in said], dtype=torch.float64))
        close(value[tree.after][rollouts.trained], torch.tensor([a for _, a in said], dtype=torch.float64))


def test_words_around_the_turns_of_a_response() -> None:
    ids = [[7, 1, 8, 8, 2, 9], [7, 1, 8, 2], [7, 1, 8, 8, 2, 9, 9], [7, 1]]
    starts, ends = [1, 4, 7, 9, 11, 14, 18], [2, 5, 8, 10, 12, 15, 19]
    rollouts = Rollouts.from_lists(ids, groups=[0] * 4).with_spans("turn", torch.tensor(starts), torch.tensor(ends))
    tree = prefix_tree(rollouts)
    counts = ragged.unflatten(tree.visits[tree.after], rollouts.token_offsets)
    # After "7 1" all four; "8 8" brought two to another place than "8", and "9 9" one to another than "9".
    assert counts == [[4, 4, 2, 2, 2, 1], [4, 4, 1, 1], [4, 4, 2, 2, 2, 1, 1], [4, 4]]


def test_token_ids_may_be_any_integers() -> None:
    rollouts = Rollouts.from_lists([[-1, 2**40], [-1, -7], [-2]], groups=[5, 5, 5])
    tree = prefix_tree(rollouts)
    assert tree.visits[tree.after].tolist() == [2, 1, 2, 1, 1]


@pytest.mark.parametrize(("shared", "alone"), [(0, 200), (3, 200), (50, 0)])
def test_work_ends_where_sharing_ends(monkeypatch: pytest.MonkeyPatch, shared: int, alone: int) -> None:
    """One round a depth, down to the first depth at which every episode is alone."""
    rows = [[1] * shared + [2 + i] + list(range(alone)) for i in range(4)]
    rounds = []

    def counted(values: torch.Tensor, **options: bool) -> tuple[torch.Tensor, ...]:
        if options.get("return_counts"):
            rounds.append(len(values))
        return torch.unique(values, **options)

    tree = prefix_tree(Rollouts.from_lists(rows, groups=[0] * 4))
    monkeypatch.setattr(prefixes, "torch", _With(torch, unique=counted))
    again = prefix_tree(Rollouts.from_lists(rows, groups=[0] * 4))
    assert torch.equal(again.after, tree.after)
    assert rounds == [4] * (shared + 1)


class _With:
    """A module with some names replaced."""

    def __init__(self, module: object, **names: object) -> None:
        self.__dict__ |= {**vars(module), **names}
