"""The process that runs an evaluation function nobody here wrote. Started by :mod:`apportion.annotations.sandbox`.

A script, not a part of the package: it imports numpy and the standard library, so it starts quickly and holds nothing
worth stealing. One request comes on standard input, one answer goes to standard output, both JSON.

Before the function is even compiled the kernel is told that this process may open no further file, socket or pipe,
start no process, write no byte to a file, use no more than so much memory and run no longer than so many seconds; none
of it can be taken back. Python is told to refuse what would still go through without opening anything, such as deleting
a file by its name, and every import of what is not imported here.
"""

from __future__ import annotations

import collections  # noqa: F401
import contextlib
import functools  # noqa: F401
import itertools  # noqa: F401
import json
import math
import os
import re  # noqa: F401
import signal
import statistics  # noqa: F401
import sys
import traceback
from typing import Any

import numpy as np
import numpy.fft
import numpy.linalg
import numpy.ma
import numpy.polynomial
import numpy.random

REFUSED = ("open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "glob.", "ctypes.", "mmap.", "fcntl.")
"""What Python announces before it does something; ``import`` is announced for modules not yet imported."""

UNIMPORTED = ("os", "posix", "signal", "resource", "subprocess", "shutil", "pathlib", "tempfile", "ctypes")
"""Modules that are imported here and that a function is not to find."""


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "w")
    # What the function prints must not be taken for an answer.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _lock(request["seconds"], request["memory"])
    try:
        answer = _evaluated(request)
    except MemoryError:
        answer = {"error": f"it needed more than {request['memory'] >> 20} MB of memory"}
    except BaseException as error:  # whatever other people's code raises, SystemExit included, is its answer
        answer = {"error": _told(error)}
    answers.write(json.dumps(answer))
    answers.flush()
    os._exit(0)


def _lock(seconds: float, memory: int) -> None:
    import resource

    limits = {
        "RLIMIT_AS": memory,
        "RLIMIT_CPU": math.ceil(seconds) + 1,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 0,
    }
    for name, limit in limits.items():
        # Some systems (macOS) know the limit of memory and refuse to set it.
        with contextlib.suppress(ValueError) if name == "RLIMIT_AS" else contextlib.nullcontext():
            resource.setrlimit(getattr(resource, name), (limit, limit))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    for module in UNIMPORTED:
        sys.modules.pop(module, None)
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "import":
        raise ImportError(f"{arguments[0]} may not be imported: use numpy and math")
    if event.startswith(REFUSED):
        raise PermissionError(f"{event} is not allowed here")


def _evaluated(request: dict[str, Any]) -> dict[str, Any]:
    np.random.seed(0)  # a function that draws draws the same for the same batch
    namespace: dict[str, Any] = {"__name__": "evaluation", "np": np, "math": math}
    exec(compile(request["source"], "<evaluation>", "exec"), namespace)
    function = namespace.get(request["name"])
    if not callable(function):
        return {"error": f"it defines no function {request['name']}"}
    inputs = [np.array(given, dtype=float) if request["numeric"] else given for given in request["inputs"]]
    returned = function(*inputs)
    if not isinstance(returned, (list, tuple)):
        return {"error": f"it returned a {type(returned).__name__}, expected a list of arrays"}
    factors = [np.asarray(factor, dtype=float) for factor in returned]
    shapes = [list(factor.shape) for factor in factors]
    alike = all(shape == [request["rows"], 1] for shape in shapes)
    return {"shapes": shapes, "values": [factor[:, 0].tolist() for factor in factors] if alike else None}


def _told(error: BaseException) -> str:
    """An error with the line of the function it comes from; reading source lines to show them is refused too."""
    frames = traceback.walk_tb(error.__traceback__)
    inside = [line for frame, line in frames if frame.f_code.co_filename == "<evaluation>"]
    at = f" at line {inside[-1]}" if inside else ""
    return f"{type(error).__name__}{at}: {error}"[:2000]


if __name__ == "__main__":
    main()
