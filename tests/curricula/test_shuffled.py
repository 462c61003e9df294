"""The plain curriculum: epochs in orders of their own, sources by weight, and a place to go on from."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.curricula.shuffled import Shuffled
from apportion.errors import InputError
from apportion.rollouts.store import RolloutStore
from apportion.tasks.mixture import Part
from apportion.tasks.task import Task
from runs import DIGITS, begin


def part(name: str, size: int, weight: float = 1.0) -> Part:
    return Part(name, tuple(Task(f"{name} {i}", str(i), name) for i in range(size)), weight, "exact")


def texts(tasks: Sequence[Task]) -> list[str]:
    return [task.text for task in tasks]


@given(size=st.integers(1, 12), n=st.integers(1, 7), epochs=st.integers(1, 4), seed=st.integers(0, 5))
def test_every_epoch_visits_every_task_once(size: int, n: int, epochs: int, seed: int) -> None:
    curriculum = Shuffled([part("one", size)], seed)
    asked: list[str] = []
    for step in range(-(-size * epochs // n)):
        asked += texts(curriculum.next(n, step))
    for epoch in range(epochs):
        assert sorted(asked[epoch * size : (epoch + 1) * size]) == sorted(texts(part("one", size).train))


def test_epochs_have_orders_of_their_own() -> None:
    curriculum = Shuffled([part("one", 8)], 3)
    orders = [tuple(texts(curriculum.next(8, step))) for step in range(6)]
    assert len(set(orders)) == 6
    assert texts(Shuffled([part("one", 8)], 3).next(8, 0)) == list(orders[0])
    assert texts(Shuffled([part("one", 8)], 4).next(8, 0)) != list(orders[0])


def test_sources_are_drawn_by_weight_and_each_in_epochs() -> None:
    parts = [part("often", 10, 0.7), part("seldom", 7, 0.2), part("rare", 3, 0.1)]
    curriculum = Shuffled(parts, 1)
    drawn: list[Task] = []
    for step in range(500):
        drawn += curriculum.next(4, step)
    counts = Counter(task.source for task in drawn)
    for source in parts:
        # Four standard deviations of a binomial of 2000 draws.
        spread = 4 * (2000 * source.weight * (1 - source.weight)) ** 0.5
        assert abs(counts[source.name] - 2000 * source.weight) < spread
        own = [task.text for task in drawn if task.source == source.name]
        size = len(source.train)
        for start in range(0, len(own) - size, size):
            assert len(set(own[start : start + size])) == size


def test_a_source_of_no_weight_but_rounding_is_not_drawn() -> None:
    curriculum = Shuffled([part("all", 3, 1.0), part("none", 3, 0.0)], 0)
    assert {task.source for step in range(50) for task in curriculum.next(4, step)} == {"all"}


@given(before=st.integers(0, 9), n=st.integers(1, 5))
def test_it_goes_on_as_if_it_had_not_stopped(before: int, n: int) -> None:
    parts = [part("one", 5, 0.6), part("two", 3, 0.4)]
    whole = Shuffled(parts, 2)
    for step in range(before):
        whole.next(n, step)
    state = whole.state()
    rest = [texts(whole.next(n, step)) for step in range(before, before + 6)]
    again = Shuffled(parts, 2)
    again.restore(state)
    assert [texts(again.next(n, step)) for step in range(before, before + 6)] == rest


def test_its_state_is_a_copy() -> None:
    curriculum = Shuffled([part("one", 5)], 0)
    state = curriculum.state()
    curriculum.next(3, 0)
    assert state == {"cursors": {"one": 0}}
    assert curriculum.state() == {"cursors": {"one": 3}}


def test_other_sources_than_it_began_with_are_refused() -> None:
    state = Shuffled([part("one", 5)], 0).state()
    with pytest.raises(InputError, match=r"has task sources \['one'\], this run \['two'\]: resume with the sources"):
        Shuffled([part("two", 5)], 0).restore(state)


def test_a_run_asks_what_the_curriculum_says(tmp_path: Path) -> None:
    tasks = (
        "0.5*running_sum(digits=3, train=6, held_out=0)",
        "0.5*running_sum(digits=2, train=4, held_out=0, name='short')",
    )
    begin(tmp_path / "run", dataclasses.replace(DIGITS, tasks=tasks, steps=6, prompts_per_step=4, group_size=2))
    asked: dict[str, list[str]] = {}
    for _, rollouts in RolloutStore(tmp_path / "run/rollouts"):
        prompts, sources = (rollouts.columns[f"response:{name}"].text[::2] for name in ("prompt_text", "task_source"))
        for prompt, source in zip(prompts, sources, strict=True):
            asked.setdefault(str(source), []).append(str(prompt))
    assert sum(map(len, asked.values())) == 24
    for source, size in (("running_sum", 6), ("short", 4)):
        assert len(asked[source]) >= size
        assert len(set(asked[source][:size])) == size
        assert len(set(asked[source])) == size
