"""pass@k against enumeration of subsets, Wilson against known values, intervals against the coverage they promise."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.evals.pass_at_k import Estimate, bootstrap, estimate_pass_at_k, pass_at_k, wilson


def by_enumeration(n: int, c: int, k: int) -> float:
    """The share of all k-subsets of n samples that hold a right one."""
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    return sum(map(any, subsets)) / len(subsets)


@pytest.mark.parametrize("n", range(1, 9))
def test_equals_enumeration(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            assert pass_at_k([n], [c], k)[0] == pytest.approx(by_enumeration(n, c, k), abs=1e-14)


def test_large_counts_stay_finite() -> None:
    values = pass_at_k([100_000] * 3, [0, 1, 100_000], k=10_000)
    assert values.tolist() == pytest.approx([0.0, 0.1, 1.0], abs=1e-12)


def test_known_values() -> None:
    # 1 - C(n-c, k) / C(n, k) by hand.
    assert pass_at_k([10, 10, 5], [3, 7, 5], k=1).tolist() == pytest.approx([0.3, 0.7, 1.0])
    assert pass_at_k([10], [3], k=5)[0] == pytest.approx(1 - 21 / 252)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_grows_with_k_and_with_c(counts: tuple[int, int, int]) -> None:
    n, c, k = counts
    value = pass_at_k([n], [c], k)[0]
    assert 0.0 <= value <= 1.0
    if k < n:
        assert value <= pass_at_k([n], [c], k + 1)[0] + 1e-15
    if c < n:
        assert value <= pass_at_k([n], [c + 1], k)[0] + 1e-15


def test_is_unbiased() -> None:
    """Its mean over the binomial distribution of c is 1 - (1 - p)^k exactly."""
    n, p = 12, 0.3
    weights = np.array(
        [np.prod([(n - j) / (j + 1) for j in range(c)]) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    )
    for k in (1, 3, 7, 12):
        values = pass_at_k([n] * (n + 1), list(range(n + 1)), k)
        assert weights @ values == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        ([4], [1], 0, "k=0"),
        ([4], [1], 1.5, "k=1.5"),
        ([4], [1], True, "k=True"),
        ([4], [1], 5, "at least 5 samples"),
        ([4], [5], 1, "between 0 and n"),
        ([4], [-1], 1, "between 0 and n"),
        ([4, 4], [1], 1, "2 prompts and c has 1"),
        ([4.0], [1], 1, "whole number"),
        ([[4]], [[1]], 1, "whole number"),
    ],
)
def test_counts_that_cannot_be_used(n: list[int], c: list[int], k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I: method 3, the score interval.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_known_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m))))
def test_wilson_holds_the_frequency(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    assert high > low
    wider = wilson(successes, trials, confidence=0.99)
    assert wider[0] <= low
    assert wider[1] >= high


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_wilson_covers_as_promised(p: float) -> None:
    """Averaged over the draws of 100 trials, near 95 % (Wilson's own coverage oscillates by a few per cent)."""
    drawn = np.random.default_rng(0).binomial(100, p, size=4000)
    covered = np.mean([wilson(int(s), 100)[0] <= p <= wilson(int(s), 100)[1] for s in drawn])
    assert 0.93 <= covered <= 0.98


def test_bootstrap_covers_as_promised() -> None:
    """pass@2 of prompts with different difficulty: the interval over prompts holds the population's mean."""
    generator = np.random.default_rng(1)
    truth = 1 - np.mean((1 - np.linspace(0, 1, 100_001)) ** 2)
    covered = 0
    for trial in range(300):
        right = generator.binomial(8, generator.uniform(size=80))
        low, high = bootstrap(pass_at_k([8] * 80, right, 2), resamples=400, seed=trial)
        covered += int(low <= truth <= high)
    assert 0.90 <= covered / 300 <= 0.985


def test_bootstrap_is_seeded_and_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).uniform(size=50)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)
    whole = bootstrap(values, seed=3)
    monkeypatch.setattr("apportion.evals.pass_at_k._CHUNK", 1000)
    assert bootstrap(values, seed=3) == pytest.approx(whole, abs=1e-12)


def test_one_sample_a_prompt_is_accuracy_with_wilson() -> None:
    result = estimate_pass_at_k([[1.0]] * 8 + [[0.0]] * 2)
    assert (result.low, result.high) == wilson(8, 10)
    assert (result.value, result.prompts, result.samples, result.unknown, result.left_out) == (0.8, 10, 10, 0, 0)


def test_several_samples_are_bootstrapped_over_prompts() -> None:
    scores = [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    result = estimate_pass_at_k(scores, k=1, seed=5)
    assert result.value == pytest.approx(0.5)
    assert (result.low, result.high) == bootstrap([0.5, 0.0, 1.0], seed=5)


def test_unknown_is_neither_right_nor_wrong() -> None:
    known = estimate_pass_at_k([[1, 0], [0, 1]], k=2)
    mixed = estimate_pass_at_k([[1, None, 0], [None, 0, 1, None]], k=2)
    assert mixed.value == known.value
    assert (mixed.samples, mixed.unknown, mixed.left_out) == (4, 3, 0)


def test_prompts_with_too_few_known_samples_are_left_out() -> None:
    result = estimate_pass_at_k([[1, 1], [None, 1], [None, None], []], k=2)
    assert (result.value, result.prompts, result.samples, result.unknown, result.left_out) == (1.0, 1, 2, 3, 3)


def test_partial_scores_count_from_the_threshold() -> None:
    assert estimate_pass_at_k([[0.5], [1.0]]).value == 0.5
    assert estimate_pass_at_k([[0.5], [1.0]], threshold=0.5).value == 1.0
    assert estimate_pass_at_k([[True], [False]]).value == 0.5


@pytest.mark.parametrize(
    ("scores", "settings", "message"),
    [
        ([], {}, "none of 0 prompts"),
        ([[None], [None]], {}, "2 are unknown"),
        ([[1.0]], {"k": 2}, "pass@2 has no value"),
        ([[1.0]], {"k": 0}, "k=0"),
        ([[float("nan")]], {}, "must be finite"),
        ([[1.0]], {"confidence": 1.0}, "confidence"),
        ([[1.0, 0.0]], {"resamples": 0}, "resamples"),
    ],
)
def test_scores_that_cannot_be_used(scores: list[list[float | None]], settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate_pass_at_k(scores, **settings)  # type: ignore[arg-type]


def test_functions_refuse_what_they_cannot_use() -> None:
    for successes, trials in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(InputError, match="at least one trial"):
            wilson(successes, trials)
    for values in ([], [float("nan")], [[1.0]]):
        with pytest.raises(InputError, match="one finite value"):
            bootstrap(values)  # type: ignore[arg-type]


def test_estimate_prints_and_serialises() -> None:
    estimate = Estimate(0.672, 0.631, 0.7109, 512, 512, 3, 1)
    assert str(estimate) == "0.672 [0.631, 0.711]"
    assert Estimate(**json.loads(json.dumps(estimate.as_dict()))) == estimate
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.value = 1.0  # type: ignore[misc]
