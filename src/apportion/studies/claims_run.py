"""Measure claims on as many seeds as a verdict takes, in several processes, and go on where a run was killed.

A folder keeps what was measured: ``measured.jsonl`` has a line a claim and seed, written as soon as it is known. A
claim is measured anew when its file, or what that takes from ``apportion.studies``, has changed.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from apportion.errors import InputError
from apportion.studies.claim import INCONCLUSIVE, LOOKS, REPRODUCED, Judged, judge
from apportion.studies.claims_entries import Entry
from apportion.studies.claims_processes import Processes
from apportion.studies.machine import commit

AGAIN = 1000
"""How far behind the first seeds those lie on which a claim is measured again."""

FILE = "measured.jsonl"


@dataclass(frozen=True)
class Measured:
    """What a claim's measure gave on a seed.

    Attributes:
        claim: key of the claim.
        seed: which.
        source: digest of the claim's file, see :class:`~apportion.studies.claims_entries.Entry`.
        commit: of the code that measured.
        figures: by name; ``effect`` decides.
        cpu_seconds: that it took.
    """

    claim: str
    seed: int
    source: str
    commit: str
    figures: Mapping[str, float]
    cpu_seconds: float


class Folder:
    """What was measured, kept in a file that only grows.

    Args:
        path: the folder; made if it is absent.

    Raises:
        InputError: it cannot be made, or a line of the file in it is none of ours.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path} ({error.strerror}): choose another for claims.") from None
        self.file = path / FILE
        self._known = {(m.claim, m.source, m.seed): m for m in self._read()}

    def _read(self) -> Iterator[Measured]:
        text = self.file.read_bytes() if self.file.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):  # a kill tore the last line: what follows must not be glued to it
            os.truncate(self.file, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                yield Measured(**json.loads(line))
            except (ValueError, TypeError):
                raise InputError(
                    f"{self.file}:{number} is not a measurement of a claim: restore the file, or choose another folder."
                ) from None

    def get(self, entry: Entry, seed: int) -> Measured | None:
        """What is known of a claim as it stands in its file."""
        return self._known.get((entry.claim.key, entry.source, seed))

    def add(self, measured: Measured) -> None:
        """Keep a measurement: one write, so that another run on the same folder cannot come between."""
        line = json.dumps(asdict(measured), allow_nan=False) + "\n"
        handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        self._known[measured.claim, measured.source, measured.seed] = measured


@dataclass(eq=False)
class Result:
    """A claim on one range of seeds.

    Attributes:
        entry: the claim.
        first: the first seed.
        measured: on the seeds from there, in order.
        judged: the last verdict on these seeds; None before the first look, or where a seed failed.
        failed: why a seed could not be measured.
        again: the same claim on other seeds.
    """

    entry: Entry
    first: int
    measured: list[Measured] = field(default_factory=list)
    judged: Judged | None = None
    failed: str = ""
    again: Result | None = None

    @property
    def verdict(self) -> str | None:
        return None if self.judged is None else self.judged.verdict

    @property
    def standing(self) -> str | None:
        """The verdict that both ranges of seeds bear out: what only the first ones reproduce is inconclusive."""
        return self.verdict if self.again is None or self.again.verdict == self.verdict else INCONCLUSIVE

    @property
    def due(self) -> range:
        """Seeds up to the next look; none once there is a verdict or a seed has failed."""
        if self.failed or self.verdict is not None:
            return range(0)
        return range(self.first, self.first + (LOOKS[0] if self.judged is None else _look_after(self.judged.seeds)))

    def look(self, folder: Folder) -> None:
        """Judge what is measured, if it is all that is due."""
        found = [folder.get(self.entry, seed) for seed in self.due]
        while found and all(found) and not self.failed:
            self.measured = [measured for measured in found if measured is not None]
            if any(m.figures.keys() != self.measured[0].figures.keys() for m in self.measured):
                self.failed = "its figures have other names on other seeds"
                return
            effects = [m.figures["effect"] for m in self.measured]
            if len(set(effects)) == 1:
                self.failed = f"its effect is {effects[0]:g} on every seed, so that it measures nothing of chance"
                return
            self.judged = judge(effects, self.entry.claim.smallest)
            found = [folder.get(self.entry, seed) for seed in self.due]


def _look_after(seeds: int) -> int:
    return next(look for look in LOOKS if look > seeds)


Progress = Callable[[str, int, int], None]
"""Told which claim was measured, how many seeds are done and how many are due so far."""


def run(
    chosen: Sequence[Entry],
    folder: Folder,
    processes: int = 1,
    offset: int = 0,
    again: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """Measure claims until each has a verdict.

    Args:
        chosen: the claims.
        folder: where measurements are kept, and taken from.
        processes: how many measure at a time.
        offset: the first seed.
        again: measure every reproduced claim on other seeds too, from ``offset`` + :data:`AGAIN`.
        progress: told of every measurement.

    Returns:
        a result a claim, in order. One whose measure raised has no verdict, and says why.

    Raises:
        InputError: a number that cannot be used.
        RunStopped: a measuring process has died.
    """
    if processes < 1 or offset < 0:
        raise InputError(f"processes is {processes} and the first seed {offset}, expected at least 1 and 0.")
    results = [Result(entry, offset) for entry in chosen]
    waiting: deque[tuple[Result, int]] = deque()
    total = done = 0

    def enqueue(result: Result) -> None:
        """Whatever is due now and not known, of the claim or of its repeat on other seeds."""
        nonlocal total
        result.look(folder)
        if again and result.verdict == REPRODUCED and result.first == offset and result.again is None:
            result.again = Result(result.entry, offset + AGAIN)
            enqueue(result.again)
        seeds = [seed for seed in result.due if folder.get(result.entry, seed) is None]
        waiting.extend((result, seed) for seed in seeds)
        total += len(seeds)

    for result in results:
        enqueue(result)
    if not waiting:
        return results
    made_by = commit()
    with Processes[Result](min(processes, len(waiting))) as pool:
        while True:
            while waiting and pool.idle:
                result, seed = waiting.popleft()
                if result.failed:
                    total -= 1
                else:
                    pool.begin(result, result.entry, seed)
            if not pool.busy:
                return results
            for result, seed, outcome in pool.ended():
                done += 1
                if isinstance(outcome, str):
                    result.failed = result.failed or f"seed {seed}: {outcome}"
                else:
                    figures, seconds = outcome
                    folder.add(Measured(result.entry.claim.key, seed, result.entry.source, made_by, figures, seconds))
                if progress is not None:
                    progress(result.entry.claim.key, done, total)
                before = result.due
                if all(folder.get(result.entry, s) for s in before):
                    enqueue(result)
