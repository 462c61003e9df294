"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from apportion.errors import InputError, RunStopped

LEFTOVER = ".tmp"
"""How the name of a file ends while it is being written; it begins with a dot."""


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to that appears under its name only when it is complete and on disk.

    Whatever happens before that, a file that stood there stays as it was. A process killed in between leaves a
    temporary file beside it, which readers ignore.

    Raises:
        InputError: the folder does not exist or cannot be written to.
        RunStopped: the disk is full or broken; nothing is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_aside(Path(folder) / "a.txt") as file:
        ...         _ = file.write(b"whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{LEFTOVER}")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        _forget(aside)
        raise InputError(
            f"cannot write {path} ({error.strerror}), expected a file in an existing folder that may be written to: "
            "make the folder or choose another."
        ) from error
    except OSError as error:
        _forget(aside)
        raise RunStopped(
            f"writing {path} failed ({error.strerror or error}), nothing was left of it and files already there are "
            "untouched: make room on the disk and go on."
        ) from error
    except BaseException:
        _forget(aside)
        raise


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; only POSIX systems let a folder be opened for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse this; the file is complete under its name all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
