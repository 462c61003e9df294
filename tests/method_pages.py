"""A page a method, made from its docstring, the provenance of its vectors and the run that trains it.

python tests/test_docs.py --write      writes them to docs/methods/
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from apportion.cli.methods import describe
from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES
from apportion.recipes.methods import LEARNED, addition, command

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/methods"
VECTORS = ROOT / "tests/golden/vectors"

VECTORS_OF = {
    "dr_grpo": "grpo",
    "reinforce_pp_baseline": "reinforce_pp",
    "dapo": "dapo_shaping",
    "clip": "dapo_loss",
    "segment_clip": "loop",
    "value": "value_loss",
    "dpo": "token_dpo",
    "mm_dpo": "mm_rlhf",
    "reward_model": "mm_rlhf",
    "divergence": "dph_rl",
    "implicit_prm": "oprl",
    "b_coder_value": "b_coder",
    "return_decomposition": "lare",
}
"""Methods whose vectors lie in a file of another name."""
SECTION = re.compile(r"^(Args|Raises|Example|Attributes|Returns):$")


def pages() -> Iterator[tuple[Path, str]]:
    """Every page with its text."""
    for kind, registered in (("credit", METHODS), ("objective", OBJECTIVES)):
        for name, builder in registered.items():
            yield FOLDER / kind / f"{name}.md", page(kind, name, builder)


def page(kind: str, name: str, builder: Callable[..., Any]) -> str:
    """The page of one method."""
    row = describe(kind, name, builder)
    title = "Credit method" if kind == "credit" else "Objective"
    lines = [f"# {title} `{name}`", "", f"`{row['signature']}`", ""]
    lines += [*_body(inspect.getdoc(builder) or ""), "", "## What it reads and claims", ""]
    if kind == "credit":
        lines.append(f"- expected gradient: {row['bias']}")
    else:
        lines.append(f"- an optimiser step may not split: {row['scope']}")
        lines.append(f"- of the policy: {_names(row['now']) or 'nothing'}")
    lines.append(f"- columns: {_names(row['needs']) or 'none'}")
    if row["makers"]:
        lines.append(f"- made by: {_names(row['makers'])}")
    lines += ["", "## Train the quickstart with it", ""]
    if kind == "objective" and name in LEARNED:
        lines += ["A model beside the policy minimises it, in this run:", ""]
    if before := addition(kind, name).before:
        lines += ["First, after a quickstart in `runs/quickstart`:", "", f"    {before}", "", "Then:", ""]
    lines += [f"    {command(kind, name)}", ""]
    lines += ["## What it was checked against", "", *_provenance(name), ""]
    return "\n".join([*lines, "Made by `python tests/test_docs.py --write`.", ""])


def _body(text: str) -> Iterator[str]:
    """A docstring as Markdown: sections become lists, indented equations stay as they are."""
    section = None
    for line in text.split("\n"):
        heading = SECTION.match(line)
        if heading:
            section = heading[1]
            yield f"**{section}**"
            yield ""
        elif section and line.startswith("    ") and section != "Example":
            argument = re.match(r"^    (\w[\w ,*]*): (.*)$", line)
            yield _code(f"- `{argument[1]}`: {argument[2]}" if argument else f"  {line.strip()}")
        else:
            section = section if not line or line.startswith("    ") else None
            yield line if line.startswith("    ") else _code(line)


def _code(line: str) -> str:
    """Marks of the docstring as marks of Markdown."""
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", line).replace("``", "`")


def _provenance(name: str) -> Iterator[str]:
    file = VECTORS / f"{VECTORS_OF.get(name, name)}.json"
    if file.exists():
        vectors = json.loads(file.read_text(encoding="utf-8"))
        cases = len(vectors["cases"])
        yield f"- {cases} golden cases in `tests/golden/vectors/{file.name}`: {' '.join(vectors['source'].split())}"
    yield "- the [common suite](../../../CONTRIBUTING.md#set-up-run-check) of every method, a naive loop among it"


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
