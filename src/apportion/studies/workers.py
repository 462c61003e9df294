"""Processes that train the runs of a study side by side, and a lock that keeps a folder to one study at a time."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from apportion.errors import InputError, RunStopped
from apportion.studies.curves import STOPPED
from apportion.studies.plan import Job
from apportion.studies.signal import FILE

LOG = "workers.log"
_PATIENCE = 10.0
"""Seconds to wait for the processes of a study that was just killed to leave its folder."""


def is_done(job: Job) -> bool:
    """Whether a run has ended, by itself or because it had to."""
    if job.kind == "signal":
        return (job.folder / FILE).exists()
    return (job.folder / "summary.json").exists() or (job.folder / STOPPED).exists()


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Keep a folder to this process and those it starts with the descriptor.

    Raises:
        InputError: others are at work in it.
    """
    with (folder / ".lock").open("w") as file:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise InputError(
                        f"another study is running in {folder}: wait for it, or choose another folder with --out."
                    ) from None
                time.sleep(0.05)
        yield file.fileno()


class Workers:
    """Processes that train runs.

    Args:
        count: how many.
        folder: of the study; what they print goes to :data:`LOG` there.
        lock: a descriptor that they hold as long as they live.
    """

    def __init__(self, count: int, folder: Path, lock: int) -> None:
        self.count, self.folder, self.lock = count, folder, lock
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            _stdin(process).close()
        for process in self._processes:
            process.wait()

    def run(self, jobs: Sequence[Job], tell: Callable[[Job, float], None]) -> None:
        """Do all jobs that are not done, and come back when they are.

        Args:
            jobs: of one phase; they do not wait for one another.
            tell: given a job and the share of it that is done.

        Raises:
            InputError, RunStopped: a run cannot be done, or its process died.
        """
        left: queue.Queue[Job] = queue.Queue()
        for job in jobs:
            left.put(job)
        heard: queue.Queue[tuple[Job | None, dict[str, Any]]] = queue.Queue()
        serving = [
            threading.Thread(target=self._serve, args=(self._process(i), left, heard), daemon=True)
            for i in range(min(self.count, len(jobs)))
        ]
        for thread in serving:
            thread.start()
        idle = 0
        while idle < len(serving):
            about, message = heard.get()
            if about is None:
                idle += 1
            elif message["event"] == "share":
                tell(about, message["share"])
            elif message["event"] == "done":
                tell(about, 1.0)
            elif message["event"] == "refused":
                raise InputError(f"the run in {about.folder} cannot go on: {message['message']}")
            else:
                raise RunStopped(
                    f"the process of the run in {about.folder} died: {self.folder / LOG} has its last words; start the "
                    "study again to go on."
                )

    def _process(self, number: int) -> subprocess.Popen[str]:
        if number == len(self._processes):
            with (self.folder / LOG).open("a") as log:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "apportion.studies.worker"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                        env=os.environ | {"OMP_NUM_THREADS": "1"},
                        pass_fds=(self.lock,),
                        start_new_session=True,  # Ctrl-C is for us; they leave when their input ends
                    )
                )
        return self._processes[number]

    @staticmethod
    def _serve(
        process: subprocess.Popen[str],
        left: queue.Queue[Job],
        heard: queue.Queue[tuple[Job | None, dict[str, Any]]],
    ) -> None:
        while True:
            try:
                job = left.get_nowait()
            except queue.Empty:
                heard.put((None, {}))
                return
            config = job.config.to_json()
            try:
                _stdin(process).write(
                    json.dumps({"folder": str(job.folder), "config": config, "kind": job.kind}) + "\n"
                )
                _stdin(process).flush()
            except OSError:
                heard.put((job, {"event": "died"}))
                return
            while True:
                line = process.stdout.readline() if process.stdout else ""
                message = json.loads(line) if line.endswith("\n") else {"event": "died"}
                heard.put((job, message))
                if message["event"] != "share":
                    break
            if message["event"] != "done":
                return


def _stdin(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin
