"""Macro actions: where they begin under every rule, what ends them, and trees laid over tokens."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from annotations.readers import written
from annotations.test_token_texts import DICE
from apportion.annotations import ANNOTATORS
from apportion.annotations.constituents import pieces, read_tree
from apportion.annotations.macro_actions import Rule, Runs, runs_of
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from reference import macro as naive


def macros(rollouts: Rollouts, rule: str, reader: Any = None) -> list[tuple[int, int]]:
    spans = ANNOTATORS["macro_actions"](rule=rule).apply(rollouts, reader).spans["macro"]
    return list(zip(spans.starts.tolist(), spans.ends.tolist(), strict=True))


def sizes(length: int, rule: str, **given: Any) -> list[int]:
    """Of the macro actions of one response."""
    one = Rollouts.from_lists([range(length)], groups=[0], **given)
    found = macros(one, rule)
    assert [*(a for a, _ in found), length] == [0, *(b for _, b in found)]
    return [b - a for a, b in found]


# Rules


@given(length=st.integers(1, 30), n=st.integers(1, 35))
def test_fixed_sizes_equal_the_naive_loop(length: int, n: int) -> None:
    expected = naive.cut(length, naive.fixed(length, n))
    assert sizes(length, f"fixed(n={n})") == [b - a for a, b in expected]


def test_the_last_token_is_one_of_its_own_and_never_twice() -> None:
    assert sizes(13, "fixed(n=5)") == [5, 5, 2, 1]
    assert sizes(7, "fixed(n=3)") == [3, 3, 1]
    assert sizes(3, "fixed(n=1)") == [1, 1, 1]
    assert sizes(4, "fixed(n=9)") == [3, 1]
    assert sizes(1, "fixed(n=9)") == [1]


def test_sizes_in_order_and_the_rest_is_one() -> None:
    assert sizes(15, "sizes(sizes=[1, 2, 3], repeat=1, seed=None)") == [1, 2, 3, 8, 1]
    assert sizes(15, "sizes(sizes=[1, 2, 3], repeat=2, seed=None)") == [1, 2, 3, 1, 2, 3, 2, 1]
    assert sizes(3, "sizes(sizes=[1, 2, 3], repeat=1, seed=None)") == [1, 1, 1]


def test_sizes_in_random_order() -> None:
    ids = [list(range(i, i + 43)) for i in range(40)]
    many = Rollouts.from_lists(ids, groups=[0] * 40)
    spans = macros(many, "sizes(repeat=2)")
    rows = [[b - a for a, b in spans if a // 43 == row] for row in range(40)]
    # Twice 1, 2, 3, 5 and 10, then one more, of which the last token is taken away.
    assert all(sorted(row) == [1, 1, 1, 2, 2, 3, 3, 5, 5, 10, 10] for row in rows if row[-2:] == [row[-2], 1])
    assert len({tuple(row) for row in rows}) > 30
    assert macros(many, "sizes(repeat=2)") == spans
    assert macros(many, "sizes(repeat=2, seed=1)") != spans
    alone = macros(many.select(torch.tensor([7])), "sizes(repeat=2)")
    assert [b - a for a, b in alone] == rows[7]


@given(dice=DICE)
def test_perplexity_rises(dice: random.Random) -> None:
    ppl = [dice.randint(8, 24) / 8 for _ in range(dice.randint(1, 12))]
    one = Rollouts.from_lists([range(len(ppl))], groups=[0])
    one = one.with_column("log_probs/reference", -torch.tensor(ppl, dtype=torch.float64).log())
    assert macros(one, "ppl") == naive.cut(len(ppl), naive.rising(ppl))
    renamed = one.with_column("log_probs/other", one.column("log_probs/reference"))
    assert macros(renamed, "ppl(column='log_probs/other')") == macros(one, "ppl")


def test_perplexity_of_one_response_does_not_see_the_next() -> None:
    two = Rollouts.from_lists([[0] * 3, [0] * 3], groups=[0, 0])
    falling = torch.tensor([-3.0, -2.0, -1.0, -3.0, -2.0, -1.0])
    two = two.with_column("log_probs/reference", falling)
    assert macros(two, "ppl") == [(0, 2), (2, 3), (3, 5), (5, 6)]


def test_perplexity_without_log_probs() -> None:
    with pytest.raises(MissingColumn, match="macro_actions needs the column 'log_probs/reference'"):
        macros(Rollouts.from_lists([[1, 2]], groups=[0]), "ppl")


# Runs


def test_what_the_policy_did_not_write_ends_a_macro_action() -> None:
    one = Rollouts.from_lists([range(9)], groups=[0], trained=[[1, 1, 1, 0, 0, 1, 1, 1, 0]])
    assert macros(one, "fixed(n=2)") == [(0, 2), (2, 3), (5, 7), (7, 8)]
    two = Rollouts.from_lists([[1, 2], [], [3]], groups=[0, 0, 0], episodes=[0, 0, 0])
    assert macros(two, "fixed(n=4)") == [(0, 1), (1, 2), (2, 3)]
    turns = Rollouts.from_lists([range(6)], groups=[0]).with_spans("turn", torch.tensor([0, 3]), torch.tensor([3, 6]))
    assert macros(turns, "fixed(n=4)") == [(0, 2), (2, 3), (3, 5), (5, 6)]
    nobody = Rollouts.from_lists([[1], []], groups=[0, 0], trained=[[0], []])
    assert macros(nobody, "fixed(n=4)") == []


@given(dice=DICE)
def test_runs_are_stretches_of_trained_tokens(dice: random.Random) -> None:
    trained = [[dice.randint(0, 1) for _ in range(dice.randint(0, 6))] for _ in range(dice.randint(1, 4))]
    rollouts = Rollouts.from_lists([range(len(row)) for row in trained], groups=[0] * len(trained), trained=trained)
    runs = runs_of(rollouts)
    bounds = runs.offsets.tolist()
    found = [runs.tokens[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    offsets = rollouts.token_offsets.tolist()
    expected = [
        list(range(at + a, at + b))
        for at, row in zip(offsets, trained, strict=False)
        for a, b in naive.runs([bool(t) for t in row])
    ]
    assert found == expected


# Trees

SENTENCE = "(S (NP (PRP We)) (VP (MD could) (VP (VB try) (NP (DT the) (JJ other) (NN way)))) (. .))"


def test_trees_are_read_from_brackets() -> None:
    tree = read_tree(SENTENCE)
    assert tree.words == ("We", "could", "try", "the", "other", "way", ".")
    assert [child.words for child in tree.children] == [("We",), ("could", "try", "the", "other", "way"), (".",)]
    assert read_tree("( (S (NP (NN a)) (VP (-LRB- -LRB-) (NN b))))").words == ("a", "(", "b")
    assert read_tree("(S " * 3000 + "(NN a) (NN b)" + ")" * 3000).words == ("a", "b")


@pytest.mark.parametrize("text", ["", "We", "(S", "(S (NN a)))", "()", "(S)", "(NN a) (NN b)", "(S ())", ")("])
def test_what_is_no_tree(text: str) -> None:
    with pytest.raises(InputError, match=r"a parser returned .*, expected one tree in brackets"):
        read_tree(text)


@pytest.mark.parametrize(
    ("cutoff", "expected"),
    [
        (2, [7]),  # every word alone, and each joins the one before it
        (3, [7]),
        (4, [3, 4]),  # We could try | the other way.
        (5, [2, 5]),
        (6, [1, 6]),
        (7, [1, 6]),
        (8, [7]),
    ],
)
def test_constituents_below_the_cutoff(cutoff: int, expected: list[int]) -> None:
    assert pieces(read_tree(SENTENCE), cutoff) == expected


@given(dice=DICE)
def test_pieces_are_all_the_words_and_as_small_as_the_cutoff_and_lone_words_allow(dice: random.Random) -> None:
    def tree(depth: int) -> str:
        if depth == 0 or dice.random() < 0.3:
            return f"(NN w{dice.randint(0, 9)})"
        return f"(X {' '.join(tree(depth - 1) for _ in range(dice.randint(1, 3)))})"

    drawn, cutoff = read_tree(tree(5)), dice.randint(2, 6)
    assert sum(pieces(drawn, cutoff)) == len(drawn.words)
    assert all(size >= 1 for size in pieces(drawn, cutoff))
    assert pieces(drawn, len(drawn.words) + 2) == [len(drawn.words)]


# Trees over tokens

ASKED: list[list[str]] = []


def parser(texts: Sequence[str]) -> list[list[str]]:
    """Somebody else's parser: two sentences it knows, and a flat tree of whatever else."""
    ASKED.append(list(texts))
    known = {"We could try the other way.": SENTENCE, "Yes.": "(S (UH Yes) (. .))"}
    return [
        [known.get(part, f"(X {' '.join(f'(W {w})' for w in part.split())})") for part in text.split("\n")]
        for text in texts
    ]


