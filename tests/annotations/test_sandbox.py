"""Functions that others wrote: what they may do, what they may not, and what is said of those that fail."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from apportion.annotations.sandbox import Function, FunctionFailed, shape_problem
from apportion.errors import InputError

NUMBERS = np.arange(6.0).reshape(2, 3)
ACTIONS = np.array([[1.0], [2.0]])


def function(body: str, **limits: float) -> Function:
    """An evaluation function with this body."""
    return Function("def evaluation_func(observation, action):\n" + textwrap.indent(body, "    "), **limits)  # type: ignore[arg-type]


def failure(body: str, **limits: float) -> str:
    with pytest.raises(FunctionFailed) as raised:
        function(body, **limits)(NUMBERS, ACTIONS)
    return str(raised.value)


def test_numbers_come_as_arrays_and_texts_as_texts() -> None:
    factors = function("return [observation[:, 1:2] / 2, action ** 2, np.median(observation, 1, keepdims=True)]")
    assert factors(NUMBERS, ACTIONS).tolist() == [[0.5, 1.0, 1.0], [2.0, 4.0, 4.0]]
    lengths = function("return [[[len(text)] for text in observation], [[float(a)] for a in action]]")
    assert lengths(["né", ""], ["1", "2"]).tolist() == [[2.0, 1.0], [0.0, 2.0]]


def test_the_same_batch_gives_the_same_numbers_even_to_one_who_draws() -> None:
    drawn = function("return [np.random.rand(len(action), 1) + 1 / 3]")
    assert np.array_equal(drawn(NUMBERS, ACTIONS), drawn(NUMBERS, ACTIONS))


def test_printing_is_no_answer() -> None:
    said = function("import sys\nprint('{}')\nsys.stdout.write('{\"shapes\": []}')\nreturn [action]")
    assert said(NUMBERS, ACTIONS).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("open('/etc/passwd')", "PermissionError at line 2: open is not allowed here"),
        ("open('written', 'w')", "open is not allowed here"),
        ("import os\nos.remove('/nowhere')", "os may not be imported: use numpy and math"),
        ("import socket", "socket may not be imported"),
        ("import urllib.request", "urllib.request may not be imported"),
        ("import subprocess", "subprocess may not be imported"),
        ("import sys\nsys._getframe(1).f_globals['os'].remove('/nowhere')", "os.remove is not allowed here"),
        ("import sys\nsys._getframe(1).f_globals['os'].kill(1, 0)", "os.kill is not allowed here"),
        ("import sys\nsys._getframe(1).f_globals['os'].fork()", "os.fork is not allowed here"),
        ("import sys\nsys._getframe(1).f_globals['os'].listdir('/')", "os.listdir is not allowed here"),
        ("np.save('/tmp/x.npy', action)", "not allowed|may not be imported|Permission"),
        ("return [np.fromfile('/etc/passwd')]", "not allowed|Permission|Too many open files"),
    ],
)
def test_what_it_may_not_do(body: str, said: str) -> None:
    with pytest.raises(FunctionFailed, match=said):
        function(body)(NUMBERS, ACTIONS)


def test_the_kernel_refuses_what_python_does_not_announce() -> None:
    """A pipe is nothing Python asks about, but there is no descriptor left to give."""
    body = "import sys\nposix = sys._getframe(1).f_globals['os']\nreturn [[[posix.pipe()[0]], [0]]]"
    assert "Too many open files" in failure(body)


def test_it_sees_nothing_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "swordfish")
    seen = function("import sys\nreturn [[[len(sys._getframe(1).f_globals['os'].environ.get('SECRET_KEY', ''))], [0]]]")
    assert seen(NUMBERS, ACTIONS).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("body", ["while True: pass", "import time\nwhile True: time.sleep(60)"])
def test_it_is_killed_when_it_takes_too_long(body: str) -> None:
    began = time.monotonic()
    assert failure(body, seconds=0.5) == "the evaluation function was killed after its limit of 0.5 s."
    assert time.monotonic() - began < 30


def test_it_is_killed_though_it_stops_the_clock() -> None:
    stopped = "import sys\nsys._getframe(1).f_globals['signal'].setitimer(0, 0)\nwhile True: pass"
    assert "killed after its limit of 0.5 s" in failure(stopped, seconds=0.5)


def test_memory_is_limited() -> None:
    assert failure("return [np.ones(1 << 29)]", seconds=120, megabytes=1024).endswith(
        "it needed more than 1024 MB of memory"
    )
    assert "1024 MB" in failure("rows = []\nwhile True: rows.append(np.ones(1 << 20))", seconds=120, megabytes=1024)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [observation[:, 0]]", r"factor 0 has shape (2,), expected (2, 1): one number for every row."),
        ("return [action, action[:1]]", r"factor 1 has shape (1, 1), expected (2, 1): one number for every row."),
        ("return []", "the evaluation function returned no factors, expected a list of at least one."),
        ("return action", "the evaluation function failed: it returned a ndarray, expected a list of arrays"),
        ("pass", "the evaluation function failed: it returned a NoneType, expected a list of arrays"),
        (
            "return [[['a'], ['b']]]",
            "the evaluation function failed: ValueError: could not convert string to float: 'a'",
        ),
        (
            "return [action, action / 0]",
            "factors [1] of the evaluation function hold NaN or infinity, expected numbers.",
        ),
        ("return [1 / 0]", "the evaluation function failed: ZeroDivisionError at line 2: division by zero"),
        ("\nraise SystemExit('enough')", "the evaluation function failed: SystemExit at line 3: enough"),
        ("def again(): return again()\nreturn again()", "RecursionError"),
    ],
)
def test_what_is_said_of_one_that_fails(body: str, said: str) -> None:
    assert said in failure(body)


def test_source_that_defines_no_function() -> None:
    with pytest.raises(FunctionFailed, match="it defines no function evaluation_func"):
        Function("x = 1")(NUMBERS, ACTIONS)
    with pytest.raises(FunctionFailed, match="SyntaxError"):
        Function("def evaluation_func(:")(NUMBERS, ACTIONS)


def test_one_that_ends_its_process() -> None:
    ended = "import sys\nsys._getframe(1).f_globals['os']._exit(3)"
    assert failure(ended) == "the evaluation function ended its process (exit code 3)."


def test_no_process_stays_behind() -> None:
    before = set(Path("/proc").glob("[0-9]*/task")) if Path("/proc").exists() else set()
    failure("while True: pass", seconds=0.3)
    after = set(Path("/proc").glob("[0-9]*/task")) if Path("/proc").exists() else set()
    mine = {p for p in after - before if _parent(p.parent) == os.getpid()}
    assert not mine


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def test_limits_that_cannot_be() -> None:
    for limits in ({"seconds": 0.0}, {"megabytes": 10}):
        with pytest.raises(InputError, match="expected more than 0 s and at least 256 MB"):
            function("pass", **limits)


def test_shapes() -> None:
    assert shape_problem([[3, 1], [3, 1]], 3) is None
    assert "no factors" in str(shape_problem([], 3))
    assert "(3, 2)" in str(shape_problem([[3, 2]], 3))
