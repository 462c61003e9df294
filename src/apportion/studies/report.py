"""A study as one JSON object, made from its run folders and from nothing else.

Suffix legend: R runs, Q questions, P places on the token axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from apportion.studies.curves import KINDS, Curve, read_curve, tokens_drawn
from apportion.studies.intervals import crossed_bootstrap
from apportion.studies.plan import Folder
from apportion.studies.signal import jackknife, read_signal, signal

PLACES = 41
"""Points of a curve."""

MEASURES = ("on_the_way", "at_the_end")
"""Mean accuracy over the budget, which tuning chooses by, and accuracy when it is spent."""


@dataclass(frozen=True)
class Rate:
    """How an arm did at one learning rate on the tuning seeds.

    Attributes:
        factor: of the arm's own learning rate.
        rate: the learning rate.
        accuracies: on the way, a seed each.
        stopped: how many of its runs had to stop.
    """

    factor: float
    rate: float
    accuracies: tuple[float, ...]
    stopped: int

    @property
    def accuracy(self) -> float:
        """Mean over seeds."""
        return sum(self.accuracies) / len(self.accuracies)


def tuned(folder: Folder) -> dict[str, list[Rate]]:
    """Every arm's learning rates on the tuning seeds, all judged over the same number of tokens; none without tuning.

    Accuracy is that of sampled answers to the held-out questions, averaged over the budget.
    """
    jobs = {arm.name: folder.tuning(arm) for arm in folder.study.arms if arm.rate_of is None}
    curves = {
        name: {factor: [read_curve(job.folder) for job in jobs_of] for factor, jobs_of in by_factor.items()}
        for name, by_factor in jobs.items()
    }
    every = [curve for by in curves.values() for found in by.values() for curve in found]
    if not every:
        return {}
    budget, asked = budget_of(every, folder.study.base.token_budget), asked_of(every)
    return {
        name: [
            Rate(
                factor,
                jobs[name][factor][0].config.learning_rate,
                tuple(float(curve.on_the_way("sampled", budget)[asked].mean()) for curve in found),
                sum(curve.stopped for curve in found),
            )
            for factor, found in by.items()
        ]
        for name, by in curves.items()
    }


def best(rates: Sequence[Rate]) -> Rate:
    """The rate of the highest accuracy; of equals, the smallest."""
    return min(rates, key=lambda rate: (-rate.accuracy, rate.rate))


def budget_of(curves: Sequence[Curve], asked: int) -> float:
    """Tokens at which runs are compared: what was asked for, or what the run that sampled fewest has."""
    fewest = min(map(tokens_drawn, curves))
    if math.isinf(fewest):  # all had to stop
        fewest = max(float(curve.tokens_E[-1]) for curve in curves) or 1.0
    return min(fewest, asked) if asked else fewest


def asked_of(curves: Sequence[Curve]) -> np.ndarray:
    """Questions that every evaluation of every run has a known answer to, bool ``[Q]``."""
    known = [np.isfinite(values).all(0) for curve in curves for values in curve.right_EQ.values()]
    return np.logical_and.reduce(known)


def report(folder: Folder, rates: Mapping[str, float], tuning: Mapping[str, Sequence[Rate]]) -> dict[str, Any]:
    """Everything a study found.

    Args:
        folder: with all runs done.
        rates: the learning rate of every arm.
        tuning: what they were chosen from.

    Returns:
        for JSON; nothing in it depends on the clock or on where the folder lies.
    """
    study = folder.study
    curves = {arm.name: [read_curve(job.folder) for job in folder.runs(arm, rates[arm.name])] for arm in study.arms}
    every = [curve for found in curves.values() for curve in found]
    budget, asked = budget_of(every, study.base.token_budget), asked_of(every)
    places = np.linspace(0.0, budget, PLACES)
    tables = {name: _tables(found, budget, asked) for name, found in curves.items()}
    goals = list(study.reach) or _goals(curves, budget, asked)
    reached = {
        name: [[curve.tokens_to("sampled", goal, budget, asked) for curve in found] for goal in goals]
        for name, found in curves.items()
    }
    found = {
        "schema": "apportion.study/1",
        **study.as_dict(),
        "run_seeds": study.run_seeds,
        "warm_start_of_run": study.clusters,
        "tuned_on": study.tuned_on,
        "budget": budget,
        "questions": int(asked.sum()),
        "questions_without_verdict": int((~asked).sum()),
        "tuning": [
            {
                "arm": name,
                "learning_rate": _short(rate.rate),
                "factor": rate.factor,
                "accuracies": [_round(value) for value in rate.accuracies],
                "accuracy": _round(rate.accuracy),
                "stopped": rate.stopped,
                "chosen": rate is best(lines),
                "at_the_edge": rate is best(lines) and rate.factor in (min(study.tune), max(study.tune)),
            }
            for name, lines in tuning.items()
            for rate in lines
        ],
        "goals": [_round(goal) for goal in goals],
    }
    found["compared"] = [
        {
            "arm": arm.name,
            "learning_rate": _short(rates[arm.name]),
            "steps": [curve.steps for curve in curves[arm.name]],
            "tokens_a_step": _round(float(np.mean([c.tokens_E[-1] / max(c.steps, 1) for c in curves[arm.name]])), 1),
            "stopped": sum(curve.stopped for curve in curves[arm.name]),
            **_accuracies(tables[arm.name], study.clusters),
            "tokens_to": [_reached(tokens) for tokens in reached[arm.name]],
            "responses_to": [_reached(_in_responses(curves[arm.name], tokens)) for tokens in reached[arm.name]],
            "curve": _curve(curves[arm.name], places, asked, study.clusters),
        }
        for arm in study.arms
    ]
    found["differences"] = [
        {
            "arm": other.name,
            "against": one.name,
            **_accuracies(_less(tables[other.name], tables[one.name]), study.clusters),
            "tokens_to": [
                _ratio(these, those) for these, those in zip(reached[other.name], reached[one.name], strict=True)
            ],
        }
        for one, other in itertools.combinations(study.arms, 2)
    ]
    found["signal"] = [_signal(folder, arm.name) for arm in study.arms] if study.signal else []
    return found


def _tables(curves: Sequence[Curve], budget: float, asked: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Accuracy of every run on every question ``[R, Q]``, by kind and measure."""
    end = np.array([budget])
    return {
        kind: {
            "on_the_way": np.array([curve.on_the_way(kind, budget)[asked] for curve in curves]),
            "at_the_end": np.array([curve.at(kind, end)[0][asked] for curve in curves]),
        }
        for kind in KINDS
    }


