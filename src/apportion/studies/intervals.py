"""Intervals for means over runs and questions together.

Suffix legend: R runs, Q questions, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from apportion.errors import InputError
from apportion.evals.student import student

RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """A mean and its interval.

    Example:
        >>> print(Interval(0.5, 0.41, 0.6))
        0.500 [0.410, 0.600]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, float]:
        """For JSON, to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def crossed_bootstrap(
    values_RQ: Sequence[Sequence[float]] | np.ndarray,
    clusters_R: Sequence[int] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    r"""Mean over runs and questions, both resampled.

    A resample draws the runs with replacement, and the questions with replacement, and takes the mean of the table they
    cross in. Runs that share a warm start are a cluster: clusters are drawn, then runs within each. With one run, or
    one cluster of one, the interval is over questions alone and says nothing about other seeds.

    Few seeds make plain percentiles too narrow, by :math:`\sqrt{(n - 1)/n}` and by the normal's tails. The percentiles
    are therefore those of

    .. math:: \alpha' / 2 = \Phi\left(-\sqrt{n / (n - 1)}\; t_{n-1,\, 1 - \alpha/2}\right)

    with n clusters, or runs where there is one cluster (the expanded percentile interval).

    Args:
        values_RQ: of every run and question; for a paired difference, differences.
        clusters_R: the warm start of every run; None: one for all.
        confidence: probability that the interval covers the mean.
        resamples: B.
        seed: of the generator; the same seed gives the same interval.

    Raises:
        InputError: no values, values that are not finite, clusters of another number, no resamples, or a confidence
            outside (0, 1).

    Example:
        >>> print(crossed_bootstrap([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]]).value)
        0.75

    Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1; Hesterberg 2015, What teachers should
    know about the bootstrap, The American Statistician 69.
    """
    table = np.asarray(values_RQ, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise InputError("an interval needs one finite value for each of at least one run and one question.")
    clusters = np.zeros(len(table), dtype=int) if clusters_R is None else np.asarray(clusters_R)
    if clusters.shape != (len(table),):
        raise InputError(f"{len(table)} runs were given and {clusters.size} clusters, expected one of each run.")
    if resamples < 1:
        raise InputError(f"resamples={resamples} must be at least 1.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence} must lie between 0 and 1, such as 0.95.")
    runs_BR, questions_BQ = _drawn(tuple(clusters.tolist()), table.shape[1], resamples, seed)
    means = ((runs_BR @ table) * questions_BQ).sum(1)
    units = len(np.unique(clusters))
    tail = expanded_tail(units if units > 1 else len(table), confidence)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(table.mean()), float(low), float(high))


@lru_cache(maxsize=4)  # a report asks for hundreds of intervals over the same runs and questions
def _drawn(clusters_R: tuple[int, ...], questions: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of runs ``[B, R]`` and of questions ``[B, Q]`` in every resample."""
    generator = np.random.default_rng(seed)
    runs_BR = _runs_drawn(np.array(clusters_R), resamples, generator)
    drawn_BQ = generator.multinomial(questions, np.full(questions, 1 / questions), size=resamples)
    return runs_BR, drawn_BQ / questions


def _runs_drawn(clusters_R: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """The weight of every run in every resample ``[B, R]``: clusters are drawn, then runs within each."""
    _, of_run, sizes = np.unique(clusters_R, return_inverse=True, return_counts=True)
    order, starts = np.argsort(of_run, kind="stable"), np.cumsum(sizes) - sizes
    weights, rows = np.zeros((resamples, len(clusters_R))), np.arange(resamples)
    for cluster_B in generator.integers(len(sizes), size=(len(sizes), resamples)):
        for draw in range(int(sizes.max())):
            place_B = (generator.random(resamples) * sizes[cluster_B]).astype(int)
            used = draw < sizes[cluster_B]
            np.add.at(weights, (rows[used], order[starts[cluster_B] + place_B][used]), 1.0)
    return weights / weights.sum(axis=1, keepdims=True)


def expanded_tail(units: int, confidence: float = 0.95) -> float:
    """Probability of each tail, so that a percentile interval of ``units`` repeats is as wide as Student's.

    Example:
        >>> [round(expanded_tail(units), 4) for units in (5, 1000, 1)]
        [0.001, 0.0248, 0.025]
    """
    tail = (1 - confidence) / 2
    if units < 2:
        return tail
    return NormalDist().cdf(-math.sqrt(units / (units - 1)) * student(confidence, units - 1))
