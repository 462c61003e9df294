"""Where rollouts come from: the store of a run, perhaps still growing, or a file. Only reads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from apportion.credit import Clock
from apportion.errors import InputError
from apportion.rollouts import Rollouts, RolloutStore
from apportion.rollouts.store import read
from apportion.viewer.folder import curves, read_lines, read_object

KEPT_TOKENS = 20_000_000
"""Tokens of parts kept in memory at most, and always the last part read."""

WHOLE = 0
"""The part number of a file, which has one part."""


class Source:
    """A run or a file of rollouts, in parts: a run's are its steps.

    Args:
        path: the folder of a run, or a file of rollouts.

    Attributes:
        path: as given.
        name: short, for people.
        is_run: it is the folder of a run.

    Raises:
        InputError: there is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.is_run = path, path.is_dir()
        self.name = path.resolve().name
        if not path.exists():
            raise InputError(f"{path} does not exist: give the folder of a run, or a file of rollouts.")
        if self.is_run and not (path / "config.json").is_file() and not (path / "rollouts").is_dir():
            raise InputError(
                f"{path} is not the folder of a run (it has neither config.json nor rollouts/): give the folder that "
                "apportion train wrote, or a file of rollouts."
            )
        self._store = RolloutStore(path / "rollouts")
        self._kept: OrderedDict[int, tuple[tuple[int, int], Rollouts]] = OrderedDict()
        self._lock = threading.Lock()

    def parts(self) -> list[int]:
        """The numbers of the parts that are there now, ascending."""
        return self._store.steps() if self.is_run else [WHOLE]

    def file(self, part: int) -> Path:
        """The file of a part."""
        return self._store.path(part) if self.is_run else self.path

    def stamp(self, part: int) -> tuple[int, int] | None:
        """What changes when a part is written anew, as a resumed run does; None where it is not there."""
        try:
            state = self.file(part).stat()
        except FileNotFoundError:
            return None
        return state.st_mtime_ns, state.st_size

    def read(self, part: int) -> Rollouts:
        """The rollouts of a part; those read last stay in memory.

        Raises:
            InputError: there is no such part, or its file is torn, of another version or of something else.
        """
        with self._lock:
            stamp = self.stamp(part)
            if part in self._kept and stamp is not None and self._kept[part][0] == stamp:
                self._kept.move_to_end(part)
                return self._kept[part][1]
            self._kept.pop(part, None)
            rollouts = self._read(part)
            if stamp is not None:
                self._kept[part] = stamp, rollouts
            while len(self._kept) > 1 and sum(kept.n_tokens for _, kept in self._kept.values()) > KEPT_TOKENS:
                self._kept.popitem(last=False)
            return rollouts

    def newest(self) -> tuple[int, Rollouts] | None:
        """The last part that can be read, and its rollouts; None where there is no part at all.

        Raises:
            InputError: no part can be read: what is wrong with the last.
        """
        wrong: InputError | None = None
        for part in reversed(self.parts()):
            try:
                return part, self.read(part)
            except InputError as error:
                wrong = wrong or error
        if wrong is not None:
            raise wrong
        return None

    def part_name(self, part: int) -> str:
        """A part in words."""
        return f"step {part}" if self.is_run else self.name

    def _read(self, part: int) -> Rollouts:
        try:
            if self.is_run:
                return self._store.read(part)
            if part != WHOLE:
                raise InputError(f"{self.path} is a file and has no step {part}.")
            return read(self.path)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.file(part)} is not UTF-8 ({error.reason}): write it again as UTF-8.") from None

    def config(self) -> dict[str, Any]:
        """The settings of the run; empty for a file."""
        return read_object(self.path / "config.json") if self.is_run else {}

    def clock(self, part: int) -> Clock | None:
        """Where in its run a part was sampled; None for a file."""
        if not self.is_run:
            return None
        total = self.config().get("steps")
        return Clock(part - 1, max(total, part) if isinstance(total, int) else part)

    def overview(self) -> dict[str, Any]:
        """Everything about the run but its rollouts, as JSON: settings, curves, evaluations, summary, complaints."""
        if not self.is_run:
            return {"config": {}, "environment": {}, "summary": {}, "curves": {}, "evaluations": [], "complaints": []}
        complaints: list[str] = []
        objects: dict[str, Any] = {}
        for name in ("config", "environment", "summary"):
            try:
                objects[name] = read_object(self.path / f"{name}.json")
            except InputError as error:
                objects[name] = {}
                complaints.append(str(error))
        metrics, torn = read_lines(self.path / "metrics.jsonl")
        evaluations, torn_too = read_lines(self.path / "evaluations.jsonl")
        return {
            **objects,
            "curves": curves(metrics),
            "evaluations": [{k: v for k, v in line.items() if k != "scores"} for line in evaluations],
            "complaints": [*complaints, *torn, *torn_too],
        }
