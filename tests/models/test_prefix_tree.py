"""The tree of rows against sets of prefixes, and who sees whom."""

from __future__ import annotations

import itertools
import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.models.packing import PrefixTree, prefix_tree
from apportion.models.packing.plan import Causal, Masked, plan, visible
from apportion.models.packing.tree import rows_with_prompts

ROWS = st.lists(st.lists(st.integers(0, 2), max_size=9), min_size=1, max_size=8)


def tree_of(rows: list[list[int]]) -> PrefixTree:
    flat = torch.tensor([token for row in rows for token in row], dtype=torch.int64)
    return prefix_tree(flat, torch.tensor([0, *map(len, rows)]).cumsum(0))


def paths(rows: list[list[int]], tree: PrefixTree) -> list[list[int]]:
    """Nodes of every row."""
    return [part.tolist() for part in tree.node_of_token.split([len(row) for row in rows])]


@given(rows=ROWS)
def test_every_distinct_prefix_is_one_node_and_every_row_a_path(rows: list[list[int]]) -> None:
    tree = tree_of(rows)
    prefix_of_node: dict[int, tuple[int, ...]] = {}
    for row, path in zip(rows, paths(rows, tree), strict=True):
        for depth, node in enumerate(path):
            prefix = tuple(row[: depth + 1])
            assert prefix_of_node.setdefault(node, prefix) == prefix
            assert (int(tree.ids[node]), int(tree.depths[node])) == (row[depth], depth)
    assert len(prefix_of_node) == len(set(prefix_of_node.values())) == len(tree)


@given(rows=ROWS)
def test_a_node_sees_the_prefixes_of_its_own(rows: list[list[int]]) -> None:
    tree = tree_of(rows)
    expected = torch.zeros((len(tree), len(tree)), dtype=torch.bool)
    for path in paths(rows, tree):
        for depth, node in enumerate(path):
            expected[node, path[: depth + 1]] = True
    assert torch.equal(visible(tree, 0, len(tree)), expected)


@given(rows=ROWS)
def test_segments_are_the_longest_chains_without_a_fork(rows: list[list[int]]) -> None:
    tree = tree_of(rows)
    children: dict[int, set[int]] = {}
    for path in paths(rows, tree):
        for above, below in itertools.pairwise(path):
            children.setdefault(above, set()).add(below)
    within = {(node, node + 1) for s in tree.segments for node in range(s.start, s.end - 1)}
    assert within == {(above, next(iter(below))) for above, below in children.items() if len(below) == 1}
    assert [s.start for s in tree.segments] == [0, *(s.end for s in tree.segments[:-1])][: len(tree.segments)]
    assert all(s.last == int(tree.lasts[s.end - 1]) for s in tree.segments)


@given(rows=ROWS, small=st.integers(0, 12))
def test_blocks_of_a_plan_cover_every_pair_once(rows: list[list[int]], small: int) -> None:
    tree = tree_of(rows)
    pairs = torch.zeros((len(tree), len(tree)), dtype=torch.int64)
    blocks = plan(tree, small)
    for block in blocks.own:
        if isinstance(block, Masked):
            pairs[block.start : block.end, block.start : block.end] += (block.mask == 0).long()
            assert block.end - block.start <= small
            continue
        assert isinstance(block, Causal)
        for start in range(block.start, block.start + block.length * block.count, block.length):
            chain = slice(start, start + block.length)
            pairs[chain, chain] += torch.ones((block.length, block.length), dtype=torch.int64).tril()
    for below in blocks.below:
        pairs[below.end : below.last, below.start : below.end] += 1
    assert torch.equal(pairs, visible(tree, 0, len(tree)).long())


def test_equal_rows_and_rows_that_end_inside_others_add_no_nodes() -> None:
    tree = tree_of([[1, 2, 3], [1, 2], [1, 2, 3], []])
    assert tree.ids.tolist() == [1, 2, 3]
    assert [(s.start, s.end, s.last) for s in tree.segments] == [(0, 3, 3)]
    assert tree.node_of_token.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]


def test_leaves_of_one_length_are_one_block() -> None:
    tree = tree_of([[9, 9, branch, 7, 7] for branch in range(4)])
    assert plan(tree, small=0).own == (Causal(0, 2, 1), Causal(2, 3, 4))


def test_no_rows_and_rows_without_tokens() -> None:
    empty = tree_of([[], []])
    assert (len(empty), empty.segments) == (0, ())
    assert plan(empty).own == ()


def test_large_ids_are_compared_as_numbers() -> None:
    tree = tree_of([[49151, 1], [256, 1], [255, 1], [49151, 0]])
    assert tree.ids.tolist() == [255, 1, 256, 1, 49151, 0, 1]


def test_rows_are_prompts_with_what_follows() -> None:
    dice = random.Random(0)
    prompts = [[dice.randint(0, 9) for _ in range(dice.randint(0, 4))] for _ in range(6)]
    follow = [[dice.randint(0, 9) for _ in range(dice.randint(0, 4))] for _ in range(6)]

    def flat(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([t for row in rows for t in row]), torch.tensor([0, *map(len, rows)]).cumsum(0)

    ids, offsets = rows_with_prompts(*flat(prompts), *flat(follow))
    assert [part.tolist() for part in ids.split(offsets.diff().tolist())] == [
        prompt + rest for prompt, rest in zip(prompts, follow, strict=True)
    ]
