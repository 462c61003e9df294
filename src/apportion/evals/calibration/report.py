"""What a calibration found, as one JSON: every cell, a line a method, verdicts on claims, and what theory foretold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from apportion.evals.calibration.branching import Branched
from apportion.evals.calibration.claims import verdicts
from apportion.evals.calibration.estimators import TEXTBOOK
from apportion.evals.calibration.measure import LEVEL, Interval, Measured
from apportion.evals.calibration.methods import Entry
from apportion.evals.calibration.run import Row, Settings
from apportion.evals.calibration.truths import truths, truths_of_forks
from apportion.evals.calibration.worlds import World

BASELINE = "rloo"
"""The method that noise is compared with: leave-one-out needs nothing but the group and is exact."""

COLUMNS = (
    *("spec", "noise", "world", "size", "listed", "groups", "bias", "across", "scale", "cosine"),
    *("variance", "correlation", "sign_agreement", "cost", "reason"),
)
"""Of a cell; figures with an interval are ``[figure, low, high]``."""


def report(
    rows: Sequence[Row],
    entries: Sequence[Entry],
    worlds: Mapping[str, Callable[[], World]],
    settings: Settings,
    forks: Sequence[Branched] = (),
) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "settings": {**asdict(settings), "intervals": LEVEL},
        "worlds": [_world(name, builder()) for name, builder in worlds.items()],
        "methods": summary(rows, entries, size_shown(settings)),
        "size_shown": size_shown(settings),
        "claims": [asdict(verdict) for verdict in verdicts(rows)],
        "truths": [asdict(truth) for truth in (*truths(rows), *truths_of_forks(forks))],
        "forks": [_fork(row) for row in forks],
        "columns": list(COLUMNS),
        "cells": [_cell(row) for row in rows],
    }


def size_shown(settings: Settings) -> int:
    """The group size of summaries: the middle one."""
    return sorted(settings.sizes)[len(settings.sizes) // 2]


def _world(name: str, world: World) -> dict[str, Any]:
    values = world.tree.values()
    return {
        "name": name,
        "what": world.what,
        "responses": len(world.tree.leaf_return),
        "expected_return": _short(values.total),
        "gradient_length": _short(float(values.gradient.norm())),
    }


def _cell(row: Row) -> list[Any]:
    m = row.measured
    if m is None:
        return [row.spec, row.noise, row.world, row.size, *[None] * 9, _short(row.cost), row.reason]
    figures = [_interval(m.bias), _interval(m.turn), _interval(m.scale), _interval(m.cosine)]
    plain = [_short(m.variance), _short(m.correlation), _short(m.sign_agreement), _short(row.cost)]
    return [row.spec, row.noise, row.world, row.size, m.listed, m.groups, *figures, *plain, ""]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _fork(row: Branched) -> dict[str, Any]:
    figures = {name: _interval(getattr(row, name)) for name in ("value", "gradient", "from_prompt")}
    return {"rule": row.rule, "looks": row.looks, "backup": row.backup, "prescribed": row.prescribed, **figures}


def _interval(given: Interval | None) -> list[float | None] | None:
    return None if given is None else [_short(given.value), _short(given.low), _short(given.high)]


def summary(rows: Sequence[Row], entries: Sequence[Entry], size: int) -> list[dict[str, Any]]:
    """A line for every method and noise, over the worlds it ran in, at one group size.

    ``angle`` is between the expected and the exact gradient, in degrees: its mean and its largest over worlds, where an
    angle whose interval includes 0 counts as 0. ``noise_against_baseline`` is the variance of a response as a multiple
    of :data:`BASELINE`'s in the same world: geometric mean, smallest, largest. Correlation and sign agreement are
    means.
    """
    by_spec = {entry.label: entry for entry in entries}
    baseline = {
        row.world: row.measured.variance
        for row in rows
        if row.spec == BASELINE and row.size == size and row.measured is not None
    }
    lines = []
    for spec, noise in dict.fromkeys((row.spec, row.noise) for row in rows):
        found = [r for r in rows if (r.spec, r.noise, r.size) == (spec, noise, size) and r.measured is not None]
        entry = by_spec[spec]
        angles = {r.world: a for r in found if r.measured and (a := angle(r.measured)) is not None}
        ratios = {
            r.world: r.measured.variance / base
            for r in found
            if r.measured and r.measured.variance and (base := baseline.get(r.world))
        }
        lines.append(
            {
                "spec": spec,
                "method": entry.method,
                "noise": noise,
                "family": "textbook" if entry.method in TEXTBOOK else "annotated" if entry.annotated else "outcome",
                "needs": list(entry.annotators),
                "aims": entry.aims,
                "pictured": entry.pictured,
                "worlds": len(found),
                "angle": _mean(list(angles.values())),
                "largest_angle": _short(max(angles.values(), default=None)),
                "largest_angle_in": max(angles, key=lambda w: angles[w]) if any(angles.values()) else None,
                "noise_against_baseline": _geometric(list(ratios.values())),
                "smallest_ratio": _short(min(ratios.values(), default=None)),
                "largest_ratio": _short(max(ratios.values(), default=None)),
                "correlation": _mean([m.correlation for m in _measured(found) if m.correlation is not None]),
                "sign_agreement": _mean([m.sign_agreement for m in _measured(found) if m.sign_agreement is not None]),
                "cost": _mean([r.cost for r in found]),
            }
        )
    return lines


def _measured(rows: Sequence[Row]) -> list[Measured]:
    return [row.measured for row in rows if row.measured is not None]


def angle(measured: Measured) -> float | None:
    """Between the expected and the exact gradient, in degrees; 0 where its interval includes that."""
    if measured.cosine is None:
        return None
    if not measured.cosine.excludes(1.0):
        return 0.0
    return math.degrees(math.acos(max(-1.0, min(1.0, measured.cosine.value))))


def _mean(values: Sequence[float]) -> float | None:
    return _short(fmean(values)) if values else None


def _geometric(values: Sequence[float]) -> float | None:
    return _short(math.exp(fmean(map(math.log, values)))) if values else None
