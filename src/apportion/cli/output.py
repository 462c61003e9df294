"""What verbs write: files checked before the work that fills them, and lines that are safe to show."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

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


def shown(text: str, encoding: str | None = None) -> str:
    """Text of models and files as a terminal may show it: what moves the cursor or cannot be written is escaped.

    Args:
        text: any.
        encoding: of the output; None: of standard output.

    Example:
        >>> shown("7\\x1b[2J\\n+ é", "ascii")
        '7\\\\x1b[2J\\\\n+ \\\\xe9'
    """
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def print_table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, its first column to the left and the others to the right; plain columns where there is no terminal."""
    if console.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for i, title in enumerate(head):
            table.add_column(Text(title), justify="right" if i else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
