"""One module a golden file, named by its slug.

Each has ``run(*, <inputs and params of the file>) -> dict`` with at least the names of ``expected``. It builds a
``Rollouts`` and calls the registered entry that the trainer calls. A misspelt or unread argument is a TypeError.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

SLUGS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def adapter(slug: str) -> Callable[..., dict[str, Any]]:
    """The function that computes what the cases of a file expect."""
    return importlib.import_module(f"golden.adapters.{slug}").run
