"""Train and held-out share no prompt, whatever is divided and in whatever order."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.tasks import Task, normalise, split

TEXTS = st.text(alphabet=st.sampled_from("aAbBß2２ \n\t\u00a0é\u0301eﬁf"), max_size=4)
TASKS = st.lists(st.tuples(TEXTS, st.sampled_from(["1", "2", None])), min_size=1, max_size=30).map(
    lambda rows: [Task(text, answer, "made up") for text, answer in rows]
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2 + 2?", "what  is\n2 + 2? "),
        ("２ + ２", "2 + 2"),
        ("straße", "STRASSE"),
        ("e\u0301", "é"),
        ("ﬁne", "fine"),
        ("a\u00a0b\u2003c", "a b c"),
    ],
)
def test_normalise_ignores_what_does_not_change_a_question(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), [("1 + 2", "2 + 1"), ("a b", "ab"), ("1.5", "15"), ("x", "x?")])
def test_normalise_keeps_what_does(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@settings(deadline=None)
@given(st.text())
def test_normalise_is_idempotent(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(deadline=None)
@given(TASKS, st.integers(0, 12) | st.floats(0.01, 0.99), st.integers(0, 3), st.randoms(use_true_random=False))
def test_split_properties(tasks: list[Task], held_out: int | float, seed: int, order: random.Random) -> None:
    distinct = {normalise(task.text) for task in tasks}
    count = held_out if isinstance(held_out, int) else max(1, round(held_out * len(distinct)))
    if count >= len(distinct):
        with pytest.raises(InputError, match="leaves none to train on"):
            split(tasks, held_out, seed)
        return
    train, apart = split(tasks, held_out, seed)

    train_texts = [normalise(task.text) for task in train]
    held_out_texts = [normalise(task.text) for task in apart]
    assert not set(train_texts) & set(held_out_texts)
    assert set(train_texts) | set(held_out_texts) == distinct
    assert len(set(held_out_texts)) == len(held_out_texts) == count
    # All copies that are not held out stay, in their order.
    assert list(train) == [task for task in tasks if normalise(task.text) not in held_out_texts]

    again = split(tasks, held_out, seed)
    assert again == (train, apart)
    moved = list(tasks)
    order.shuffle(moved)
    moved_train, moved_apart = split(moved, held_out, seed)
    assert moved_apart == apart
    assert sorted(map(repr, moved_train)) == sorted(map(repr, train))


def test_seeds_choose_differently_and_about_evenly() -> None:
    tasks = [Task(str(number), "0", "numbers") for number in range(40)]
    chosen = [frozenset(t.text for t in split(tasks, 10, seed)[1]) for seed in range(200)]
    assert len(set(chosen)) == 200
    times = [sum(task.text in texts for texts in chosen) for task in tasks]
    # Each is chosen Binomial(200, 1/4) times: 50 with a standard deviation of 6.1; five of those either side.
    assert min(times) > 19
    assert max(times) < 81


def test_more_tasks_leave_the_order_of_the_held_out_as_it_was() -> None:
    tasks = [Task(str(number), "0", "numbers") for number in range(60)]
    few, many = split(tasks[:50], 5, 0)[1], split(tasks, 5, 0)[1]
    old = [task for task in many if task in tasks[:50]]
    assert old == list(few[: len(old)])


def test_nothing_may_be_held_out() -> None:
    task = Task("1", "1", "numbers")
    assert split([task, task], 0, seed=0) == ((task, task), ())


def test_messages_are_compared_by_their_text() -> None:
    plain = Task("Add 1\nand 2.", "3", "sums")
    chat = Task(({"role": "system", "content": "add 1"}, {"role": "user", "content": "and 2."}), "3", "sums")
    other = Task("Add 2 and 2.", "4", "sums")
    for seed in range(10):
        train, apart = split([plain, chat, other], 1, seed)
        assert (len(train), len(apart)) in {(2, 1), (1, 1)}
        assert not {normalise(t.text) for t in train} & {normalise(t.text) for t in apart}


def test_a_lone_surrogate_is_no_obstacle() -> None:
    train, apart = split([Task("\ud800", "1", "odd"), Task("b", "2", "odd")], 1, seed=0)
    assert len(train) == len(apart) == 1


@pytest.mark.parametrize("held_out", [-1, 0.0, 1.0, 1.5, -0.2, True, None, "5", float("nan")])
def test_unusable_held_out(held_out: object) -> None:
    tasks = [Task("a", "1", "x"), Task("b", "1", "x")]
    with pytest.raises(InputError, match=re.escape(f"held_out is {held_out!r}, expected a number of prompts")):
        split(tasks, held_out, seed=0)  # type: ignore[arg-type]


def test_too_few_distinct_prompts() -> None:
    tasks = [Task(text, "1", "x") for text in ("a", "A ", "b", "c")]
    with pytest.raises(InputError) as caught:
        split(tasks, 3, seed=0, what="sums.csv")
    assert str(caught.value) == (
        "sums.csv has 3 distinct prompts in 4 tasks, so holding out 3 of them leaves none to train on: ask for "
        "held_out below 3, or give more different prompts."
    )


def test_no_tasks() -> None:
    with pytest.raises(InputError, match="the task source has no tasks: at least two different prompts are needed"):
        split([], 0.5, seed=0)
