"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from apportion import rewards
from apportion.evals import pass_at_k

NAMES = [module.name for module in pkgutil.walk_packages(rewards.__path__, "apportion.rewards.") if not module.ispkg]


@pytest.mark.parametrize("name", [*NAMES, pass_at_k.__name__])
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.failed == 0
