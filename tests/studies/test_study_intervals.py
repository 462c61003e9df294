"""Intervals over runs and questions: against hand cases, against enumeration, and for their width."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from apportion.errors import InputError
from apportion.evals.pass_at_k import bootstrap
from apportion.studies import intervals
from apportion.studies.intervals import crossed_bootstrap, expanded_tail


def enumerated(table: np.ndarray) -> np.ndarray:
    """The mean of every table that runs and questions drawn with replacement can cross in, each as likely."""
    runs, questions = table.shape
    return np.array(
        [
            table[np.ix_(r, q)].mean()
            for r in itertools.product(range(runs), repeat=runs)
            for q in itertools.product(range(questions), repeat=questions)
        ]
    )


def test_a_hand_case() -> None:
    # Runs differ by 1 and questions not at all: the mean is 0, 1/2 or 1, with chances 1/4, 1/2, 1/4.
    found = crossed_bootstrap([[0.0, 0.0], [1.0, 1.0]], confidence=0.4, resamples=20_000)
    assert found.value == 0.5
    tail = expanded_tail(2, 0.4)  # Phi(-sqrt 2 * t), t the 0.7 quantile of Student's with one degree: 0.7265
    assert tail == pytest.approx(0.152, abs=0.01)
    assert (found.low, found.high) == (0.0, 1.0)  # both ends hold a quarter, which is more than the tail
    narrow = crossed_bootstrap([[0.0, 0.0], [1.0, 1.0]], confidence=0.1, resamples=20_000)
    assert expanded_tail(2, 0.1) > 0.25
    assert (narrow.low, narrow.high) == (0.5, 0.5)


@pytest.mark.parametrize("confidence", [0.5, 0.8])
def test_percentiles_are_those_of_the_enumeration(confidence: float) -> None:
    table = np.array([[0.1, 0.9, 0.4], [0.3, 0.35, 0.8], [0.2, 0.0, 0.65]])
    exact = enumerated(table)
    found = crossed_bootstrap(table, confidence=confidence, resamples=60_000)
    tail = expanded_tail(3, confidence)
    assert found.value == pytest.approx(table.mean())
    # Atoms have weight, so the quantile is where the chance of less passes the tail, within the error of resampling.
    for end, mass in ((found.low, tail), (found.high, 1 - tail)):
        assert np.mean(exact < end - 1e-9) <= mass + 0.01
        assert np.mean(exact <= end + 1e-9) >= mass - 0.01


def test_one_run_is_a_bootstrap_over_questions() -> None:
    values = np.random.default_rng(3).random(200)
    found = crossed_bootstrap(values[None], resamples=20_000)
    low, high = bootstrap(values, resamples=20_000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)


def test_runs_of_one_warm_start_are_no_evidence_on_others() -> None:
    # Two warm starts far apart, whose runs agree: eight runs are worth two.
    table = np.repeat([[0.2], [0.8]], 4, axis=0) + np.zeros((1, 50))
    of_two = crossed_bootstrap(table, [0, 0, 0, 0, 1, 1, 1, 1])
    of_eight = crossed_bootstrap(table, range(8))
    assert (of_two.low, of_two.high) == pytest.approx((0.2, 0.8))
    assert of_two.high - of_two.low > 1.05 * (of_eight.high - of_eight.low)


def test_clusters_need_not_be_in_order() -> None:
    table = np.array([[0.0], [1.0], [0.0], [1.0]])
    found = crossed_bootstrap(table, [7, 3, 7, 3], confidence=0.2, resamples=20_000)
    assert found.value == 0.5
    assert (found.low, found.high) == (0.5, 0.5)
    drawn = intervals._runs_drawn(np.array([7, 3, 7, 3]), 5000, np.random.default_rng(0))
    assert drawn.sum(1) == pytest.approx(np.ones(5000))
    both_of_seven = drawn[:, [0, 2]].sum(1)
    assert set(np.round(both_of_seven, 6)) == {0.0, 0.5, 1.0}  # a cluster is drawn with all its weight
    assert np.mean(both_of_seven == 0.5) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("runs", [5, 8])
def test_the_interval_of_few_runs_covers_as_often_as_it_says(runs: int) -> None:
    generator, covered, plain = np.random.default_rng(1), 0, 0
    trials = 300
    for _ in range(trials):
        table = np.repeat(generator.normal(size=(runs, 1)), 4, axis=1)
        found = crossed_bootstrap(table, resamples=1500)
        covered += found.low <= 0 <= found.high
        narrow = bootstrap(table[:, 0], resamples=1500)
        plain += narrow[0] <= 0 <= narrow[1]
    assert 0.91 <= covered / trials <= 0.99
    assert plain < covered


def test_tails_shrink_to_the_nominal_one() -> None:
    tails = [expanded_tail(n) for n in (5, 8, 20, 200)]
    assert tails == sorted(tails)
    assert tails[-1] == pytest.approx(0.025, abs=0.001)
    student_of_four, normal_cdf = 2.7764, lambda x: 0.5 * math.erfc(-x / math.sqrt(2))
    assert tails[0] == pytest.approx(normal_cdf(-math.sqrt(5 / 4) * student_of_four), rel=0.03)


def test_the_same_seed_gives_the_same_interval() -> None:
    table = np.random.default_rng(0).random((4, 30))
    assert crossed_bootstrap(table, seed=1) == crossed_bootstrap(table, seed=1)
    assert crossed_bootstrap(table, seed=1) != crossed_bootstrap(table, seed=2)


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        ([], {}, "one finite value for each of at least one run"),
        ([[]], {}, "one finite value"),
        ([[math.nan]], {}, "one finite value"),
        ([1.0], {}, "one finite value"),
        ([[1.0], [0.0]], {"clusters_R": [0]}, "2 runs were given and 1 clusters"),
        ([[1.0]], {"resamples": 0}, "resamples=0"),
        ([[1.0]], {"confidence": 1.0}, "confidence=1.0"),
    ],
)
def test_what_is_no_table_is_refused(values: list, more: dict, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", "\\(")):
        crossed_bootstrap(values, **more)
