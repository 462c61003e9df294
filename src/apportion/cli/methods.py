"""List what there is to choose from."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from apportion import credit, objectives
from apportion.annotations import ANNOTATORS
from apportion.cli.arguments import parse
from apportion.credit import Stage
from apportion.objectives import Objective
from apportion.rollouts.columns import qualify
from apportion.training.learners import LEARNERS


@dataclass(frozen=True)
class Arguments:
    """List credit methods and objectives with what they need and where they come from."""

    json: bool = False
    """Print JSON."""
    markdown: bool = False
    """Print the tables of docs/methods.md."""


def main(argv: Sequence[str]) -> int:
    """``apportion methods``"""
    arguments = parse(Arguments, argv, "apportion methods")
    rows = [describe("credit", name, builder) for name, builder in credit.METHODS.items()]
    rows += [describe("objective", name, builder) for name, builder in objectives.OBJECTIVES.items()]
    if arguments.json:
        print(json.dumps(rows, indent=1))
    elif arguments.markdown:
        print("\n".join(markdown(rows)))
    else:
        for kind, title in (("credit", "credit methods"), ("objective", "objectives")):
            print(title)
            for row in (r for r in rows if r["kind"] == kind):
                print(f"  {row['name']:18}{row['summary']}")
                print(f"  {'':18}{row['signature']}" + (f"; {row['source']}" if row["source"] else ""))
    return 0


def describe(kind: str, name: str, builder: Callable[..., Any]) -> dict[str, Any]:
    """What a method is, from its docstring, its signature and an instance with default arguments."""
    text = inspect.getdoc(builder) or ""
    source = next((line.removeprefix("Source:").strip() for line in text.split("\n") if line.startswith("Source:")), "")
    parameters = inspect.signature(builder).parameters.values()
    arguments = ", ".join(f"{p.name}={p.default!r}" if p.default is not p.empty else p.name for p in parameters)
    made = builder()
    return {
        "kind": kind,
        "name": name,
        "summary": text.split("\n\n")[0].replace("\n", " "),
        "signature": f"{name}({arguments})",
        "source": source,
        "needs": [n for n in made.needs if n != "credit/advantages"],
        "makers": _makers(made.needs),
        "lines": _own_lines(builder),
        **(_of_stage(made) if kind == "credit" else _of_objective(made)),
    }


def _of_stage(stage: Stage) -> dict[str, Any]:
    return {"bias": str(stage.bias), "covers": list(stage.covers)}


def _of_objective(objective: Objective) -> dict[str, Any]:
    return {"scope": objective.scope, "now": [*objective.now, *objective.watches]}


def _makers(needs: Sequence[str]) -> list[str]:
    """Learners and annotators that make something a method needs."""
    wanted = {name if name.startswith("reward/") else qualify(name) for name in needs}
    makers = []
    for registry in (LEARNERS, ANNOTATORS):
        for name, builder in registry.items():
            if wanted & {n if n.startswith("reward/") else qualify(n) for n in builder().makes}:
                makers.append(name)
    return makers


def _own_lines(builder: Callable[..., Any]) -> int:
    """Lines of code of a builder and of what it uses of its module, without docstrings and blanks."""
    module = ast.parse(inspect.getsource(sys.modules[builder.__module__]))
    functions = {n.name: n for n in module.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    used, waiting = set(), [builder.__name__]
    while waiting:
        name = waiting.pop()
        if name in functions and name not in used:
            used.add(name)
            waiting += [node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)]
    return sum(len(_without_docstrings(functions[name]).split("\n")) for name in used)


def _without_docstrings(function: ast.FunctionDef | ast.ClassDef) -> str:
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(function)


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The tables of docs/methods.md."""
    lines = ["# Methods", "", "Made by `apportion methods --markdown`; a test compares.", "", "## Credit", ""]
    lines += ["| name | what | needs | made by | bias claim | lines | source |", "|---|---|---|---|---|---|---|"]
    for row in (r for r in rows if r["kind"] == "credit"):
        cells = [f"`{row['name']}`", row["summary"], _names(row["needs"]), _names(row["makers"]), row["bias"]]
        lines.append(_row([*cells, row["lines"], row["source"]]))
    lines += ["", "## Objectives", ""]
    lines += [
        "| name | what | scope | of the policy | needs | made by | lines | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (r for r in rows if r["kind"] == "objective"):
        cells = [f"`{row['name']}`", row["summary"], row["scope"], _names(row["now"]), _names(row["needs"])]
        lines.append(_row([*cells, _names(row["makers"]), row["lines"], row["source"]]))
    lines += [
        "",
        "*needs*: columns read; *made by*: learners and annotators that make some of them, the rest comes from "
        "sampling, verifiers, the trainer or a file. *lines*: code of the method's own functions and classes, without "
        "docstrings and blank lines.",
    ]
    return lines


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
