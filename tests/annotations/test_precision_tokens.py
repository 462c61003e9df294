"""Weights of tokens that a pattern touches, in tokens that split and join characters as they like."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import torch
from hypothesis import given

from annotations.readers import Reader, written
from annotations.test_token_texts import DICE, HOSTILE, cut_at_random
from apportion.annotations import ANNOTATORS
from apportion.annotations.precision_tokens import NUMBER, touching
from apportion.annotations.token_texts import token_texts
from apportion.errors import InputError


def heavy(*pieces: str | bytes, end: bool = False, **settings: Any) -> list[int]:
    """The tokens of one response that weigh three times as much."""
    rollouts, reader = written(pieces, end=end)
    marked = ANNOTATORS["precision_tokens"](omega=3.0, **settings).apply(rollouts, reader)
    column = marked.columns["token:precision_weight"]
    assert column.present is None
    assert set(column.tensor.tolist()) <= {1.0, 3.0}
    return (column.tensor == 3.0).nonzero().squeeze(1).tolist()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["box(", "1", "2", ".", "5", ", ", "3", ")"], [1, 2, 3, 4, 6]),
        (["box(12.5, ", "3)"], [0, 1]),
        (["-", "4", "e-", "3", "x"], [1, 2, 3]),
        (["v", "2", "."], [1]),
        (["no numbers", "!"], []),
        ([], []),
        (["", "7", ""], [1]),
        (["٣", "7"], [1]),
    ],
)
def test_numbers_weigh_more(pieces: list[str], expected: list[int]) -> None:
    assert heavy(*pieces) == expected
    assert heavy(*pieces, end=True) == expected  # a token without text weighs what it did


@given(dice=DICE)
def test_a_token_weighs_more_if_any_of_its_characters_is_in_a_match(dice: random.Random) -> None:
    pieces = cut_at_random("".join(dice.choices([*HOSTILE, "4", "23", "."], k=dice.randint(0, 12))), dice)
    reader = Reader(pieces)
    tokens = token_texts(range(len(pieces)), reader.decode)
    matches = list(re.finditer(NUMBER, tokens.text))
    expected = [
        t
        for t in range(len(pieces))
        if any(m.start() <= c < m.end() for m in matches for c in range(tokens.starts[t], tokens.ends[t]))
    ]
    assert touching(tokens, [m.span() for m in matches]) == expected


def test_other_patterns_and_a_group_that_narrows_a_match_down() -> None:
    words = ["ext", "rude(", "5", ") # ", "7"]
    assert heavy(*words, pattern="extrude") == [0, 1]
    assert heavy(*words, pattern=r"\((?P<precise>[0-9]+)\)") == [2]
    assert heavy("5", "5", pattern="(?P<precise>x)?5") == []  # the group took no part


def test_every_byte_of_a_character_that_is_looked_for_is_marked() -> None:
    assert heavy(*(bytes([b]) for b in "a⌀5".encode()), pattern="⌀") == [1, 2, 3]


def test_decisions_are_looked_at_one_by_one() -> None:
    """A number does not reach from one turn into the next."""
    rollouts, reader = written(["1", ".", "5"], ["2"])
    turns = rollouts.with_spans("turn", torch.tensor([0, 2, 3]), torch.tensor([2, 3, 4]))
    marked = ANNOTATORS["precision_tokens"]().apply(turns, reader)
    assert marked.column("precision_weight").tolist() == [2.0, 1.0, 2.0, 2.0]


def test_a_long_response_takes_no_time() -> None:
    pieces = [str(i % 10) if i % 2 else "," for i in range(20_000)]
    assert len(heavy(*pieces[:20])) == 10
    tokens = token_texts(range(len(pieces)), Reader([p.encode() for p in pieces]).decode)
    assert len(touching(tokens, [m.span() for m in re.finditer(NUMBER, tokens.text)])) == 10_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"omega": 0.9}, "omega is 0.9, expected 1 or more"),
        ({"omega": float("inf")}, "omega is inf, expected 1 or more"),
        ({"omega": float("nan")}, "omega is nan, expected 1 or more"),
        ({"pattern": "("}, r"cannot read the pattern '\('.*expected a regular expression"),
        ({"pattern": "[0-9]*"}, r"the pattern '\[0-9\]\*' matches the empty text"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ANNOTATORS["precision_tokens"](**settings)
