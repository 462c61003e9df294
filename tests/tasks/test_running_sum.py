"""The quickstart task and its sloppy teacher."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from apportion.errors import InputError
from apportion.tasks import Task, demonstrate, normalise, running_sum, solve
from apportion.tasks.running_sum import SLIP_EVEN, SLIP_ODD


def test_tasks_are_as_described() -> None:
    source = running_sum(digits=8, train=300, held_out=50, seed=3)
    assert (source.name, source.verifier, len(source.train), len(source.held_out)) == (
        "running_sum",
        "running_sum",
        300,
        50,
    )
    for task in (*source.train, *source.held_out):
        assert isinstance(task.prompt, str)
        rest, first = task.prompt.split("=")
        assert (len(rest), len(first)) == (7, 1)
        assert task.answer == str((int(first) + sum(map(int, rest))) % 10)
        assert task.source == "running_sum"
        response = solve(task.prompt)
        assert len(response) == 8
        assert response[-2:] == f"{task.answer}."
    assert len({task.text for task in (*source.train, *source.held_out)}) == 350


def test_the_same_seed_gives_the_same_tasks_and_another_gives_others() -> None:
    def make(seed: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        source = running_sum(train=100, held_out=20, seed=seed)
        return source.train, source.held_out

    assert make(1) == make(1)
    assert make(1) != make(2)


def test_the_digits_are_even() -> None:
    source = running_sum(digits=8, train=20_000, held_out=512)
    text = "".join(task.text for task in source.train)
    counts = np.array([text.count(str(digit)) for digit in range(10)])
    # 160,000 digits: 16,000 each with a standard deviation of 120; five of those either side.
    assert abs(counts - 16_000).max() < 600


def test_a_whole_space_can_be_used() -> None:
    source = running_sum(digits=2, train=90, held_out=10)
    assert len({normalise(task.text) for task in (*source.train, *source.held_out)}) == 100


def test_the_correct_solution() -> None:
    assert solve("0453496=6") == "6058217."
    assert solve("5=5") == "0."


def test_the_teacher_errs_on_carries_only_at_its_two_rates() -> None:
    rng = np.random.default_rng(0)
    source = running_sum(digits=8, train=20_000, held_out=0, seed=1)
    pairs = {"even": 0, "odd": 0}
    slips = {"even": 0, "odd": 0}
    for task in source.train:
        response = demonstrate(task.text, rng)
        assert response[-1] == "."
        total = int(task.text[-1])
        for digit, written in zip(map(int, task.text[:-2]), map(int, response[:-1]), strict=True):
            right, kind = total + digit, "odd" if (total + digit) % 2 else "even"
            if right < 10:
                assert written == right
            else:
                # Either right or exactly one too much, from the total that was written before, right or wrong.
                assert written in {right % 10, (right + 1) % 10}
                pairs[kind] += 1
                slips[kind] += written != right % 10
            total = written
    for kind, rate in (("even", SLIP_EVEN), ("odd", SLIP_ODD)):
        deviation = math.sqrt(rate * (1 - rate) / pairs[kind])
        assert pairs[kind] > 20_000
        assert abs(slips[kind] / pairs[kind] - rate) < 4 * deviation
    assert (SLIP_EVEN, SLIP_ODD) == (0.6, 0.1)


def test_demonstrations_are_a_function_of_the_generator() -> None:
    prompts = [task.text for task in running_sum(train=50, held_out=0).train]
    one = [demonstrate(prompt, rng) for rng in [np.random.default_rng(5)] for prompt in prompts]
    two = [demonstrate(prompt, rng) for rng in [np.random.default_rng(5)] for prompt in prompts]
    other = [demonstrate(prompt, rng) for rng in [np.random.default_rng(6)] for prompt in prompts]
    assert one == two != other


def test_twenty_thousand_demonstrations_are_quick() -> None:
    rng = np.random.default_rng(0)
    prompts = [task.text for task in running_sum().train]
    start = time.process_time()
    for prompt in prompts:
        demonstrate(prompt, rng)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("prompt", ["", "12", "=1", "12=", "12=34", "1a=2", "１2=3", "12=3\n", "12 =3"])
def test_prompts_that_cannot_be_read(prompt: str) -> None:
    expected = f"cannot read the prompt {prompt!r}: expected digits, '=' and one digit, as in 0453496=6."
    for call in (lambda: solve(prompt), lambda: demonstrate(prompt, np.random.default_rng(0))):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"digits": 1}, "running_sum has digits=1, expected a whole number from 2 to 18."),
        ({"digits": "8"}, "running_sum has digits='8', expected a whole number from 2 to 18."),
        ({"digits": 8.0}, "running_sum has digits=8.0, expected a whole number from 2 to 18."),
        ({"train": 0}, "running_sum has train=0, expected a whole number from 1 to 10000000."),
        ({"held_out": -1}, "running_sum has held_out=-1, expected a whole number from 0 to 10000000."),
        ({"seed": -1}, "running_sum has seed=-1, expected a whole number from 0 to 9223372036854775807."),
        (
            {"digits": 3, "train": 600, "held_out": 500},
            "running_sum(digits=3) has 1000 different prompts, fewer than train=600 plus held_out=500: ask for "
            "fewer, or for more digits.",
        ),
    ],
)
def test_unusable_settings(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        running_sum(**settings)
    assert str(caught.value) == message
