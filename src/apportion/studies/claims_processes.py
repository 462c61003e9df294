"""Processes that measure claims.

They end when the process that asks them does, however it ends.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

import torch

from apportion.errors import RunStopped
from apportion.studies.claim import Claim
from apportion.studies.claims_entries import Entry, entries_of

Asker = TypeVar("Asker")

Outcome = str | tuple[dict[str, float], float]
"""Figures and CPU seconds, or what went wrong."""


class Processes(Generic[Asker]):
    """Some processes, each of which measures one claim on one seed at a time.

    Args:
        count: how many.

    Attributes:
        idle: those that may be asked.
        busy: those that measure, with what they were asked for.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
        self.idle: list[tuple[Connection, BaseProcess]] = []
        self.busy: dict[Connection, tuple[BaseProcess, Asker, str, int]] = {}
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_measure_what_comes, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.idle.append((ours, process))

    def __enter__(self) -> Processes[Asker]:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in [*(process for _, process in self.idle), *(process for process, *_ in self.busy.values())]:
            process.terminate()
            process.join()

    def begin(self, asker: Asker, entry: Entry, seed: int) -> None:
        """Ask an idle process.

        Args:
            asker: to be given back with the outcome.
            entry: the claim.
            seed: to measure it on.
        """
        connection, process = self.idle.pop()
        self.busy[connection] = process, asker, entry.claim.key, seed
        connection.send((entry.module, entry.claim.key, entry.source, seed))

    def ended(self) -> Iterator[tuple[Asker, int, Outcome]]:
        """Wait for at least one measurement; who asked, the seed, and what came out.

        Raises:
            RunStopped: the process has died.
        """
        for ready in wait(list(self.busy)):
            assert isinstance(ready, Connection)
            process, asker, key, seed = self.busy.pop(ready)
            try:
                outcome: Outcome = ready.recv()
            except EOFError:
                process.join()
                raise RunStopped(
                    f"the process that measured {key!r} on seed {seed} ended with "
                    f"{process.exitcode}: what was measured is kept, so run the command again, with fewer processes if "
                    "memory was short."
                ) from None
            self.idle.append((ready, process))
            yield asker, seed, outcome


def _measure_what_comes(connection: Connection) -> None:
    """What a process does: measure until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of them; the one that asks ends the others
    torch.set_num_threads(1)
    known: dict[str, Entry] = {}
    while True:
        try:
            module, key, source, seed = connection.recv()
            if key not in known:
                known |= {entry.claim.key: entry for entry in entries_of(module)}
            changed = key not in known or known[key].source != source
            outcome = "its file has changed meanwhile: run it again" if changed else measure(known[key].claim, seed)
            connection.send(outcome)
        except (EOFError, ConnectionError):  # the process that asks has ended
            return


def measure(claim: Claim, seed: int) -> Outcome:
    """One claim on one seed, in this process."""
    began = time.process_time()
    try:
        figures = {name: float(value) for name, value in claim.measure(seed).items()}
    except Exception as error:  # said in the results: one claim that fails must not cost those of the others
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno})"
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong or "effect" not in figures:
        return f"the figures {figures} lack 'effect' or are not finite"
    return figures, time.process_time() - began
