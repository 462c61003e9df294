"""Steps and thoughts: exact token spans, whatever tokens the delimiter is in."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from hypothesis import given

from annotations.readers import Reader, written
from annotations.test_token_texts import DICE, HOSTILE, cut_at_random
from apportion.annotations import ANNOTATORS
from apportion.annotations.segmentation import segment
from apportion.errors import InputError
from apportion.models.digits import digit_llama
from apportion.rollouts import Rollouts


def spans(rollouts: Rollouts, kind: str) -> list[tuple[int, int]]:
    table = rollouts.spans[kind]
    return list(zip(table.starts.tolist(), table.ends.tolist(), strict=True))


def stepped(*texts: Any, delimiter: str = "\n\n", **settings: Any) -> Rollouts:
    rollouts, reader = written(*texts, **settings)
    return ANNOTATORS["steps"](delimiter=delimiter).apply(rollouts, reader)


# Steps of one text


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["One", "\n\n", "Two"], [(0, 2), (2, 3)]),
        (["One", "\n", "\n", "Two"], [(0, 3), (3, 4)]),
        (["One.\n\n", "Two", ".\n\n"], [(0, 1), (1, 3)]),
        (["One", "\n\nTwo", " three"], [(0, 2), (2, 3)]),  # the token begins with the delimiter
        (["On", "e\n\nTw", "o"], [(0, 2), (2, 3)]),
        (["a\n\nb\n\nc"], [(0, 1)]),
        (["a\n\nb\n\nc", "d"], [(0, 1), (1, 2)]),
        (["One", "\n\n\n", "Two"], [(0, 2), (2, 3)]),
        (["One", "\n\n", "\n", "Two"], [(0, 2), (2, 4)]),  # the third line break is not a delimiter
        (["One", "\n\n\n\n", "Two"], [(0, 2), (2, 3)]),
        (["One", "\n\n", "\n\n", "Two"], [(0, 3), (3, 4)]),
        (["One", "\n\n", " \n\n", "Two"], [(0, 3), (3, 4)]),
        (["One", "\n\n", "    ", "Two"], [(0, 2), (2, 4)]),  # indented
        (["\n\n", "One", "\n\n", "Two"], [(0, 3), (3, 4)]),
        (["One", "\n\n"], [(0, 2)]),
        (["One", "\n\n", " \n"], [(0, 3)]),
        (["One", "\r\n", "\r\n", "Two"], [(0, 4)]),
        (["\n\n", "\n\n"], [(0, 2)]),
        (["One", "\n\n", ""], [(0, 3)]),
        (["", "One", "\n\n", "", "Two", ""], [(0, 3), (3, 6)]),
        ([""], [(0, 1)]),
        ([], []),
    ],
)
def test_steps_of_one_text(texts: list[str], expected: list[tuple[int, int]]) -> None:
    assert segment(texts) == expected


def test_other_delimiters() -> None:
    assert segment(["a", ";", "b", ";;", "c"], ";") == [(0, 2), (2, 4), (4, 5)]
    assert segment(["a", "</", "step", ">", "b"], "</step>") == [(0, 4), (4, 5)]
    assert segment(["a.*", "b.", "*c"], ".*") == [(0, 1), (1, 3)]  # no pattern


@given(dice=DICE)
def test_steps_tile_the_tokens_and_hold_the_text_between_delimiters(dice: random.Random) -> None:
    said = ["".join(dice.choices("aé中😀 \n", k=dice.randint(1, 4))).strip() or "x" for _ in range(dice.randint(1, 5))]
    said = [text.replace("\n\n", "\n") for text in said]
    text = "".join(itertools.chain.from_iterable((part, "\n" * dice.choice([2, 4])) for part in said))
    pieces = [bytes([b]) for b in text.encode()]
    reader = Reader(sorted(set(pieces)))
    rollouts = Rollouts.from_lists([[reader.pieces.index(p) for p in pieces]], groups=[0])
    result = ANNOTATORS["steps"]().apply(rollouts, reader)
    found = spans(result, "step")
    assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])]
    assert found[-1][1] == len(pieces)
    texts = [part or "" for part in result.columns["step:text"].text]
    assert [part.rstrip("\n") for part in texts] == said
    assert "".join(texts) == text


@given(dice=DICE)
def test_hostile_text_cut_anywhere_is_tiled(dice: random.Random) -> None:
    text = "".join(dice.choices([*HOSTILE, "\n", "\n\n"], k=dice.randint(1, 12)))
    pieces = cut_at_random(text, dice)
    reader = Reader(pieces)
    rollouts = Rollouts.from_lists([[*range(len(pieces)), reader.end]], groups=[0])
    result = ANNOTATORS["steps"]().apply(rollouts, reader)
    found = spans(result, "step")
    assert [*(a for a, _ in found), found[-1][1]] == [0, *(b for _, b in found)]
    assert found[-1][1] == len(pieces) + 1
    assert "".join(part or "" for part in result.columns["step:text"].text) == text


# Steps of rollouts


def test_every_response_has_its_own_steps() -> None:
    result = stepped(["One", "\n\n", "Two"], [], ["Three", "\n\n"], end=True)
    assert spans(result, "step") == [(0, 2), (2, 4), (4, 5), (5, 8)]
    assert result.columns["step:text"].text == ("One\n\n", "Two", "", "Three\n\n")
    assert result.columns["step:text"].maker == "segmentation"
    assert stepped([], []).rows("step") == 0


def test_a_character_split_by_the_border_of_a_step() -> None:
    first, rest = "中".encode()[:1], "中".encode()[1:]
    assert spans(stepped(["a\n\n", first, rest, "b"]), "step") == [(0, 1), (1, 4)]
    assert spans(stepped(["a", b"\n\n" + first, rest, "b"]), "step") == [(0, 2), (2, 4)]
    delimited = stepped(["a", first, rest, "b"], delimiter="中")
    assert spans(delimited, "step") == [(0, 3), (3, 4)]


def test_turns_are_cut_apart_and_what_lies_between_them_is_in_no_step() -> None:
    rollouts, reader = written(["a", "b", "\n\n", "tool", "c", "\n\n", "d"], trained=[[1, 1, 1, 0, 1, 1, 1]])
    turns = rollouts.with_spans("turn", torch.tensor([0, 4]), torch.tensor([2, 7]))
    assert spans(ANNOTATORS["steps"]().apply(turns, reader), "step") == [(0, 2), (4, 6), (6, 7)]
    assert spans(ANNOTATORS["steps"]().apply(rollouts, reader), "step") == [(0, 3), (3, 6), (6, 7)]


def test_steps_of_the_quickstart() -> None:
    digits = digit_llama()
    rollouts = Rollouts.from_lists([[4, 8, 2, 12], [4, 2, 2]], groups=[0, 0])
    result = ANNOTATORS["steps"](delimiter="1").apply(rollouts, digits)
    assert result.columns["step:text"].text == ("371", ".", "311")


# Thoughts


def thought(*texts: Any, **settings: Any) -> list[str]:
    rollouts, reader = written(*texts)
    result = ANNOTATORS["thoughts"](**settings).apply(rollouts, reader)
    return [text or "" for text in result.columns["thought:text"].text]


def test_a_thought_begins_with_a_marker() -> None:
    assert thought(["So", " 2.", " Wait", ", no", ".", " But wait", " again"]) == [
        "So 2.", " Wait, no.", " But wait again"
    ]  # fmt: skip
    assert thought(["Wait", ", no"]) == ["Wait, no"]
    assert thought([" Wait", ", no"]) == [" Wait, no"]
    assert thought(["so 2"]) == ["so 2"]
    assert thought(["a", ".", "\n\n", "Hmm", "."]) == ["a.\n\n", "Hmm."]
    assert thought(["a", ".\n\n", "  ", "Hmm"]) == ["a.\n\n", "  Hmm"]


def test_markers_are_whole_words_with_their_case() -> None:
    assert thought(["a", " Waiter", " wait", " AWait", " Wait_", " Wait"]) == ["a Waiter wait AWait Wait_", " Wait"]
    assert thought(["a", " b", " (c", ")"], markers=["b", "(c)"]) == ["a", " b", " (c)"]


def test_the_longest_marker_begins_the_thought() -> None:
    assert thought(["x", " Wait", " for", " it", " Wait"], markers=["Wait", "Wait for"]) == [
        "x",
        " Wait for it",
        " Wait",
    ]
    assert thought(["x", " But", " wait", " y"], markers=["But", "wait", "But wait"]) == ["x", " But wait y"]
    assert thought(["x", " But", " wait", " y"], markers=["But", "wait"]) == ["x", " But", " wait y"]


def test_a_token_that_straddles_a_border_belongs_to_the_thought_it_begins_in() -> None:
    assert thought(["a", ". Wa", "it", " b"]) == ["a. Wa", "it b"]


def test_long_white_space_takes_no_long_time() -> None:
    assert thought(["a" + " " * 200_000, "Wait"]) == ["a" + " " * 200_000, "Wait"]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("steps", {"delimiter": ""}, "delimiter is '', expected text of at least one character"),
        ("steps", {"delimiter": 3}, "delimiter is 3, expected text"),
        ("thoughts", {"markers": "Wait"}, "markers is 'Wait', expected a list of texts"),
        ("thoughts", {"markers": ()}, r"markers is \(\), expected a list of texts: give at least one"),
        ("thoughts", {"markers": ["a", ""]}, "a marker is '', expected text"),
    ],
)
def test_settings_that_cut_nothing(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ANNOTATORS[name](**settings)


def test_no_delimiter_in_the_pure_function_either() -> None:
    with pytest.raises(InputError, match="delimiter is '', expected"):
        segment(["a"], "")


def test_steps_are_cut_anew_unless_columns_belong_to_them() -> None:
    rollouts, reader = written(["a", ";", "b", ",", "c"])
    bare = rollouts.with_spans("step", torch.tensor([1]), torch.tensor([2]))
    marked = ANNOTATORS["steps"](delimiter=";").apply(bare, reader)
    assert spans(marked, "step") == [(0, 2), (2, 5)]
    credited = marked.with_column("step:credit/mine", torch.ones(2))
    anew = ANNOTATORS["steps"](delimiter=",").apply(credited, reader)
    assert spans(anew, "step") == [(0, 4), (4, 5)]
    assert set(anew.columns) == {"step:text"}
    scored = credited.with_reward("prm", torch.ones(2), level="step")
    again = ANNOTATORS["steps"](delimiter=";").apply(scored, reader)
    assert again.columns["step:reward/prm"].tensor.tolist() == [1.0, 1.0]
    assert again.columns.keys() == scored.columns.keys()
    with pytest.raises(InputError, match=r"have 2 spans of kind 'step' with the column 'step:.*/prm', and an"):
        ANNOTATORS["steps"](delimiter=",").apply(scored, reader)
