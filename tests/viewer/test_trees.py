"""The tree of a group holds every token once, at the prefix it belongs to, and its numbers are those of the prefix."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.rollouts import Rollouts
from apportion.viewer.rewards import episode_rewards
from apportion.viewer.tree import as_record, trie

ROWS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=7)


def naive(rows: list[list[int]], rewards: list[float]) -> dict[tuple[int, ...], tuple[list[int], float]]:
    """By prefix, who passes there and the mean of their rewards."""
    through: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for e, row in enumerate(rows):
        for t in range(len(row) + 1):
            through[tuple(row[:t])].append(e)
    return {prefix: (who, sum(rewards[e] for e in who) / len(who)) for prefix, who in through.items()}


@given(ROWS, st.data())
def test_equal_to_a_naive_trie(rows: list[list[int]], data: st.DataObject) -> None:
    rewards = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(rows), max_size=len(rows)))
    group = Rollouts.from_lists(rows, groups=[0] * len(rows), rewards=rewards)
    nodes = as_record(trie(group), group, episode_rewards(group, "outcome"))
    expected = naive(rows, rewards)
    covered = set()
    for number, node in enumerate(nodes):
        first = rows[node["episodes"][0]]
        for depth in range(node["start"], node["end"]):
            prefix = tuple(first[: depth + 1])
            assert prefix not in covered
            covered.add(prefix)
            who, mean = expected[prefix]
            assert node["episodes"] == who
            assert node["value"] == pytest.approx(mean)
        assert node["ends"] == [e for e in node["episodes"] if len(rows[e]) == node["end"]]
        for child in node["children"]:
            assert nodes[child]["parent"] == number
            assert nodes[child]["start"] == node["end"]
        if number and not node["ends"]:
            assert len(node["children"]) > 1, "a node without a fork or an end would go on"
    assert covered == {prefix for prefix in expected if prefix}


def test_turns_stored_as_responses_part_where_they_heard_different_things() -> None:
    """Equal words after different answers of the world are different places."""
    group = Rollouts.from_lists(
        [[1], [2], [1], [2]],
        prompts=[[0], [0, 1, 8], [0], [0, 1, 9]],
        groups=[0] * 4,
        episodes=[0, 0, 1, 1],
        rewards=[1.0, 0.0],
    )
    nodes = as_record(trie(group), group, episode_rewards(group, "outcome"))
    assert [(n["start"], n["end"], n["episodes"]) for n in nodes] == [
        (0, 0, [0, 1]),
        (0, 1, [0, 1]),
        (1, 2, [0]),
        (1, 2, [1]),
    ]


def test_a_deep_chain_of_forks_needs_no_deep_stack() -> None:
    rows = [[0] * t + [1] for t in range(2000)]
    group = Rollouts.from_lists(rows, groups=[0] * len(rows), rewards=[0.0] * len(rows))
    nodes = as_record(trie(group), group, episode_rewards(group, "outcome"))
    assert sum(node["end"] - node["start"] for node in nodes) == 1999 + 2000


def test_unknown_rewards_are_in_no_value() -> None:
    group = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[None, 1.0])
    nodes = as_record(trie(group), group, episode_rewards(group, "outcome"))
    assert [node["value"] for node in nodes] == [1.0, 1.0, None, 1.0]


@pytest.mark.parametrize(
    ("level", "values", "scored", "expected"),
    [
        ("token", [1.0, 2.0, 4.0], [True, True, True], [(3.0, True), (4.0, True)]),
        ("token", [1.0, 2.0, 4.0], [True, False, True], [(0.0, False), (4.0, True)]),
        ("response", [1.0, 4.0], [True, False], [(1.0, True), (0.0, False)]),
    ],
)
def test_rewards_below_the_episode_are_summed_and_unknown_spreads_upwards(
    level: str, values: list[float], scored: list[bool], expected: list[tuple[float, bool]]
) -> None:
    rollouts = Rollouts.from_lists([[1, 2], [3]], groups=[0, 0])
    rollouts = rollouts.with_reward("x", torch.tensor(values), torch.tensor(scored), level=level)
    found = episode_rewards(rollouts, "x")
    assert list(zip(found.value.tolist(), found.known.tolist(), strict=True)) == expected
