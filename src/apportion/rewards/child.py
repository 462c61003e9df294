"""A checker in a process of its own, killed when it takes too long.

Nothing else stops a computation that hangs: a signal is not delivered while C code runs, a thread cannot be ended.
The child is a fresh interpreter (it never imports the caller's ``__main__``, nor torch), is reused from call to call,
and is started again after it had to be killed. It is a separate process, not a sandbox.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from apportion.rewards.verdict import Verdict
from apportion.rewards.worker import HEADER

START_LIMIT = 120.0
"""Seconds a child may take to import what it needs; generous, because machines get crowded."""


class Child:
    """One checker process. Calls from several threads wait for one another.

    Args:
        kind: which decider the child runs, a key of ``worker.DECIDERS``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running child, None when there is none."""
        return None if self._process is None else self._process.pid

    def ask(self, question: Mapping[str, Any], time_limit: float) -> Verdict:
        """The child's verdict; unknown when it has to be killed, crashes, or cannot be started.

        Args:
            question: keyword arguments of the decider; anything that can be pickled.
            time_limit: seconds, after which the child is killed.
        """
        try:
            body = pickle.dumps(dict(question))
        except Exception as error:
            # Metadata may hold anything, and what __reduce__ raises is its own affair.
            return Verdict(None, f"the task cannot be sent to the checker: {type(error).__name__}: {error}")
        with self._lock:
            try:
                return self._ask(body, time_limit)
            except BaseException:
                # An interrupt between question and answer would leave a stale answer in the pipe.
                self._end()
                raise

    def _ask(self, body: bytes, time_limit: float) -> Verdict:
        if self._process is None or self._process.poll() is not None:
            self._end()
            failure = self._start()
            if failure is not None:
                return failure
        answer, killed = self._exchange(HEADER.pack(time_limit, len(body)) + body, time_limit)
        code = self._end() if killed or answer is None else None
        if answer is not None:
            return Verdict(answer[0], answer[1])
        if killed:
            return Verdict(None, f"the check was killed after its limit of {time_limit:g} s")
        return Verdict(None, f"the checker crashed ({_ending(code)})")

    def _start(self) -> Verdict | None:
        """Start the child and wait until it is ready; a verdict if that fails."""
        # A session of its own keeps Ctrl-C of the terminal away from it; -P keeps the current folder's files, which
        # may be called math.py or random.py, out of its imports.
        command = [sys.executable, "-P", "-m", "apportion.rewards.worker", self.kind]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return Verdict(None, f"the checker cannot be started: {error}")
        self._owner = os.getpid()
        ready, killed = self._exchange(b"", START_LIMIT)
        if ready is not None:
            return None
        code = self._end()
        why = f"was not ready after {START_LIMIT:g} s" if killed else f"ended while starting ({_ending(code)})"
        return Verdict(None, f"the checker {why}: run {' '.join(command)} to see why")

    def _exchange(self, message: bytes, seconds: float) -> tuple[list[Any] | None, bool]:
        """Send a message and read the answer; None if the pipe ended first, and whether that was the limit's doing."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(message)
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()
        return (json.loads(line) if line.endswith(b"\n") else None), expired.is_set()

    def _end(self) -> int | None:
        """Kill the child if it runs and collect it; its exit code. A child inherited by a fork is not ours to end."""
        if self._process is None or self._owner != os.getpid():
            return None
        process, self._process = self._process, None
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return process.wait()

    def close(self) -> None:
        """End the child; the next question starts another."""
        with self._lock:
            self._end()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and whatever it started."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


_CHILDREN: dict[str, Child] = {}
_INHERITED: list[Child] = []


def shared(kind: str) -> Child:
    """The child of this kind that all verifiers of this process share."""
    if kind not in _CHILDREN:
        _CHILDREN[kind] = Child(kind)
        atexit.register(_CHILDREN[kind].close)
    return _CHILDREN[kind]


def _forget() -> None:
    """After a fork the pipes belong to the parent's conversation: leave them alone and start children anew."""
    _INHERITED.extend(_CHILDREN.values())
    _CHILDREN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