def of_no_text(texts: Sequence[str]) -> list[list[str]]:
    return []


PARSING = "parsing(parser='annotations.test_macro_actions:parser', cutoff=4)"


def cut(texts: Sequence[str | bytes], rule: str = PARSING, **given: Any) -> list[tuple[int, int]]:
    rollouts, reader = written(texts, **given)
    return macros(rollouts, rule, reader)


def test_constituents_become_spans_of_tokens() -> None:
    # We could try | the other way | . (the last token is one of its own)
    assert cut(["We", " could", " try", " the", " other", " way", "."]) == [(0, 3), (3, 6), (6, 7)]
    assert cut(["We co", "uld", " try", " ", "the", " other w", "ay", "."]) == [(0, 4), (4, 7), (7, 8)]
    assert cut(["We could try", " the", " other way."]) == [(0, 1), (1, 2), (2, 3)]


def test_a_piece_that_begins_inside_a_token_leaves_the_run_token_by_token() -> None:
    assert cut(["We could", " try the", " other", " way", "."]) == [(t, t + 1) for t in range(5)]


def test_words_that_are_not_the_text_s_leave_the_run_token_by_token() -> None:
    rollouts, reader = written(["a", " b", " c"])
    assert macros(rollouts, "parsing(parser='annotations.test_macro_actions:other_words')", reader) == [
        (0, 1), (1, 2), (2, 3)
    ]  # fmt: skip


