"""Folders import only from folders above them in the data flow; the light parts stay light."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import apportion
from apportion.training.config import TrainConfig

ROOT = Path(apportion.__file__).parent
FLOW = [
    "errors",
    "registry",
    "rollouts",
    "tasks",
    "environments",
    "models",
    "sampling",
    "rewards",
    "annotations",
    "credit",
    "objectives",
    "curricula",
    "evals",
    "training",
    "studies",
    "viewer",
    "adapters",
    "recipes",
    "cli",
    "__main__",
]
LIGHT = {"credit", "objectives"}
MAY_IMPORT_FROM_LIGHT = {"errors", "registry", "rollouts", "credit", "objectives"}
MODULES = sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Parts of this package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "apportion" else [f"apportion.{a.name}" for a in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("apportion.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert not imports(path)
        return
    assert part in FLOW, f"{part} has no place in the flow"
    for other in imports(path):
        assert FLOW.index(other) <= FLOW.index(part), f"{path.relative_to(ROOT)} imports {other}, which comes after it"
    if part in LIGHT:
        assert imports(path) <= MAY_IMPORT_FROM_LIGHT


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_of_one_idea_and_say_which(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    assert (path.name == "__init__.py" and not text.strip()) or ast.get_docstring(ast.parse(text))


def test_credit_and_objectives_load_nothing_heavy() -> None:
    code = (
        "import sys, apportion.credit, apportion.objectives; "
        "heavy = {'transformers', 'tokenizers', 'pyarrow', 'pandas', 'tyro', 'rich', 'peft', 'reasoning_gym'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_setting_has_a_reader() -> None:
    attributes = {
        node.attr
        for path in MODULES
        if path.name != "config.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert {f.name for f in dataclasses.fields(TrainConfig)} <= attributes


def test_no_module_branches_on_the_name_of_a_method() -> None:
    from apportion.credit import METHODS
    from apportion.objectives import OBJECTIVES

    names = set(METHODS) | set(OBJECTIVES)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                looked_up = {
                    id(c) for part in ast.walk(node) if isinstance(part, ast.Subscript) for c in ast.walk(part)
                }
                constants = {
                    c.value
                    for c in ast.walk(node)
                    if isinstance(c, ast.Constant) and isinstance(c.value, str) and id(c) not in looked_up
                }
                assert not constants & names, (
                    f"{path.relative_to(ROOT)}:{node.lineno} compares with {constants & names}"
                )
