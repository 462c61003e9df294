"""The leaderboard page, made from the JSON of a calibration and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = (
    *(
        "method",
        "claim",
        "verdict",
        "angle",
        "largest",
        "in",
        "noise",
        "correlation",
        "sign",
        "rollouts",
        "annotations",
    ),
)
"""Of the table."""

EXPLAINED = """\
Which credit is right? In {worlds} small worlds every value is known, so the gradient that a method's credit implies is
compared with the exact one. Made by

    {command} --write docs

Part of it is looked at by `apportion calibrate --methods grpo,tempo --worlds stopping`.

![Credit methods against exact values: direction error, noise, agreement and cost](leaderboard.svg)

## How to read it

- **angle**: between the expected gradient, what an endless number of groups would add up to, and the exact one, in
  degrees: mean over worlds, and the largest. 0 is exact up to scale; no number of samples mends another. An angle whose
  {level:g} % interval includes 0 counts as 0.
- **noise**: variance of the gradient of one response, in units of the squared length of what it is on average along the
  exact gradient, as a multiple of leave-one-out's (`rloo`) in the same world; geometric mean over worlds. A method of
  noise 0.5 needs half the responses for an equally clear gradient.
- **correlation**, **sign**: of a token's credit with its exact advantage, and how often their signs agree where the
  exact one is not 0. Averages over worlds.
- **rollouts**: drawn for every response that is credited. A method of noise 0.5 that draws 4 needs twice the rollouts
  of leave-one-out. *On forks*, responses branch: each once before a random token (`tree` and its kin), or before every
  token but the first with 2 fresh continuations (`vine`); every token that is drawn is then part of the noise.
- **claim**, **verdict**: what the method says of its expected gradient, tested in every world with groups of {sizes}.
  A claim to be biased is *seen* or *not seen*; the others *hold* or are *refuted*.
- **annotations** are planted: what a critic, a process reward or a judge would say, from exact values, with noise 0
  (it is right) or as given (a number has an error of so many standard deviations; a verdict is turned round with half
  that probability). Errors belong to places and do not average out.

Groups of {size} in the table. Methods are compared over the worlds they run in; where an outcome must be right or wrong
that is fewer. Small worlds say nothing about clipping, several updates a batch, models that generalise, or annotators
worse or better than planted.
"""


def page(found: Mapping[str, Any]) -> str:
    """docs/leaderboard.md."""
    settings = found["settings"]
    sizes = ", ".join(map(str, settings["sizes"]))
    explained = EXPLAINED.format(
        command=found["command"],
        worlds=len(found["worlds"]),
        level=100 * settings["intervals"],
        size=found["size_shown"],
        sizes=sizes,
    )
    parts = ["# Leaderboard of credit", "", explained, "## What theory foretold", ""]
    parts += [f"- {'yes' if t['holds'] else '**no**'}: {t['statement']} ({t['figures']})." for t in found["truths"]]
    head, lines = table(found)
    parts += ["", "## Methods", "", _row(head), "|" + "---|" * len(head)]
    parts += [_row([f"`{line[0]}`", *line[1:]]) for line in lines]
    refuted = [claim for claim in found["claims"] if claim["verdict"] == "refuted"]
    parts += ["", "## Claims refuted", ""]
    parts += [f"- `{c['spec']}` claims to be {c['claim']}: {c['evidence']}." for c in refuted] or ["None."]
    parts += _forks(found["forks"])
    parts += ["", "## Worlds", "", "| world | what decides | responses | expected return | length of the gradient |"]
    parts += ["|---|---|---|---|---|"]
    parts += [
        _row([f"`{w['name']}`", w["what"], w["responses"], w["expected_return"], w["gradient_length"]])
        for w in found["worlds"]
    ]
    parts += ["", "## Not measured", "", *_not_measured(found)]
    parts += ["", "All cells, with intervals: [calibration.json](calibration.json).", ""]
    return "\n".join(parts)


FORKS = """\
Responses that branch, drawn by the sampler of `--sampling branching`: for every fork rule and every backup, the bias of
the prompt's value, and the length of the bias of the gradient (siblings as baseline) as a share of the exact one's. In
bold is the backup that belongs to what a rule looks at: `draws` where it looks at the prefix, `fresh` where it looks
ahead. What a rule that looks ahead forks are states of its choice, so the gradient of all draws is not the
policy's; that of the responses from the prompt alone is.
"""


def _forks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section about fork rules, where they were looked at."""
    if not rows:
        return []
    head = ("fork rule", "looks at", "backup", "bias of the value", "of the gradient", "of that from the prompt")
    lines = []
    for row in rows:
        backup = f"**{row['backup']}**" if row["prescribed"] else row["backup"]
        figures = (_spread(row[name]) for name in ("value", "gradient", "from_prompt"))
        lines.append(_row([f"`{row['rule']}`", row["looks"], backup, *figures]))
    return ["", "## Forks", "", FORKS, _row(head), "|" + "---|" * len(head), *lines]


def _spread(figure: Sequence[float] | None) -> str:
    return "" if figure is None else f"{figure[0]:+.3f} [{figure[1]:+.3f}, {figure[2]:+.3f}]"


def _not_measured(found: Mapping[str, Any]) -> list[str]:
    """Where methods could not run, and why, a line a method and reason."""
    columns = found["columns"]
    spec, world, reason = (columns.index(name) for name in ("spec", "world", "reason"))
    where: dict[tuple[str, str], dict[str, None]] = {}
    for cell in found["cells"]:
        if cell[reason]:
            # The number of episodes depends on the groups; what is expected does not.
            why = cell[reason].partition(", expected ")[2] or cell[reason]
            where.setdefault((cell[spec], why.partition(":")[0]), {})[cell[world]] = None
    lines = [f"- `{s}` in {', '.join(f'`{w}`' for w in worlds)}: expected {why}" for (s, why), worlds in where.items()]
    return [line.rstrip(".") + "." for line in lines] or ["Every method ran in every world."]


def table(found: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    """Head and lines of the table of methods, best first within what they need."""
    verdict = {(claim["spec"], claim["noise"]): claim for claim in found["claims"]}
    order = {"outcome": 0, "annotated": 1, "textbook": 2}
    lines = sorted(found["methods"], key=lambda line: (order[line["family"]], line["angle"] is None, _rank(line)))
    return HEAD, [_line(line, verdict[line["spec"], line["noise"]]) for line in lines]


def _rank(line: Mapping[str, Any]) -> tuple[float, float]:
    return line["angle"] or 0.0, line["noise_against_baseline"] or 0.0


def _line(line: Mapping[str, Any], claim: Mapping[str, Any]) -> list[str]:
    needs = ", ".join(line["needs"])
    return [
        line["spec"],
        claim["claim"],
        claim["verdict"],
        _number(line["angle"], 1),
        _number(line["largest_angle"], 1),
        line["largest_angle_in"] or "",
        _number(line["noise_against_baseline"], 2),
        _number(line["correlation"], 2),
        _number(line["sign_agreement"], 2),
        _number(line["cost"], 1),
        f"{needs}, noise {line['noise']:g}" if needs else "",
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
