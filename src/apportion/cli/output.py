"""A file that a verb is about to write, checked before the work that fills it."""

from __future__ import annotations

import os
from pathlib import Path

from apportion.errors import InputError
from apportion.rollouts.store import ARROW_ENDINGS, JSONL_ENDINGS


def check_new_file(path: Path) -> None:
    """Refuse a file of rollouts that could not be written.

    Raises:
        InputError: it exists, its name ends in no known format, or its folder is absent or may not be written to.
    """
    if path.exists():
        raise InputError(f"{path} exists already: choose another file.")
    endings = (*JSONL_ENDINGS, *ARROW_ENDINGS)
    if path.suffix.lower() not in endings:
        raise InputError(
            f"{path} ends in {path.suffix or 'nothing'!r}, expected one of {', '.join(endings)}: rename it."
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: {path.parent} is not a folder that may be written to; choose another.")
