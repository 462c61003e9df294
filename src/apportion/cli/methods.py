"""List what there is to choose from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from apportion import credit, objectives
from apportion.cli.arguments import parse


@dataclass(frozen=True)
class Arguments:
    """List credit methods and objectives with their sources."""

    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str]) -> int:
    """``apportion methods``"""
    arguments = parse(Arguments, argv, "apportion methods")
    rows = [describe("credit", name, builder) for name, builder in credit.METHODS.items()]
    rows += [describe("objective", name, builder) for name, builder in objectives.OBJECTIVES.items()]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    for kind, title in (("credit", "credit methods"), ("objective", "objectives")):
        print(title)
        for row in (r for r in rows if r["kind"] == kind):
            print(f"  {row['name']:16}{row['summary']}")
            print(f"  {'':16}{row['signature']}" + (f"; {row['source']}" if row["source"] else ""))
    return 0


def describe(kind: str, name: str, builder: Callable[..., Any]) -> dict[str, str]:
    """Name, first sentence, arguments and source of a method, from its docstring and signature."""
    text = inspect.getdoc(builder) or ""
    source = next((line.removeprefix("Source:").strip() for line in text.split("\n") if line.startswith("Source:")), "")
    parameters = inspect.signature(builder).parameters.values()
    arguments = ", ".join(f"{p.name}={p.default!r}" if p.default is not p.empty else p.name for p in parameters)
    summary = text.split("\n\n")[0].replace("\n", " ")
    return {"kind": kind, "name": name, "summary": summary, "signature": f"{name}({arguments})", "source": source}
