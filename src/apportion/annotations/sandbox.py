"""Evaluation functions that somebody else wrote, run in a process of their own that may do nothing but compute.

Every call is a fresh process, so one leaves nothing behind for the next, and what it says is data, never code. See
:mod:`apportion.annotations.sandboxed` for what the process may not do. A function that breaks out of Python itself, by
corrupting memory through numpy, still faces the kernel's limits; against an attacker who would go that far, run the
trainer in a container.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apportion.errors import InputError, RunStopped

START_LIMIT = 120.0
"""Seconds the process may take to start, beside those the function may take; generous, as machines get crowded."""

NAME = "evaluation_func"
"""What a function is called that a judge writes or a file holds."""

Inputs = Sequence[str] | np.ndarray
"""One a decision: texts, or rows of numbers."""


class FunctionFailed(InputError):
    """An evaluation function did not do what it must; the message says what, to whoever wrote it."""


@dataclass(frozen=True)
class Function:
    """An evaluation function and what it may use.

    Attributes:
        source: Python that defines it.
        name: what it is called.
        seconds: how long it may take for a batch.
        megabytes: of memory, Python and numpy included.
    """

    source: str
    name: str = NAME
    seconds: float = 10.0
    megabytes: int = 2048

    def __post_init__(self) -> None:
        if not 0 < self.seconds < 1e6 or self.megabytes < 256:
            raise InputError(
                f"a function may take {self.seconds} s and {self.megabytes} MB: expected more than 0 s and at least "
                "256 MB, which Python and numpy need themselves."
            )

    def __call__(self, observation: Inputs, action: Inputs) -> np.ndarray:
        """Factors ``[B, d]`` of B decisions.

        Raises:
            FunctionFailed: it raised an error, took too long or too much, or returned something else than finite
                factors of shape ``(B, 1)``.
            RunStopped: the process could not be started.
        """
        rows = len(observation)
        numeric = isinstance(observation, np.ndarray)
        request = {
            "source": self.source,
            "name": self.name,
            "numeric": numeric,
            "inputs": [x.tolist() if isinstance(x, np.ndarray) else list(x) for x in (observation, action)],
            "rows": rows,
            "seconds": self.seconds,
            "memory": self.megabytes << 20,
        }
        answer = _ask(request, self.seconds)
        if "error" in answer:
            raise FunctionFailed(f"the evaluation function failed: {answer['error']}")
        problem = shape_problem(answer["shapes"], rows)
        if problem is not None:
            raise FunctionFailed(problem)
        factors = np.array(answer["values"], dtype=np.float64).T
        if not np.isfinite(factors).all():
            bad = sorted({int(i) for i in np.nonzero(~np.isfinite(factors))[1]})
            raise FunctionFailed(f"factors {bad} of the evaluation function hold NaN or infinity, expected numbers.")
        return factors


def shape_problem(shapes: Sequence[Sequence[int]], rows: int) -> str | None:
    """What is wrong with the shapes of the factors of a batch; None where nothing is.

    Example:
        >>> shape_problem([[2, 1], [2]], 2)
        'factor 1 has shape (2,), expected (2, 1): one number for every row.'
    """
    if not shapes:
        return "the evaluation function returned no factors, expected a list of at least one."
    for number, shape in enumerate(shapes):
        if tuple(shape) != (rows, 1):
            return f"factor {number} has shape {tuple(shape)}, expected ({rows}, 1): one number for every row."
    return None


def _ask(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    script = Path(__file__).with_name("sandboxed.py")
    # Isolated, and without this process's variables: a key in one of them is none of the function's business.
    command = [sys.executable, "-I", "-X", "utf8", str(script)]
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise RunStopped(f"the process for evaluation functions cannot be started: {error}.") from None
    try:
        answer, _ = process.communicate(json.dumps(request).encode(), timeout=START_LIMIT + seconds)
    except subprocess.TimeoutExpired:
        raise FunctionFailed(f"the evaluation function was killed after its limit of {seconds:g} s.") from None
    finally:
        _end(process)
    if process.returncode in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL):
        raise FunctionFailed(f"the evaluation function was killed after its limit of {seconds:g} s.")
    try:
        read = json.loads(answer)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise FunctionFailed(f"the evaluation function ended its process (exit code {process.returncode}).")
    return read


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and whatever it started, and collect it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.wait()
