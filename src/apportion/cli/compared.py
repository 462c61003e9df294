"""What came of a comparison, as JSON for machines and as text for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.text import Text

from apportion.cli.columns import Columns
from apportion.cli.output import print_table, shown
from apportion.credit.agreement import FEWEST, Agreement, Estimate
from apportion.errors import MissingColumn

AROUND = 60
"""Characters of text shown on either side of a token."""


@dataclass(eq=False)
class Compared:
    """What came of it.

    Attributes:
        name: of the rollouts, as the user calls them.
        steps: of training that were looked at; none of a file.
        specs: the methods, as the user named them.
        agreement: over all tokens.
        skipped: by method, why it was left out.
        responses: how many were looked at.
        unknown: episodes left out because a method does not know a reward.
        uncovered: episodes left out because a method does not cover where they are from.
        disagreements: records of tokens, the largest first.
    """

    name: str
    steps: list[int]
    specs: list[str]
    agreement: Agreement
    skipped: dict[str, MissingColumn]
    responses: int = 0
    unknown: int = 0
    uncovered: int = 0
    disagreements: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def pearson(self) -> Estimate:
        """Correlation of credit ``[M, M]``."""
        return self.agreement.pearson()


def as_record(compared: Compared, columns: Columns) -> dict[str, Any]:
    """Everything, for machines; what does not exist is null."""
    agreement = compared.agreement
    pearson, spearman, same = compared.pearson, agreement.spearman(), agreement.same_sign()
    earning, rms, both = agreement.earning(), agreement.rms().tolist(), agreement.both().tolist()
    return {
        "rollouts": compared.name,
        "steps": compared.steps,
        "tokens": agreement.tokens,
        "responses": compared.responses,
        "groups": agreement.groups,
        "left_out": {"unknown": compared.unknown, "not_covered": compared.uncovered},
        "methods": [
            {"credit": spec, "rms": rms[i], "share_of_tokens": _number(earning, i)}
            for i, spec in enumerate(compared.specs)
        ],
        "skipped": [
            {"credit": spec, "column": error.column, "reason": str(error)} for spec, error in compared.skipped.items()
        ],
        "pearson": [[_real(x) for x in row] for row in pearson.value.tolist()],
        "spearman": [[_real(x) for x in row] for row in spearman.value.tolist()],
        "pairs": [
            {
                "credit": [compared.specs[i], compared.specs[j]],
                "pearson": _number(pearson, i, j),
                "spearman": _number(spearman, i, j),
                "same_sign": _number(same, i, j),
                "tokens_with_both": int(both[i][j]),
            }
            for i, j in _pairs(len(compared.specs))
        ],
        "notes": notes(compared),
        "disagreements": compared.disagreements,
        "made": columns.made,
    }


def _pairs(methods: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(methods) for j in range(i + 1, methods))


def _real(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(estimate: Estimate, *at: int) -> dict[str, float | None] | None:
    if not math.isfinite(float(estimate.value[at])):
        return None
    parts = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: _real(float(part[at])) for name, part in parts.items()}


def notes(compared: Compared) -> list[str]:
    """What a reader of the numbers must know: why some are not there."""
    agreement, said = compared.agreement, []
    rms, varies = agreement.rms().tolist(), compared.pearson.value.diagonal().isfinite().tolist()
    for spec, size, moves in zip(compared.specs, rms, varies, strict=True):
        if size == 0:
            said.append(f"{spec} gives no token credit, so it has no correlation")
        elif not moves:
            said.append(f"{spec} gives every token the same credit, so it has no correlation")
    if agreement.groups < FEWEST:
        said.append(f"{agreement.groups} groups are too few for intervals, which need {FEWEST}")
    if compared.unknown:
        said.append(f"episodes left out because a reward is unknown: {compared.unknown}")
    if compared.uncovered:
        said.append(f"episodes left out because not every method looks where they are from: {compared.uncovered}")
    return said


def report(compared: Compared, columns: Columns) -> None:
    """Everything, for people."""
    console = Console()
    agreement, specs = compared.agreement, [shown(spec) for spec in compared.specs]
    print(
        f"{compared.name}{_of_steps(compared.steps)}: {agreement.tokens:,} trained tokens of {compared.responses:,} "
        f"responses in {agreement.groups:,} group{'s' if agreement.groups != 1 else ''}\n"
    )
    earning, rms = agreement.earning(), agreement.rms().tolist()
    numbered = [f"{i + 1}  {spec}" for i, spec in enumerate(specs)]
    head = ["   credit", "share of tokens with credit", "RMS"]
    print_table(console, head, [[n, _said(earning, i), f"{rms[i]:.3g}"] for i, n in enumerate(numbered)])
    for spec, error in compared.skipped.items():
        print(f"-  {shown(spec)} is left out: {shown(str(error))}")

    pearson, spearman, same = compared.pearson, agreement.spearman(), agreement.same_sign()
    numbers = range(len(specs))
    print("\ncorrelation, Pearson's above the diagonal and Spearman's below")
    rows = [
        [n, *("" if i == j else _said(pearson if i < j else spearman, i, j, short=True) for j in numbers)]
        for i, n in enumerate(numbered)
    ]
    print_table(console, ["", *(str(i + 1) for i in numbers)], rows)
    print()
    both = agreement.both().tolist()
    rows = [
        [
            f"{i + 1}, {j + 1}",
            _said(pearson, i, j),
            _said(spearman, i, j),
            _said(same, i, j),
            f"{int(both[i][j]):,}",
        ]
        for i, j in _pairs(len(specs))
    ]
    print_table(console, ["pair", "Pearson", "Spearman", "same sign", "tokens both credit"], rows)
    for line in (*notes(compared), *columns.said()):
        print(shown(line))
    if compared.disagreements:
        print("\nfurthest apart, in units of each method's RMS, at most one token a response")
    for record in compared.disagreements:
        _show(console, record)


def _of_steps(steps: list[int]) -> str:
    if len(steps) > 1:
        return f", {len(steps)} steps from {steps[0]} to {steps[-1]}"
    return f", step {steps[0]}" if steps else ""


def _said(estimate: Estimate, *at: int, short: bool = False) -> str:
    number = _number(estimate, *at)
    if number is None:
        return "-"
    if short or number["low"] is None:
        return f"{number['value']:.3f}"
    return f"{number['value']:.3f} [{number['low']:.3f}, {number['high']:.3f}]"


def _show(console: Console, record: dict[str, Any]) -> None:
    """A token in its text, and what every method gave it."""
    rewards = ", ".join(
        f"{shown(n)} {'unknown' if r is None else format(r, '.3f')}" for n, r in record["rewards"].items()
    )
    step = "" if record["step"] is None else f"step {record['step']} "
    print(
        f"\n{record['apart']:.2f} apart at {step}group {shown(str(record['group']))} response {record['response']} "
        f"token {record['token']}; reward {rewards or 'none'}"
    )
    if record["prompt"]:
        print(f"  prompt    {_clipped(shown(record['prompt']), 2 * AROUND)}")
    before, after = shown(record["before"]), shown(record["after"])
    text = Text("  response  " + ("..." if len(before) > AROUND else "") + before[-AROUND:])
    text.append(f">>{shown(record['text']) or record['id']}<<", style="bold reverse" if console.is_terminal else "")
    text.append(_clipped(after, AROUND))
    console.print(text, soft_wrap=True)
    if record["whole"]:
        print(f"  as text   {_clipped(shown(record['whole']), 2 * AROUND)}")
    units = record["in_rms"]
    given = (f"{shown(spec)} {value:+.4g} ({units[spec]:+.2f})" for spec, value in record["advantages"].items())
    print(f"  credit    {'   '.join(given)}")


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "..."
