"""Mixtures: weights, names, verifiers, and no leak from one source into another."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from apportion.errors import InputError
from apportion.tasks import Mixture, Source, Task, mixture, normalise, parts_of


def source(name: str, train: str, held_out: str = "", verifier: str = "math") -> Source:
    def tasks(letters: str) -> tuple[Task, ...]:
        return tuple(Task(letter, name, name) for letter in letters)

    return Source(name, tasks(train), tasks(held_out), verifier)


def letters(tasks: tuple[Task, ...]) -> str:
    return "".join(task.text for task in tasks)


def test_parts_keep_their_sources_and_shares() -> None:
    mixed = mixture([(source("one", "abc", "d"), 3), (source("two", "efg", "h"), 1.0)])
    assert mixed.name == "one+two"
    assert [(p.name, letters(p.train), p.weight, p.verifier) for p in mixed.parts] == [
        ("one", "abc", 0.75, "math"),
        ("two", "efg", 0.25, "math"),
    ]
    assert [(task.text, task.source) for task in mixed.train[2:4]] == [("c", "one"), ("e", "two")]
    assert letters(mixed.held_out) == "dh"
    assert mixed.verifier == "math"


def test_a_text_held_out_anywhere_is_trained_nowhere() -> None:
    mixed = mixture([(source("one", "abcC", "de"), 1), (source("two", "DXYB", "cE"), 1)])
    assert [letters(part.train) for part in mixed.parts] == ["ab", "XYB"]
    # "e" and "E" are one prompt; the first source's copy stays.
    assert letters(mixed.held_out) == "dec"
    trained = {normalise(task.text) for task in mixed.train}
    assert not trained & {normalise(task.text) for task in mixed.held_out}


def test_differing_verifiers_are_named_by_source() -> None:
    mixed = mixture([(source("one", "ab"), 1), (source("two", "c", verifier="choice(letters='AB')"), 1)])
    assert mixed.verifier == """by_source(verifiers={'one': 'math', 'two': "choice(letters='AB')"})"""


def test_mixtures_nest() -> None:
    inner = mixture([(source("one", "ab", "c"), 1), (source("two", "d", "e", "exact"), 3)])
    outer = mixture([(inner, 1), (source("three", "fc", "a"), 1)])
    assert [(p.name, letters(p.train), p.weight, p.verifier) for p in outer.parts] == [
        ("one", "b", 0.125, "math"),
        ("two", "d", 0.375, "exact"),
        ("three", "f", 0.5, "math"),
    ]
    assert letters(outer.held_out) == "cea"


def test_parts_of_any_source() -> None:
    plain = source("one", "ab", "c")
    (part,) = parts_of(plain)
    assert (part.name, part.train, part.weight, part.verifier) == ("one", plain.train, 1.0, "math")
    mixed = mixture([(plain, 1)])
    assert parts_of(mixed) == mixed.parts


def test_samples_follow_the_weights_and_the_generator() -> None:
    mixed = mixture([(source("one", "ab"), 4), (source("two", "cdefgh"), 1)])
    drawn = mixed.sample(20_000, np.random.default_rng(0))
    counts = Counter(task.text for task in drawn)
    for text, share in {**dict.fromkeys("ab", 0.4), **dict.fromkeys("cdefgh", 0.2 / 6)}.items():
        assert abs(counts[text] - 20_000 * share) < 4.5 * math.sqrt(20_000 * share * (1 - share))
    assert drawn == mixed.sample(20_000, np.random.default_rng(0))
    assert mixed.sample(0, np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("weighted", "message"),
    [
        ([], "a mixture was given no sources: expected at least one, with its weight."),
        ([(source("one", "a"), 0)], "one has the weight 0 in a mixture: expected a positive number."),
        ([(source("one", "a"), -1.5)], "one has the weight -1.5 in a mixture: expected a positive number."),
        ([(source("one", "a"), math.nan)], "one has the weight nan in a mixture: expected a positive number."),
        ([(source("one", "a"), math.inf)], "one has the weight inf in a mixture: expected a positive number."),
        (
            [(source("sums", "a"), 1), (source("sums", "b"), 1)],
            "two sources of a mixture are called 'sums': tell them apart with name=, as in sums(name='sums_2').",
        ),
        (
            [(source("one", "a"), 1), (source("two", "b", "A"), 1)],
            "nothing of one is left to train on: all its prompts are held out in this mixture; hold out fewer, or "
            "give it more.",
        ),
    ],
)
def test_unusable_mixtures(weighted: list[tuple[Source, float]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        mixture(weighted)
    assert str(caught.value) == message


def test_a_mixture_is_a_task_source() -> None:
    mixed = mixture([(source("one", "ab", "c"), 1)])
    assert isinstance(mixed, Mixture)
    assert (mixed.name, letters(mixed.train), letters(mixed.held_out), mixed.verifier) == ("one", "ab", "c", "math")