def other_words(texts: Sequence[str]) -> list[list[str]]:
    return [["(X (W a) (W b))"] for _ in texts]


def test_sentences_are_walked_one_by_one() -> None:
    # Yes. | We could try | the other way. | .
    texts = ["Yes", ".", "\n", "We", " could", " try", " the", " other", " way", ".", ""]
    assert cut(texts) == [(0, 3), (3, 6), (6, 10), (10, 11)]


def test_only_what_the_policy_wrote_is_parsed_and_all_at_once() -> None:
    ASKED.clear()
    rollouts, reader = written(["Yes", ".", "tool", "Yes", "."], ["Yes", "."], trained=[[1, 1, 0, 1, 1], [1, 1]])
    assert macros(rollouts, PARSING, reader) == [(0, 1), (1, 2), (3, 4), (4, 5), (5, 6), (6, 7)]
    assert ASKED == [["Yes.", "Yes.", "Yes."]]


def test_characters_in_several_tokens_begin_a_piece_where_they_begin() -> None:
    word = "é".encode()
    texts = ["a", " b", " c", "\n", word[:1], word[1:], " d", " e"]
    assert cut(texts) == [(0, 4), (4, 7), (7, 8)]


def test_hostile_text_is_laid_out_without_error() -> None:
    hostile = ["\N{REPLACEMENT CHARACTER}", b"\xf0", " ", "(", "-LRB-", "``", b"\x80", "\n\n", ")"]
    rollouts, reader = written(hostile, [" ", "\n"], [""])
    flat = "parsing(parser='annotations.test_macro_actions:other_words')"
    assert [b - a for a, b in macros(rollouts, flat, reader)] == [1] * 12


# What is given


def whole(every: int = 2) -> Rule:
    """Somebody else's rule."""

    def begins(runs: Runs, policy: Any) -> Tensor:
        return runs.tokens % every == 0

    return Rule(begins)


def test_how_they_were_made_is_recorded() -> None:
    annotator = ANNOTATORS["macro_actions"](rule="fixed(n=2)")
    marked = annotator.apply(Rollouts.from_lists([range(4)], groups=[0], trained=[[0, 1, 1, 1]]), None)
    column = marked.columns["macro:size"]
    assert annotator.makes == ("macro:size",)
    assert column.tensor.tolist() == [2, 1]
    assert (column.maker, column.parameters) == ("macro_actions", {"rule": "fixed(n=2)"})


def test_rules_of_others() -> None:
    assert sizes(8, "annotations.test_macro_actions:whole(every=3)") == [3, 3, 1, 1]
    assert not ANNOTATORS["macro_actions"]().reads_policy
    assert ANNOTATORS["macro_actions"](rule=PARSING).reads_policy


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("fixd", "unknown rule of macro actions 'fixd': did you mean 'fixed'"),
        ("fixed(n=0)", "n is 0, expected a whole number of 1 or more tokens"),
        ("sizes(sizes=[2, 0])", r"sizes is \[2, 0\], expected at least one, each a whole number of 1 token or more"),
        ("sizes(sizes=[])", r"sizes is \[\], expected at least one"),
        ("sizes(repeat=0)", "repeat is 0, expected a whole number of 1 or more"),
        ("fixed(n=2.5)", "n is 2.5, expected a whole number"),
        ("sizes(sizes=[2.9])", "each a whole number"),
        ("parsing", "needs parser"),
        ("parsing(parser='nltk')", "unknown parser 'nltk'"),
        (
            "parsing(parser='annotations.test_macro_actions:PARSING')",
            "is a str, expected a function of texts",
        ),
        ("parsing(parser='annotations.test_macro_actions:parser', cutoff=1)", "cutoff is 1, expected 2 or more words"),
        ("annotations.readers:Reader(pieces=[])", "made a Reader, expected a Rule of macro actions"),
    ],
)
def test_rules_that_cannot_be_used(rule: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ANNOTATORS["macro_actions"](rule=rule)


def test_a_parser_that_answers_for_no_text() -> None:
    with pytest.raises(InputError, match="a parser returned trees of 0 texts, expected 1: one list a text"):
        cut(["a"], "parsing(parser='annotations.test_macro_actions:of_no_text')")
