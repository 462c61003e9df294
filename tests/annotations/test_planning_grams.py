"""Planning phrases: found as token ids and as text, exactly where they are."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

from annotations.readers import Reader, written
from annotations.test_token_texts import DICE, HOSTILE, cut_at_random
from apportion.annotations import ANNOTATORS
from apportion.annotations.occurrences import occurrences
from apportion.annotations.planning_grams import mark
from apportion.errors import InputError
from apportion.models.digits import digit_llama
from apportion.rollouts import Rollouts, ragged
from reference import planning as naive

# Sequences of integers


@given(dice=DICE)
def test_occurrences_are_those_found_by_trying_every_place(dice: random.Random) -> None:
    rows = [[dice.randint(0, 2) for _ in range(dice.randint(0, 8))] for _ in range(dice.randint(0, 4))]
    grams = [[dice.randint(0, 3) for _ in range(dice.randint(1, 4))] for _ in range(dice.randint(0, 5))]
    values, offsets = ragged.flatten(rows, torch.int64)
    found = occurrences(values, offsets, grams)
    expected = [
        (int(offsets[r]) + t, int(offsets[r]) + t + len(gram), g)
        for r, row in enumerate(rows)
        for g, gram in enumerate(grams)
        if gram not in grams[:g]
        for t in naive.places(row, gram)
    ]
    assert sorted(zip(found.starts.tolist(), found.ends.tolist(), found.sequence.tolist(), strict=True)) == sorted(
        expected
    )
    inside = {t for start, end, _ in expected for t in range(start, end)}
    assert found.mask(len(values)).tolist() == [t in inside for t in range(len(values))]


def test_of_equal_sequences_the_first_is_found() -> None:
    assert occurrences(torch.tensor([1, 2]), torch.tensor([0, 2]), [[2], [1], [2], [1]]).sequence.tolist() == [1, 0]


def test_any_integers_may_be_looked_for() -> None:
    found = occurrences(torch.tensor([2**62, -5, 2**62]), torch.tensor([0, 3]), [[-5, 2**62], [2**62]])
    assert (found.starts.tolist(), found.sequence.tolist()) == ([0, 2, 1], [1, 1, 0])


def test_a_million_tokens_are_looked_through_in_seconds() -> None:
    dice = random.Random(0)
    ids = torch.randint(0, 1000, (1_000_000,), generator=torch.Generator().manual_seed(0))
    grams = [[dice.randrange(1000) for _ in range(dice.randint(3, 8))] for _ in range(5000)]
    began = time.monotonic()
    occurrences(ids, torch.arange(0, 1_000_001, 1000), grams)
    assert time.monotonic() - began < 10


# Grams of token ids


@given(dice=DICE)
def test_tokens_and_counts_are_those_of_the_naive_loop(dice: random.Random) -> None:
    ids = [[dice.randint(0, 2) for _ in range(dice.randint(0, 8))] for _ in range(dice.randint(1, 4))]
    grams = [list(g) for g in {tuple(dice.choices(range(4), k=dice.randint(1, 3))) for _ in range(dice.randint(0, 4))}]
    found = mark(Rollouts.from_lists(ids, groups=[0] * len(ids)), grams)
    assert found.tokens.tolist() == [plan for row in ids for plan in naive.planning(row, grams)]
    assert found.counts.tolist() == naive.counts(ids, grams)


def test_grams_do_not_reach_into_another_turn() -> None:
    whole = Rollouts.from_lists([[1, 2, 9, 3]], groups=[0], trained=[[1, 1, 0, 1]])
    turns = whole.with_spans("turn", torch.tensor([0, 3]), torch.tensor([2, 4]))
    assert mark(turns, [[1, 2]]).tokens.tolist() == [True, True, False, False]
    assert not mark(turns, [[2, 9, 3], [9]]).tokens.any()
    assert mark(whole, [[2, 9, 3]]).tokens.tolist() == [False, True, True, True]
    split = Rollouts.from_lists([[1, 2], [3]], groups=[0, 0], episodes=[0, 0])
    assert not mark(split, [[2, 3]]).tokens.any()


# Grams of text


def marked(texts: list[Any], *grams: str, **settings: Any) -> str:
    """The pieces of one response, those that are marked in brackets."""
    rollouts, reader = written(texts)
    annotated = ANNOTATORS["planning_grams"](grams=grams, **settings).apply(rollouts, reader)
    column = annotated.columns["token:planning/grams"]
    assert column.maker == "planning_grams"
    return "".join(f"[{piece}]" if plan else piece for piece, plan in zip(texts, column.tensor.tolist(), strict=True))


def test_every_token_with_a_character_of_the_match_is_marked() -> None:
    assert marked(["So", " let", "'s", " t", "ry", " it"], "let's try") == "So[ let]['s][ t][ry] it"
    assert marked(["So l", "et's try it"], "let's try") == "[So l][et's try it]"
    assert marked(["(", "let's try", ")"], "let's try") == "([let's try])"
    assert marked(["let's", " ", "try"], "let's try") == "[let's][ ][try]"
    assert marked([" ", "let's try", " "], "let's try") == " [let's try] "


def test_case_and_white_space_do_not_count_but_marks_do() -> None:
    assert marked(["LET'S", "\n\n ", "Try"], "let's  try") == "[LET'S][\n\n ][Try]"
    assert marked(["let's", ", ", "try"], "let's try") == "let's, try"
    assert marked(["Straße", " ist"], "STRASSE") == "[Straße] ist"


def test_words_are_whole_unless_asked_otherwise() -> None:
    assert marked(["outlet's tryst"], "let's try") == "outlet's tryst"
    assert marked(["37", "1", "4", "."], "71") == "3714."
    assert marked(["37", "1", "4", "."], "71", whole_words=False) == "[37][1]4."
    assert marked(["a", " b"], "ab", whole_words=False) == "[a][ b]"


def test_overlapping_matches_mark_their_union() -> None:
    assert marked(["a", " b", " c", " d"], "a b c", "b c d") == "[a][ b][ c][ d]"
    rollouts, reader = written(["a", " a", " a"])
    assert mark(rollouts, ["a a", "b"], reader).counts.tolist() == [2, 0]


def test_a_character_in_several_tokens() -> None:
    snow = "☃".encode()
    rollouts, reader = written(["a ", snow[:1], snow[1:2], snow[2:], " b"])
    assert mark(rollouts, ["☃"], reader).tokens.tolist() == [False, True, True, True, False]


def test_tokens_without_text_are_in_no_match() -> None:
    rollouts, reader = written(["a b"], end=True)
    assert mark(rollouts, ["a b"], reader).tokens.tolist() == [True, False]


@given(dice=DICE)
def test_hostile_text_is_matched_as_its_characters_are(dice: random.Random) -> None:
    text = "".join(dice.choices([*HOSTILE, "b", "ab"], k=dice.randint(0, 10)))
    gram = dice.choice(["a", "é", "😀", "ba", "中", "\u0301"])
    pieces = cut_at_random(text, dice)
    reader = Reader(pieces)
    rollouts = Rollouts.from_lists([range(len(pieces))], groups=[0])
    found = mark(rollouts, [gram], reader, whole_words=False)
    bare = "".join(c for c in text if not c.isspace())
    assert int(found.counts[0]) == sum(bare.startswith(gram, at) for at in range(len(bare)))
    assert bool(found.tokens.any()) == (gram in bare)


def test_text_and_ids_together_in_several_responses() -> None:
    rollouts, reader = written(["So", " let", "'s"], [], ["let", "'s"])
    ids = rollouts.ids.tolist()
    found = mark(rollouts, [[ids[0]], "let's", "so let"], reader)
    assert found.tokens.tolist() == [True, True, True, True, True]
    assert found.counts.tolist() == [1, 2, 1]


def test_the_quickstart_s_characters() -> None:
    digits = digit_llama()
    one = Rollouts.from_lists([[4, 8, 2, 5, 12]], groups=[0])
    for grams in (["71"], [[8, 2]]):
        annotated = ANNOTATORS["planning_grams"](grams=grams, whole_words=False).apply(one, digits)
        assert annotated.column("planning/grams").tolist() == [False, True, True, False, False]


# What is given


def test_grams_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "grams.json"
    path.write_text(json.dumps({"grams": ["let's try", [3, 4]], "clusters": []}))
    rollouts = Rollouts.from_lists([[3, 4, 5]], groups=[0])
    both = ANNOTATORS["planning_grams"](file=str(path), grams=[[5]])
    assert both.makes == ("planning/grams",)
    assert both.reads_policy
    _, reader = written(["a", "b", "c", "d", "e", "f"])
    assert both.apply(rollouts, reader).column("planning/grams").tolist() == [True, True, True]
    assert not ANNOTATORS["planning_grams"](grams=[[5]]).reads_policy


@pytest.mark.parametrize("content", ["", "[]", '{"grams": "a"}', '{"gram": []}', "\x00"])
def test_files_that_hold_no_grams(content: str, tmp_path: Path) -> None:
    path = tmp_path / "grams.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"is no file of grams, expected a JSON object with a list 'grams'"):
        ANNOTATORS["planning_grams"](file=str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the grams in .*nowhere.json \(No such file"):
        ANNOTATORS["planning_grams"](file=str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    ("grams", "said"),
    [
        ([""], "a gram is '', expected at least one word or token"),
        ([" \n"], r"a gram is ' \\n', expected at least one word or token"),
        ([[]], r"a gram is \[\], expected at least one word or token"),
        ([[1, "a"]], r"a gram is \[1, 'a'\], expected text or a list of token ids"),
        ([[True]], r"a gram is \[True\], expected text or a list"),
        ([[-1]], r"a gram is \[-1\], expected text or a list"),
        ([3], "a gram is 3, expected text or a list"),
        ("let's try", 'grams is "let\'s try", expected a list of texts'),
    ],
)
def test_what_is_no_gram(grams: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ANNOTATORS["planning_grams"](grams=grams)


def test_no_grams_are_warned_of_and_mark_nothing() -> None:
    rollouts = Rollouts.from_lists([[1, 2]], groups=[0])
    with pytest.warns(UserWarning, match="given no grams, so it marks no token"):
        annotated = ANNOTATORS["planning_grams"]().apply(rollouts, None)
    assert annotated.column("planning/grams").tolist() == [False, False]


def test_text_needs_somebody_who_reads() -> None:
    with pytest.raises(InputError, match="grams of text need a policy that reads tokens"):
        mark(Rollouts.from_lists([[1]], groups=[0]), ["a"])
