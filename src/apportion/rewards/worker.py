"""The child process that scores responses whose checking may hang or crash. See :mod:`apportion.rewards.child`.

Run as ``python -P -m apportion.rewards.worker KIND``. Requests come on standard input, each a length and a pickle;
answers go to standard output, each one line of JSON: what the parent reads back is data, never code, even if a scorer
evaluated the text of a response.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space: a formula that expands without end fails here instead of taking the machine down."""
HEADER = struct.Struct("<dQ")
"""Seconds the request may take, and the length of the pickle that follows."""
GRACE = 2.0
"""Seconds past its limit after which a child ends itself, in case its parent is no longer there to do it."""
DECIDERS = {
    "math": ("apportion.rewards.mathematics.decision", "decide"),
    "reasoning_gym": ("apportion.rewards.gym_scoring", "decide"),
}


def main(kind: str) -> None:
    """Answer requests until standard input ends."""
    # Ctrl-C is the parent's business; it closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    # A scorer that prints or asks for input must not touch the pipes.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    _limit_memory()
    module, name = DECIDERS[kind]
    decide = getattr(importlib.import_module(module), name)
    _send(answers, "ready", "")
    while header := requests.read(HEADER.size):
        seconds, length = HEADER.unpack(header)
        body = requests.read(length)
        _arm(seconds + GRACE)
        score, reason = _decided(decide, body)
        _arm(0.0)
        _send(answers, score, reason)


def _decided(decide: Callable[..., tuple[float | None, str]], body: bytes) -> tuple[float | None, str]:
    try:
        return decide(**pickle.loads(body))
    except MemoryError:
        return None, f"checking needed more than {MEMORY >> 30} GB of memory"
    except Exception as error:
        # Scorers and parsers are other people's code on hostile text: what they raise decides nothing about the answer.
        return None, f"the checker raised {type(error).__name__}: {error}"


def _send(answers: Any, score: float | str | None, reason: str) -> None:
    line = " ".join(reason.encode("utf-8", "replace").decode().split())
    answers.write(json.dumps([score, line[:300]]) + "\n")
    answers.flush()


def _arm(seconds: float) -> None:
    """Let the kernel end this process after so many seconds, also from within a long computation in C."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or hard > MEMORY:
        # Some systems (macOS) know the limit and refuse to set it.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))


if __name__ == "__main__":
    main(sys.argv[1])
