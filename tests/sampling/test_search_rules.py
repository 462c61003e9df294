"""What searches are made of: tree store, selection, backup, labels, votes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.sampling.search.backup import comp, decayed, mean, rollout_value
from apportion.sampling.search.labels import LOOK_BACKS, clipped, look_back, signed, thresholded
from apportion.sampling.search.requests import Checked, at_delimiter, every
from apportion.sampling.search.selection import CLOSED, Child, all_best, first_best, ucb, uct
from apportion.sampling.search.tree import SearchTree
from apportion.sampling.search.votes import vote

shares = st.floats(0, 1, allow_nan=False)


def tree(parents: list[int | None], **columns: Any) -> SearchTree:
    n = len(parents)
    return SearchTree(
        parents,
        columns.get("values", [0.0] * n),
        columns.get("visits", [0] * n),
        columns.get("kinds", ["reason"] * n),
    )


@pytest.mark.parametrize(
    ("parents", "columns", "message"),
    [
        ([None, 2, 1], {}, "node 1 of a search tree is its own ancestor, expected parents that lead to a root"),
        ([None, 0, 2], {}, "node 2 of a search tree is its own ancestor"),
        ([None, 0, 7], {}, "node 2 of a search tree is an orphan: its parent 7 is not among the 3 nodes"),
        ([None, -1], {}, "orphan"),
        ([None, None], {}, "2 nodes without a parent, expected one root"),
        ([0], {}, "0 nodes without a parent, expected one root"),
        ([None, 0], {"values": [0.0]}, "2 parents and 1 values, expected one a node"),
        ([None, 0], {"values": [0.0, math.nan]}, "expected a finite value"),
        ([None, 0], {"visits": [0, -1]}, "expected a finite value and 0 visits or more"),
    ],
)
def test_what_is_no_tree_is_refused(parents: list[int | None], columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tree(parents, **columns)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_paths_lead_from_the_root_to_the_node(choices: list[int]) -> None:
    grown = SearchTree.rooted()
    for choice in choices:
        grown.add(choice % len(grown), "reason")
    stored = SearchTree(grown.parents, grown.values, grown.visits, grown.kinds)
    for node in range(len(grown)):
        path = [grown.root, *grown.path(node)]
        assert path[-1] == node
        assert len(path) == grown.depth(node) + 1
        assert all(grown.parents[b] == a and b in grown.children(a) for a, b in itertools.pairwise(path))
        assert stored.children(node) == grown.children(node)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=12), st.sampled_from([-1, 1]))
def test_a_rollout_weighs_verdicts_by_their_distance(verdicts: list[int], final: int) -> None:
    n = len(verdicts)
    expected = float(final)
    if n:
        expected = final / n
        for k in range(1, n + 1):
            expected += verdicts[k - 1] * (n - k + 1) / n / n
    assert rollout_value(verdicts, final) == pytest.approx(expected)


@given(st.lists(shares, min_size=1, max_size=20), st.lists(st.integers(0, 1000), min_size=20, max_size=20))
def test_under_mean_the_root_is_the_mean_of_the_leaves_of_a_star(values: list[float], choices: list[int]) -> None:
    star = SearchTree.rooted()
    for value in values:
        mean()(star, star.add(0, "finish"), value)
    assert star.values[0] == pytest.approx(sum(values) / len(values))
    assert star.visits[0] == len(values)


def test_comp_keeps_half_of_what_was_there_at_every_visit() -> None:
    star = SearchTree.rooted()
    expected = 0.0
    for i, value in enumerate([1.0, 0.0, 1.0]):
        comp()(star, star.add(0, "finish"), value)
        expected = (expected + sum([1.0, 0.0, 1.0][: i + 1]) / (i + 1)) / 2
        assert star.values[0] == pytest.approx(expected)


def test_a_decayed_value_reaches_every_ancestor_and_no_sibling() -> None:
    found = tree([None, 0, 0, 1, 3])
    decayed(0.5)(found, 4, 1.0)
    assert found.values == [0.125, 0.25, 0.0, 0.5, 1.0]
    assert found.visits == [1, 1, 0, 1, 0]


def test_uct_prefers_what_is_less_visited_and_turns_round_with_its_sign() -> None:
    equal = [Child(0.5, 3), Child(0.5, 1)]
    assert all_best(uct()(equal, 4)) == [1]
    unequal = [Child(0.9, 2), Child(-0.9, 2), Child(-3.0, 2, completed=True)]
    assert all_best(uct(sign=1)(unequal, 4)) == [0]
    assert all_best(uct(sign=-1)(unequal, 4)) == [1]
    assert uct(c=1.0)([Child(0.2, 0)], 0) == [0.2]  # an unvisited parent explores nothing


def test_ucb_tries_a_wrong_answer_again_as_often_as_it_may_be_mended() -> None:
    wrong = Child(0.2, 1, finish=True, completed=True)
    open_child = Child(0.2, 1)
    scores = ucb(refine_limit=1)([wrong, Child(0.2, 1, finish=True, completed=True, refine_count=1), open_child], 4)
    assert scores == [scores[2], CLOSED, scores[2]]
    assert first_best(ucb()([wrong, wrong], 4)) is None
    assert first_best(ucb()([open_child, Child(0.0, 0)], 4)) == 1


@given(st.lists(shares, min_size=2, max_size=10), st.sampled_from(sorted(LOOK_BACKS)), st.floats(0, 2))
def test_looking_back_leaves_the_first_step_alone(values: list[float], rule: str, lam: float) -> None:
    found = look_back(values, rule, lam)
    assert (found.labels[0], found.penalties[0]) == (values[1], 0.0)
    assert len(found.labels) == len(values) - 1
    for value, label, penalty in zip(values[1:], found.labels, found.penalties, strict=True):
        assert label == pytest.approx(value - penalty)
    assert all(0 <= label <= 1 for label in clipped(found.labels))
    assert set(thresholded(found.labels)) <= {0.0, 1.0}


@given(st.lists(shares, min_size=2, max_size=10))
def test_the_papers_rule_never_gives_a_bonus_and_blames_no_rise(values: list[float]) -> None:
    found = look_back(values, "soft_paper")
    for i, penalty in enumerate(found.penalties, start=1):
        assert penalty >= 0
        if values[i] >= values[i - 1]:
            assert penalty == 0


def test_labels_of_a_path_that_disagrees_with_its_verdicts_are_dropped() -> None:
    assert signed([1.0, -1.0], [1, -1], right=True) == [1, -1]
    for verdicts in ([1, 1], [-1, -1], [1, 0]):
        assert signed([1.0, -1.0], verdicts, right=True) == []
    assert signed([1.0, 0.0], [1, 1], right=True) == []


def test_a_wrong_path_is_cut_where_it_mends_itself_and_a_right_one_is_not() -> None:
    scores, verdicts = [1.0, -1.0, -0.5, 2.0, -1.0], [1, -1, -1, 1, -1]
    assert signed(scores, verdicts, right=False) == [1, -1, -1]
    assert signed(scores, verdicts, right=True) == [1, -1, -1, 1, -1]
    assert signed([1.0, 2.0], [1, 1], right=False) == [1, 1]


def test_best_of_n_and_the_vote_differ() -> None:
    answers, scores = ["A", "B", "A"], [[0.1, 0.4, 0.6], [0.1, 0.7, 0.5], [0.1, 0.35, 0.9]]
    assert vote(answers, scores, "best_of_n", "min").answer == "B"
    assert vote(answers, scores, "vote_sum", "min").answer == "A"
    assert vote(answers, scores, "vote_sum", "mean").table == pytest.approx({"A": 1.125, "B": 0.6})
    assert vote(answers, scores, "best_of_n", "prod").scores == pytest.approx([0.24, 0.35, 0.315])
    assert vote(["A", "B"], [[0.5], [0.5]], "best_of_n", "last").answer == "A"  # the first of equals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rollout_value([2], 1), "verdict of a step is 2, expected 1, 0 or -1"),
        (lambda: rollout_value([1], 0), "outcome of a simulation is 0, expected 1 or -1"),
        (lambda: decayed(0.0), "decay is 0.0, expected more than 0"),
        (lambda: decayed(1.5), "decay is 1.5, expected more than 0"),
        (lambda: mean()(tree([None, 0]), 1, 1.5), "value is 1.5, expected a share"),
        (lambda: uct()([], 1), "no children to choose from"),
        (lambda: ucb()([Child(0.5, 1)], 0), "0 visits, expected at least 1"),
        (lambda: signed([], [], True), "0 scores and 0 verdicts"),
        (lambda: signed([1.0], [3], True), "verdict of a step is 3"),
        (lambda: look_back([0.5]), "1 values, expected the root's and at least one"),
        (lambda: look_back([0.5, 1.2]), "value 1.2, expected shares from 0 to 1"),
        (lambda: look_back([0.5, 0.5], lam=-1.0), "lam is -1.0, expected 0 or more"),
        (lambda: look_back([0.5, 0.5], "harsh"), "did you mean 'hard'"),
        (lambda: vote([], []), "0 answers and scores of 0 samples"),
        (lambda: vote(["A"], [[0.5]]), "1 step scores, expected at least 2 for 'min'"),
        (lambda: vote(["A"], [[]], aggregate="last"), "0 step scores, expected at least 1"),
        (lambda: vote(["A"], [[0.5, 0.5]], mode="best"), "did you mean 'best_of_n'"),
        (lambda: every(0), "step_tokens is 0"),
        (lambda: at_delimiter(str, "", 3), "delimiter is empty"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_verdict_is_right_at_its_full_score_and_decided_away_from_one_half() -> None:
    assert [Checked(score).sign for score in (None, 0.0, 0.5, 0.7, 1.0)] == [0, -1, 0, 1, 1]
    assert [Checked(score).right for score in (None, 0.7, 1.0)] == [False, False, True]


@given(st.lists(st.sampled_from([*b"ab.;"]), max_size=20), st.integers(1, 5), st.data())
def test_the_steps_of_a_prefix_are_those_of_the_whole(ids: list[int], tokens: int, data: st.DataObject) -> None:
    for cut in (every(tokens), at_delimiter(lambda row: bytes(row).decode(), ".;", tokens)):
        ends = cut(ids, 0)
        assert ends == sorted(set(ends))
        assert not ids or ends[-1] == len(ids)
        if ends:
            place = data.draw(st.sampled_from(ends))
            assert [*(end for end in ends if end <= place), *cut(ids, place)] == ends
            assert cut(ids[:place], 0) == [end for end in ends if end <= place]
