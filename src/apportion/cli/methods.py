"""List what there is to choose from."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apportion import credit, objectives, registry
from apportion.annotations import ANNOTATORS
from apportion.cli.arguments import parse
from apportion.credit import Stage
from apportion.errors import InputError, unknown_name
from apportion.objectives import Objective
from apportion.rollouts.columns import qualify
from apportion.training.learners import LEARNERS


@dataclass(frozen=True)
class Arguments:
    """List credit methods and objectives with what they need and where they come from: apportion methods [NAME ...];
    a name may be package.module:name."""

    json: bool = False
    """Print JSON."""
    markdown: bool = False
    """Print the tables of docs/methods.md."""
    example: bool = False
    """Show one small group under every credit method, or under those named, with what they need planted."""


def main(argv: Sequence[str]) -> int:
    """``apportion methods``"""
    named = [word for word in argv if not word.startswith("-")]
    arguments = parse(Arguments, [word for word in argv if word.startswith("-")], "apportion methods")
    if arguments.example:
        if arguments.markdown:
            raise InputError("--example shows a group and --markdown prints tables: give one of them.")
        from apportion.cli.example import show_example

        show_example(named, arguments.json)
        return 0
    rows = [row for spec in named for row in _named(spec)] if named else _registered()
    if arguments.json:
        print(json.dumps(rows, indent=1))
    elif arguments.markdown:
        print("\n".join(markdown(rows)))
    else:
        for kind, title in (("credit", "credit methods"), ("objective", "objectives")):
            listed = [row for row in rows if row["kind"] == kind]
            if listed:
                print(title)
            for row in listed:
                print(f"  {row['name']:<17} {row['summary']}")
                print(f"  {'':18}{row['signature']}" + (f"; {row['source']}" if row["source"] else ""))
    return 0


def _registered() -> list[dict[str, Any]]:
    rows = [describe("credit", name, builder) for name, builder in credit.METHODS.items()]
    return rows + [describe("objective", name, builder) for name, builder in objectives.OBJECTIVES.items()]


def _named(spec: str) -> list[dict[str, Any]]:
    """What a spec names: of a registered name perhaps both a credit method and an objective.

    Raises:
        InputError: nothing of that name, or something that makes neither.
    """
    name = registry.parse(spec).name
    of_kind: dict[str, Mapping[str, Callable[..., Any]]] = {
        "credit": credit.METHODS,
        "objective": objectives.OBJECTIVES,
    }
    if ":" not in name:
        found = [kind for kind, known in of_kind.items() if name in known]
        if not found:
            raise unknown_name("method", name, {n for known in of_kind.values() for n in known})
        return [describe(kind, name, of_kind[kind][name], registry.build(spec, of_kind[kind], kind)) for kind in found]
    builder, made = registry.lookup(name, {}, "method"), registry.build(spec, {}, "method")
    if not isinstance(made, Stage | Objective):
        raise InputError(
            f"{spec!r} made a {type(made).__name__}, expected the credit.Stage of a credit method or an "
            "objectives.Objective."
        )
    return [describe("credit" if isinstance(made, Stage) else "objective", name, builder, made)]


def describe(kind: str, name: str, builder: Callable[..., Any], made: Any = None) -> dict[str, Any]:
    """What a method is, from its docstring, its signature and an instance, by default with default arguments."""
    text = inspect.getdoc(builder) or ""
    source = next((line.removeprefix("Source:").strip() for line in text.split("\n") if line.startswith("Source:")), "")
    parameters = inspect.signature(builder).parameters.values()
    arguments = ", ".join(f"{p.name}={p.default!r}" if p.default is not p.empty else p.name for p in parameters)
    made = builder() if made is None else made
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
    for makers_of in (LEARNERS, ANNOTATORS):
        for name, builder in makers_of.items():
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
        cells = [_link(row), row["summary"], _names(row["needs"]), _names(row["makers"]), row["bias"]]
        lines.append(_row([*cells, row["lines"], row["source"]]))
    lines += ["", "## Objectives", ""]
    lines += [
        "| name | what | scope | of the policy | needs | made by | lines | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (r for r in rows if r["kind"] == "objective"):
        cells = [_link(row), row["summary"], row["scope"], _names(row["now"]), _names(row["needs"])]
        lines.append(_row([*cells, _names(row["makers"]), row["lines"], row["source"]]))
    lines += [
        "",
        "*needs*: columns read; *made by*: learners and annotators that make some of them, the rest comes from "
        "sampling, verifiers, the trainer or a file. *lines*: code of the method's own functions and classes, without "
        "docstrings and blank lines.",
    ]
    return lines


def _link(row: Mapping[str, Any]) -> str:
    return f"[`{row['name']}`](methods/{row['kind']}/{row['name']}.md)"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
