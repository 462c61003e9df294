"""Tables of the benchmarks' results, for the documents."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks/results"


def read(name: str) -> Any:
    """A result as the benchmark printed it."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def credit_speed() -> str:
    """Every method on a million tokens, then what it is compared with."""
    result = read("credit")
    compared: dict[str, dict[str, float]] = {}
    alone: dict[str, float] = {}
    for row in result["rows"]:
        if row["against"] is None:
            alone[row["method"]] = row["seconds"]
        else:
            compared.setdefault(row["method"], {})[row["against"]] = row["ratio"]
    columns = ["the naive loop", "a token of 2 million", "a token of 2 million, memory kept"]
    lines = [
        "",
        "",
        f"Measured on {result['machine']}.",
        "",
        "| method | 1 M tokens, s | " + " | ".join(columns) + " |",
    ]
    lines.append("|---" * (len(columns) + 2) + "|")
    for method, seconds in sorted(alone.items(), key=lambda item: -item[1]):
        cells = [_ratio(compared.get(method, {}).get(column)) for column in columns]
        lines.append(f"| `{method}` | {seconds:.3f} | " + " | ".join(cells) + " |")
    lines += ["", *_head("method", "1 M tokens, s", "against", "ratio")]
    for row in result["rows"]:
        if row["against"] and row["against"].startswith("verl"):
            lines.append(f"| {row['method']} | {row['seconds']:.4f} | {row['against']} | {row['ratio']:.2f} |")
    return "\n".join(lines) + "\n\n"


def ratios(name: str) -> str:
    """Rows of ratios, the geometric mean in front."""
    rows = read(name)
    middle = math.exp(statistics.fmean(math.log(row["ratio"]["median"]) for row in rows))
    head = f"Geometric mean **{middle:.2f}**, measured on {rows[0]['machine']}."
    extra = [column for column in ("ideal", "error", "peak") if any(row.get(column) is not None for row in rows)]
    lines = [
        "",
        "",
        head,
        "",
        "| case | ratio | " + "".join(f"{column} | " for column in extra),
        "|---" * (2 + len(extra)) + "|",
    ]
    for row in rows:
        ratio = row["ratio"]
        cells = ["" if row.get(column) is None else f"{row[column]:g}" for column in extra]
        spread = f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
        lines.append("| " + " | ".join([row["name"], spread, *cells]) + " |")
    return "\n".join(lines) + "\n\n"


def viewer_speed() -> str:
    """Seconds until pages are drawn, and how large a report is."""
    rows = read("viewer")
    lines = ["", "", f"Measured on {rows[0]['machine']}.", "", *_head("what", "seconds", "megabytes")]
    for row in rows:
        seconds = row["seconds"]
        spread = f"{seconds['median']:.2f} [{seconds['min']:.2f}, {seconds['max']:.2f}]"
        lines.append(f"| {row['name']} | {spread} | {row.get('megabytes', '')} |")
    return "\n".join(lines) + "\n\n"


def _head(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
