"""What a run over claims found, as JSON; and the page of verdicts, made from that and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion.studies import claims
from apportion.studies.claim import INCONCLUSIVE, LEVEL, LOOKS, NOT_REPRODUCED, REPRODUCED
from apportion.studies.claims_run import Result
from apportion.studies.machine import machine

EXPLAINED = """\
What a paper says of its method, held to an experiment that can come out against it: the registered method, on tables
and worlds small enough to know the truth, against a control on equal terms. Made by

    {command}

from {commits} on {machine}. {count} claims took {minutes:.0f} minutes of one core. A claim is looked at with
`apportion claims METHOD`, and without running it with `apportion claims METHOD --list`.

## How to read it

- **effect**: mean over seeds of one number a seed, with its interval. Every claim states the smallest effect that
  counts, and what would count against it, before it is run.
- **verdict**: *{reproduced}* if the interval lies above the smallest effect, *{not_reproduced}* if it lies below it,
  *{inconclusive}* if neither after {last} seeds. It is given after {first} seeds where they suffice: the {looks} looks
  share the error, so that a verdict is right {level:g} % of the time.
- **again**: the verdict on other seeds, from {again}, of what was reproduced on the first. What is not reproduced on
  both is *{inconclusive}*, whatever the first seeds said.
- Where a design was changed after a look, the text below says what the first one gave, and the verdict rests on seeds
  that were not looked at.
- What is not reproduced here may hold elsewhere: these worlds have few tokens and models that do not generalise.
"""

HEAD = (
    "method",
    "claim",
    "against it",
    "smallest",
    "effect",
    "seeds",
    "verdict",
    "again",
    "CPU s",
)
"""Of the table."""


def report(results: Sequence[Result], command: str) -> dict[str, Any]:
    """Results as JSON.

    Args:
        results: of :func:`~apportion.studies.claims_run.run`.
        command: that made them.
    """
    every = [part for result in results for part in (result, result.again) if part is not None]
    return {
        "command": command,
        "machine": machine(),
        "commits": sorted({measured.commit for part in every for measured in part.measured}),
        "level": LEVEL,
        "looks": list(LOOKS),
        "cpu_seconds": sum(measured.cpu_seconds for part in every for measured in part.measured),
        "claims": [_described(result) for result in results],
        "without": dict(claims.WITHOUT),
    }


def _described(result: Result) -> dict[str, Any]:
    claim = result.entry.claim
    return {
        "card": result.entry.card,
        "method": claim.method,
        "title": claim.title,
        "says": claim.says,
        "how": claim.how,
        "against": claim.against,
        "smallest": claim.smallest,
        **_found(result),
        "verdict": result.standing,
        "on_first_seeds": result.verdict,
        "again": None if result.again is None else _found(result.again),
    }


def _found(result: Result) -> dict[str, Any]:
    judged, measured = result.judged, result.measured
    names = dict.fromkeys(name for m in measured for name in m.figures)
    return {
        "verdict": result.verdict,
        "failed": result.failed,
        "effect": None if judged is None else judged.effect,
        "low": None if judged is None else judged.low,
        "high": None if judged is None else judged.high,
        "first_seed": result.first,
        "seeds": len(measured),
        "cpu_seconds": sum(m.cpu_seconds for m in measured),
        "figures": {name: [m.figures[name] for m in measured] for name in names},
    }


def page(found: Mapping[str, Any]) -> str:
    """docs/claims.md."""
    listed = found["claims"]
    explained = EXPLAINED.format(
        command=found["command"],
        commits=f"commit {', '.join(found['commits'])}",
        machine=found["machine"],
        count=len(listed),
        minutes=found["cpu_seconds"] / 60,
        level=100 * found["level"],
        looks={1: "one", 2: "two", 3: "three"}[len(found["looks"])],
        first=found["looks"][0],
        last=found["looks"][-1],
        again=_joined(sorted({str(c["again"]["first_seed"]) for c in listed if c["again"]})) or "another range",
        reproduced=REPRODUCED,
        not_reproduced=NOT_REPRODUCED,
        inconclusive=INCONCLUSIVE,
    )
    parts = ["# Claims", "", explained, "## Verdicts", "", counted(found) + ".", ""]
    parts += [_row(HEAD), "|" + "---|" * len(HEAD)]
    parts += [_row(_line(claim)) for claim in listed]
    for claim in listed:
        parts += ["", f"## `{claim['method']}`: {claim['title']}", "", *_section(claim)]
    if found["without"]:
        parts += ["", "## Without a claim", ""]
        parts += [f"- `{name}`: {why}." for name, why in sorted(found["without"].items())]
    return "\n".join([*parts, "", "Every seed's figures: [claims.json](claims.json).", ""])


def counted(found: Mapping[str, Any]) -> str:
    """How many claims have which verdict, in words."""
    verdicts = [claim["verdict"] or "not measured" for claim in found["claims"]]
    kinds = [kind for kind in (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, "not measured") if kind in verdicts]
    said = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds)
    repeated = [claim["again"]["verdict"] for claim in found["claims"] if claim["again"]]
    held = f"; of {len(repeated)} reproduced on first seeds, {repeated.count(REPRODUCED)} held on others"
    return said + held if repeated else said


def _line(claim: Mapping[str, Any]) -> list[str]:
    again = claim["again"]
    return [
        f"`{claim['method']}`",
        claim["says"],
        claim["against"],
        f"{claim['smallest']:g}",
        interval(claim),
        str(claim["seeds"]),
        claim["verdict"] or f"not measured: {claim['failed']}",
        "" if again is None else f"{again['verdict'] or 'not measured'}: {interval(again)}",
        f"{claim['cpu_seconds']:.0f}",
    ]


def interval(found: Mapping[str, Any]) -> str:
    """An effect with its interval, or nothing."""
    if found["effect"] is None:
        return ""
    return f"{found['effect']:+.3g} [{found['low']:+.3g}, {found['high']:+.3g}]"


def _section(claim: Mapping[str, Any]) -> list[str]:
    means = {name: sum(values) / len(values) for name, values in claim["figures"].items() if name != "effect"}
    lines = [f"{claim['says']} {claim['how']}"]
    if means:
        lines += ["", "Means over seeds: " + ", ".join(f"{name} {value:.4g}" for name, value in means.items()) + "."]
    return lines


def _joined(words: Sequence[str]) -> str:
    return " and ".join(words)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