def _less(
    one: Mapping[str, Mapping[str, np.ndarray]], other: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, dict[str, np.ndarray]]:
    return {kind: {name: one[kind][name] - other[kind][name] for name in MEASURES} for kind in KINDS}


def _accuracies(tables: Mapping[str, Mapping[str, np.ndarray]], clusters: Sequence[int]) -> dict[str, Any]:
    """Means with intervals, and the mean of every run."""
    return {
        kind: {
            name: {
                **crossed_bootstrap(table_RQ, clusters).as_dict(),
                "runs": [_round(float(value)) for value in table_RQ.mean(1)],
            }
            for name, table_RQ in measures.items()
        }
        for kind, measures in tables.items()
    }


def _goals(curves: Mapping[str, Sequence[Curve]], budget: float, asked: np.ndarray) -> list[float]:
    """Accuracies one half and four fifths of the way from where runs began to where the best arm ended."""
    start = float(np.mean([c.right_EQ["sampled"][0][asked].mean() for found in curves.values() for c in found]))
    end = np.array([budget])
    top = max(float(np.mean([c.at("sampled", end)[0][asked].mean() for c in found])) for found in curves.values())
    return [round(start + share * (top - start), 3) for share in (0.5, 0.8)]


def _in_responses(curves: Sequence[Curve], tokens: Sequence[float | None]) -> list[float | None]:
    """Responses that a run had sampled when it got there."""
    return [None if t is None else curve.responses_of(t) for curve, t in zip(curves, tokens, strict=True)]


def _reached(needed: Sequence[float | None]) -> dict[str, Any]:
    """Tokens or responses a run needed; the median is None if half of the runs or more never got there."""
    middle = median(math.inf if n is None else n for n in needed)
    return {
        "runs": [None if n is None else round(n) for n in needed],
        "reached": sum(n is not None for n in needed),
        "median": None if math.isinf(middle) else round(middle),
    }


def _ratio(these: Sequence[float | None], those: Sequence[float | None]) -> dict[str, Any]:
    """The median of the pairs' ratios of tokens, and how often each side got there with fewer; pairs of which neither
    got there say nothing."""
    ratios = []
    for a, b in zip(these, those, strict=True):
        if a is not None and b is not None:
            ratios.append(a / b if b else 1.0)
        elif a is not None or b is not None:
            ratios.append(0.0 if b is None else math.inf)
    middle = median(ratios) if ratios else math.inf
    return {
        "pairs": len(ratios),
        "fewer": sum(ratio < 1 for ratio in ratios),
        "more": sum(ratio > 1 for ratio in ratios),
        "median_ratio": None if math.isinf(middle) else _round(middle),
    }


def _curve(curves: Sequence[Curve], places: np.ndarray, asked: np.ndarray, clusters: Sequence[int]) -> dict[str, Any]:
    """Mean accuracy along the tokens, with intervals."""
    along = {kind: np.array([curve.at(kind, places)[:, asked] for curve in curves]) for kind in KINDS}
    found: dict[str, Any] = {"tokens": [round(float(place)) for place in places]}
    for kind, values_RPQ in along.items():
        lines = [crossed_bootstrap(values_RPQ[:, p], clusters, resamples=1000).as_dict() for p in range(len(places))]
        found[kind] = {name: [line[name] for line in lines] for name in ("value", "low", "high")}
    return found


def _signal(folder: Folder, name: str) -> dict[str, Any]:
    arm = next(arm for arm in folder.study.arms if arm.name == name)
    read = [read_signal(job.folder) for job in folder.signals(arm)]
    products, tokens = [p for p, _ in read], [t for _, t in read]
    value, error = jackknife(products, tokens)
    each = [signal(p, t) for p, t in read]
    return {
        "arm": name,
        "per_1000_tokens": _round(value),
        "standard_error": _round(error),
        "squared_norm": [_short(s.signal) for s in each],
        "variance": [_short(s.noise) for s in each],
        "tokens_a_batch": [_round(s.tokens, 1) for s in each],
    }


def _round(value: float, digits: int = 6) -> float:
    return round(value, digits)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
