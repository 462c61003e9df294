"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from apportion import rollouts


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(rollouts.__path__)])
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"apportion.rollouts.{name}"), verbose=False)
    assert result.failed == 0
