"""The rollouts of a run on disk, one immutable file a step, and one door to files of either format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from apportion.errors import InputError
from apportion.rollouts.arrow import read_arrow, stream_arrow, write_arrow
from apportion.rollouts.files import LEFTOVER
from apportion.rollouts.interchange import read_jsonl, stream_jsonl, write_jsonl
from apportion.rollouts.model import Rollouts
from apportion.rollouts.records import Reader
from apportion.rollouts.survey import survey

JSONL_ENDINGS = (".jsonl", ".ndjson", ".json")
ARROW_ENDINGS = (".arrow",)
STEP_FILE = re.compile(r"step_(\d{6,})\.arrow")


class RolloutStore:
    """A folder with the rollouts of every step, ``step_000012.arrow`` and so on.

    A file is written aside and renamed, so what is there is whole; a killed process leaves at most a temporary file,
    which is ignored, and removed by :meth:`drop_after`. Iterating gives ``(step, rollouts)`` in order of step, one in
    memory at a time.

    Args:
        folder: where the files are; made at the first write.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = RolloutStore(folder)
        ...     store.write(0, Rollouts.from_lists([[5, 6]], groups=[0]))
        ...     store.write(1, Rollouts.from_lists([[7]], groups=[0]))
        ...     store.drop_after(0)
        ...     store.steps(), [rollouts.n_tokens for step, rollouts in store]
        ([0], [2])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def __iter__(self) -> Iterator[tuple[int, Rollouts]]:
        for step in self.steps():
            yield step, self.read(step)

    def path(self, step: int) -> Path:
        """The file of a step, whether it is there or not."""
        return self.folder / f"step_{step:06d}.arrow"

    def steps(self) -> list[int]:
        """The steps that are there, ascending; none where the folder is missing."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := STEP_FILE.fullmatch(name)))

    def write(self, step: int, rollouts: Rollouts) -> None:
        """Keep the rollouts of a step.

        Raises:
            InputError: the step is there already or negative, or as :func:`write_arrow`.
            RunStopped: the disk is full; nothing is left behind.
        """
        if step < 0:
            raise InputError(f"step is {step}, expected 0 or more.")
        if self.path(step).exists():
            raise InputError(
                f"{self.path(step)} is there already, expected a new step: a store is not overwritten, so drop the "
                f"steps after {step - 1} first, or choose another folder."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {self.folder} ({error.strerror}), expected a place that may be written to: "
                "choose another."
            ) from error
        write_arrow(rollouts, self.path(step))

    def read(self, step: int) -> Rollouts:
        """The rollouts of a step.

        Raises:
            InputError: there are none, or as :func:`read_arrow`.
        """
        if not self.path(step).exists():
            steps = self.steps()
            held = f"steps {steps[0]} to {steps[-1]}" if steps else "no steps"
            raise InputError(f"{self.folder} has no rollouts of step {step}, expected one it holds: {held}.")
        return read_arrow(self.path(step))

    def drop_after(self, step: int) -> None:
        """Remove what was kept after a step, to go on from there; -1 removes everything.

        The last goes first, so that a crash on the way leaves no gap.
        """
        for later in reversed(self.steps()):
            if later > step:
                self.path(later).unlink()
        for path in self.folder.glob(f".step_*{LEFTOVER}"):
            path.unlink()


def read(path: str | os.PathLike[str]) -> Rollouts:
    """Read rollouts from a file, by the ending of its name: ``.jsonl`` (``.ndjson``, ``.json``) or ``.arrow``.

    Raises:
        InputError: another ending, no such file, or as :func:`read_jsonl` and :func:`read_arrow`.
    """
    return read_jsonl(path) if _is_jsonl(path) else read_arrow(path)


def stream(path: str | os.PathLike[str]) -> Iterator[Rollouts]:
    """Read a file group by group, by the ending of its name as :func:`read`.

    Raises:
        InputError: as :func:`read`, and as :func:`stream_jsonl` and :func:`stream_arrow` on the way.
    """
    return stream_jsonl(path) if _is_jsonl(path) else stream_arrow(path)


def groups_of(path: str | os.PathLike[str], keep_order: bool = False) -> Iterator[Rollouts]:
    """Read a file group by group wherever the records of a group stand, holding one group in memory.

    Groups come in the order in which they begin. A JSONL file is looked through once before; every group then has the
    columns that any record of the file mentions, and pairs and declarations may stand anywhere.

    Args:
        path: the file.
        keep_order: give a file whose groups do not stand together as one part, in its order.

    Raises:
        InputError: as :func:`read`, some of it on the way.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/mixed.jsonl"
        ...     write(Rollouts.from_lists([[5, 6], [7], [8]], groups=[3, 1, 3]), path)
        ...     gathered = [part.ids.tolist() for part in groups_of(path)]
        ...     in_order = [part.ids.tolist() for part in groups_of(path, keep_order=True)]
        >>> gathered, in_order
        ([[5, 6, 8], [7]], [[5, 6, 7, 8]])
    """
    if not _is_jsonl(path):
        return stream_arrow(path, keep_order)
    found = survey(path)
    if keep_order and not found.together:
        return iter([read_jsonl(path)])
    return Reader(path, found).parts(by_group=True)


def write(rollouts: Rollouts, path: str | os.PathLike[str]) -> None:
    """Write rollouts to a file, by the ending of its name as :func:`read`.

    Raises:
        InputError: another ending, or as :func:`write_jsonl` and :func:`write_arrow`.
    """
    if _ending(path) in JSONL_ENDINGS:
        write_jsonl(rollouts, path)
    else:
        write_arrow(rollouts, path)


def _ending(path: str | os.PathLike[str]) -> str:
    ending = Path(path).suffix.lower()
    if ending not in (*JSONL_ENDINGS, *ARROW_ENDINGS):
        known = ", ".join((*JSONL_ENDINGS, *ARROW_ENDINGS))
        raise InputError(f"{path} ends in {ending or 'nothing'!r}, expected one of {known}: rename or convert it.")
    return ending


def _is_jsonl(path: str | os.PathLike[str]) -> bool:
    """Whether a file that is there is JSONL; else it is Arrow."""
    path = Path(path)
    ending = _ending(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file that exists, expected a file of rollouts: check the path.")
    return ending in JSONL_ENDINGS
