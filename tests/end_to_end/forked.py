"""Runs in forked children: real processes that are really killed, without paying for imports again."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from apportion.training.config import TrainConfig
from apportion.training.loop import Event, train
from apportion.training.run_folder import RunFolder
from apportion.training.setup import set_up


def in_child(work: Callable[[], None]) -> int:
    """Do some work in a child; returns its exit status, negative for the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # the child must not return into the test runner, whatever happens
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begin(folder: Path, config: TrainConfig, kill_at: tuple[str, int] | None = None) -> int:
    """Begin a run; with ``kill_at`` the child kills itself at that event of that step."""

    def observe(event: Event) -> None:
        if kill_at == (event.name, event.step):
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        parts = set_up(config)
        train(RunFolder.create(folder, config), parts, [observe])

    return in_child(work)


def resume(folder: Path) -> int:
    """Go on with a run."""

    def work() -> None:
        run, config = RunFolder.open(folder)
        train(run, set_up(config))

    return in_child(work)
