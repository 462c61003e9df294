"""Examples in docstrings run, and whatever credit and objectives export is documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import apportion
from apportion import credit, objectives

ROOT = Path(apportion.__file__).parent
WITH_EXAMPLES = [
    ".".join(("apportion", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
CORE = ("apportion.credit.", "apportion.objectives.", "apportion.rollouts.", "apportion.registry", "apportion.errors")


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.startswith(CORE) or (error.name or "").startswith("apportion"):
            raise
        pytest.skip(f"not installed: {error.name}")
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests, f"{name} has '>>>' outside of any docstring that is looked at"
    for test in tests:
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
        assert result.failed == 0, f"{test.name}: see the captured output"


def exported(module: ModuleType) -> dict[str, object]:
    """Public functions and classes of a package, those it registers included."""
    found = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    found |= getattr(module, "METHODS", {}) | getattr(module, "OBJECTIVES", {})
    own = f"{module.__name__}."
    return {
        name: value
        for name, value in found.items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and f"{value.__module__}.".startswith(own)
    }


@pytest.mark.parametrize("module", [credit, objectives], ids=["credit", "objectives"])
def test_everything_exported_is_documented(module: ModuleType) -> None:
    public = exported(module)
    assert {"credit": "grpo", "objectives": "clip"}[module.__name__.rpartition(".")[2]] in public
    bare = [name for name, value in public.items() if not (value.__doc__ or "").strip()]
    assert not bare, f"without a docstring: {', '.join(bare)}"
    written_by_dataclass = [n for n, v in public.items() if (v.__doc__ or "").startswith(f"{n}(")]
    assert not written_by_dataclass, f"without a docstring: {', '.join(written_by_dataclass)}"


@pytest.mark.parametrize("registered", [credit.METHODS, objectives.OBJECTIVES], ids=["credit", "objectives"])
def test_every_argument_of_what_is_registered_is_documented(registered: dict[str, object]) -> None:
    for name, builder in registered.items():
        assert callable(builder)
        text = inspect.getdoc(builder) or ""
        for parameter in inspect.signature(builder).parameters:
            assert f"    {parameter}: " in text, f"{name} does not say what {parameter!r} is"
