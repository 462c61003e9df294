"""Where tokens lie in their text: characters in several tokens, several characters in one, decoders with habits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from annotations.readers import BYTES, Reader
from apportion.annotations.token_texts import decisions, token_texts
from apportion.models.digits import digit_llama
from apportion.models.huggingface import load
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from own_model import save_own_model

DICE = st.integers(0, 2**32).map(random.Random)
HOSTILE = [
    "a",
    "é",
    "中",
    "😀",
    "👩‍👧",
    "\N{REPLACEMENT CHARACTER}",
    "\u0301",
    "\x00",
    "\r\n",
    " ",
    "\N{NO-BREAK SPACE}",
]


def by_prefixes(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[list[int], list[int]]:
    """Starts and ends by decoding every prefix, character by character."""
    whole, grown, ends = decode(ids), [0], []
    for t in range(len(ids)):
        prefix = decode(ids[: t + 1])
        same = 0
        while same < min(len(prefix), len(whole)) and prefix[same] == whole[same]:
            same += 1
        grown.append(max(same, grown[-1]))
        ends.append(min(grown[-1] + (len(prefix) > grown[-1]), len(whole)))
    return grown[: len(ids)], ends


def cut_at_random(text: str, dice: random.Random) -> list[bytes]:
    """The bytes of a text in pieces of one to five."""
    data, pieces = text.encode(), []
    while data:
        size = dice.randint(1, 5)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@given(dice=DICE)
def test_any_text_cut_anywhere(dice: random.Random) -> None:
    text = "".join(dice.choices(HOSTILE, k=dice.randint(0, 12)))
    pieces = cut_at_random(text, dice)
    reader = Reader(pieces)
    ids = [reader.end if dice.random() < 0.1 else i for i in range(len(pieces))]
    found = token_texts(ids, reader.decode)
    assert found.text == reader.decode(ids) == "".join(found.pieces)
    assert (found.starts, found.ends) == by_prefixes(ids, reader.decode)


@given(dice=DICE)
def test_bytes_that_are_no_text(dice: random.Random) -> None:
    ids = [dice.choice([65, 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80, 0xFF, 10]) for _ in range(dice.randint(0, 20))]
    found = token_texts(ids, BYTES.decode)
    assert "".join(found.pieces) == BYTES.decode(ids)
    assert (found.starts, found.ends) == by_prefixes(ids, BYTES.decode)


def strip_the_first_space(text: str) -> str:
    return text.removeprefix(" ")


def close_up_commas(text: str) -> str:
    return text.replace(" ,", ",").replace(" n't", "n't")


def backwards(text: str) -> str:
    return text[::-1]


@pytest.mark.parametrize("habit", [strip_the_first_space, close_up_commas, str.strip, backwards])
@given(dice=DICE)
def test_decoders_that_change_the_text(habit: Callable[[str], str], dice: random.Random) -> None:
    reader = Reader([b" do", b" n't", b" ,", b"\n\n", b" ", b"\xc3", b"\xa9"], habit)
    ids = [dice.randrange(8) for _ in range(dice.randint(0, 9))]
    found = token_texts(ids, reader.decode)
    assert found.text == "".join(found.pieces)
    assert (found.starts, found.ends) == by_prefixes(ids, reader.decode)


def test_a_character_belongs_to_all_its_tokens() -> None:
    ids = list("aé😀.".encode())
    found = token_texts(ids, BYTES.decode)
    assert found.pieces == ["a", "", "é", "", "", "", "😀", "."]
    assert list(zip(found.starts, found.ends, strict=True)) == [
        (0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3), (2, 3), (3, 4)
    ]  # fmt: skip


def test_a_token_that_ends_one_character_and_begins_another() -> None:
    first, second = "é中".encode()[:1], "é中".encode()[1:3]
    reader = Reader([first, second, "é中".encode()[3:]])
    found = token_texts([0, 1, 2], reader.decode)
    assert list(zip(found.starts, found.ends, strict=True)) == [(0, 1), (0, 2), (1, 2)]


def test_tokens_without_text_end_where_they_start() -> None:
    reader = Reader([b"ab"])
    found = token_texts([1, 0, 1, 1], reader.decode)
    assert (found.starts, found.ends) == ([0, 0, 2, 2], [0, 2, 2, 2])
    assert token_texts([], reader.decode).pieces == []


def test_decoding_takes_time_in_proportion_to_the_tokens() -> None:
    asked: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return BYTES.decode(ids)

    text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 😀. " * 50
    ids = list(text.encode())
    assert "".join(token_texts(ids, decode).pieces) == text
    assert sum(asked) < 10 * len(ids)


def test_every_turn_is_a_text_of_its_own() -> None:
    turns = Rollouts.from_lists([list(b"ab|cd"), list(b""), list(b"e")], groups=[0, 0, 0], episodes=[0, 0, 0])
    assert [(at, of.text) for at, of in decisions(turns, BYTES)] == [(0, "ab|cd"), (5, "e")]
    marked = turns.with_spans("turn", torch.tensor([0, 3, 5]), torch.tensor([2, 5, 6]))
    assert [(at, of.text) for at, of in decisions(marked, BYTES)] == [(0, "ab"), (3, "cd"), (5, "e")]


def test_the_library_s_own_policies(tmp_path: Path) -> None:
    digits = digit_llama()
    one = Rollouts.from_lists([[4, 8, 12, 0]], groups=[0])
    assert [of.pieces for _, of in decisions(one, digits)] == [["3", "7", ".", ""]]
    table = TabularPolicy(vocabulary=3, depth=2)
    assert [of.pieces for _, of in decisions(Rollouts.from_lists([[2, 1]], groups=[0]), table)] == [["2", " 1"]]
    own = load(save_own_model(tmp_path))
    ids = [*own.tokenizer("é\n\n中").input_ids, own.tokenizer.eos_token_id]
    found = token_texts(ids, own.codec().decode)
    assert found.text == "é\n\n中"
    assert (found.starts, found.ends) == by_prefixes(ids, own.codec().decode)
