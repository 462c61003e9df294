"""The child process: killed at its limit, replaced after a crash, quiet, and gone when its parent is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from apportion.errors import InputError
from apportion.rewards import Verdict, math
from apportion.rewards.child import Child, shared
from apportion.tasks.task import Task

HANGS = r"\boxed{\sum_{k=1}^{10^{8}} \frac{1}{k}}"
"""math-verify evaluates the harmonic sum term by term; its own limit would need a signal."""


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    one = Child("math")
    yield one
    one.close()


def ask(child: Child, response: str, limit: float = 20.0) -> Verdict:
    return child.ask({"gold": "5", "response": response, "where": "any"}, limit)


def running(pid: int) -> bool:
    """Whether the process exists, as a zombie too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_response_that_hangs_is_unknown_and_the_rest_is_checked() -> None:
    task = Task("?", "5", "test")
    math()([task], ["5"])
    before = shared("math").pid
    start = time.monotonic()
    verdicts = math(time_limit=1.5)([task] * 5, [r"\boxed{5}", HANGS, r"\boxed{6}", HANGS, r"\boxed{10/2}"])
    assert [verdict.score for verdict in verdicts] == [1.0, None, 0.0, None, 1.0]
    assert verdicts[1].reason == "the check was killed after its limit of 1.5 s"
    # The same response is not tried twice, and the limit is kept.
    assert time.monotonic() - start < 12.0
    assert before is not None
    assert not running(before), "the killed child is still there, or a zombie"


def test_the_child_is_reused(child: Child) -> None:
    ask(child, "5")
    first = child.pid
    assert [ask(child, str(n)).score for n in range(4, 7)] == [0.0, 1.0, 0.0]
    assert child.pid == first


def test_a_crash_while_idle_goes_unnoticed(child: Child) -> None:
    ask(child, "5")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSEGV)
    time.sleep(0.2)
    assert ask(child, "5").score == 1.0


def test_a_crash_during_a_check_is_unknown(child: Child) -> None:
    ask(child, "5")
    pid = child.pid
    assert pid is not None
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    assert ask(child, HANGS) == Verdict(None, "the checker crashed (SIGKILL)")
    assert ask(child, "5").score == 1.0
    assert not running(pid)


@pytest.mark.parametrize(
    "response",
    [
        "line\nline\r\n\u2028",
        "\x00",
        "\ud800 broken \udfff",
        '{"a": 1}\n["ready", ""]',
        "\\" * 10_000,
        "5" * 1_000_000,
        r"\boxed{" + "x" * 1_000_000 + "}",
        "答えは5です",
    ],
)
def test_hostile_text_survives_the_pipe(child: Child, response: str) -> None:
    assert ask(child, response).score == 0.0
    assert ask(child, "5").score == 1.0


def test_reasons_can_be_printed(child: Child) -> None:
    ask(child, "\ud800\x1b[31m\n" * 5).reason.encode("utf-8")


def test_what_cannot_be_sent_is_unknown(child: Child) -> None:
    verdict = child.ask({"gold": threading.Lock()}, 5.0)
    assert verdict.score is None
    assert "cannot be sent" in verdict.reason


def test_a_decider_that_raises_is_unknown(child: Child) -> None:
    verdict = child.ask({"gold": "5"}, 5.0)
    assert verdict.score is None
    assert "raised TypeError" in verdict.reason


def test_a_child_that_cannot_start_is_unknown() -> None:
    verdict = Child("no such kind").ask({}, 5.0)
    assert verdict.score is None
    assert "ended while starting" in verdict.reason


def test_threads_take_turns(child: Child) -> None:
    results: dict[int, float | None] = {}

    def work(n: int) -> None:
        results[n] = ask(child, str(n)).score

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: float(n == 5) for n in range(8)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_process_has_a_child_of_its_own() -> None:
    verifier, task = math(), Task("?", "5", "test")
    assert verifier([task], ["5"])[0].score == 1.0
    before = shared("math").pid
    pid = os.fork()
    if pid == 0:
        own = verifier([task], ["5"])[0].score == 1.0 and shared("math").pid != before
        shared("math").close()
        os._exit(0 if own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert verifier([task], ["5"])[0].score == 1.0
    assert shared("math").pid == before


def script(body: str) -> subprocess.Popen[str]:
    """A fresh process that builds ``verifier`` and ``task`` and prints the child's id."""
    start = (
        "import sys, time, os, signal\n"
        "from apportion.rewards import math\n"
        "from apportion.rewards.child import shared\n"
        "from apportion.tasks.task import Task\n"
        "verifier, task = math(), Task('?', '5', 'test')\n"
        "assert verifier([task], ['5'])[0].score == 1.0\n"
        "assert 'torch' not in sys.modules and 'sympy' not in sys.modules\n"
        "print(shared('math').pid, flush=True)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", start + body],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not running(pid):
            return True
        time.sleep(0.05)
    return False


def test_the_child_ends_with_its_parent() -> None:
    parent = script("")
    output, errors = parent.communicate(timeout=60)
    assert parent.returncode == 0
    assert errors == ""
    assert gone(int(output), 5.0)


def test_a_busy_child_ends_itself_when_its_parent_was_killed() -> None:
    parent = script(
        f"verifier = math(time_limit=0.5); os.kill(os.getpid(), signal.SIGSTOP); verifier([task], [{HANGS!r}])"
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # The parent asks and dies at once, so nobody is left to kill the child.
    time.sleep(0.1)
    os.kill(parent.pid, signal.SIGCONT)
    time.sleep(0.2)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=10)
    assert gone(pid, 10.0)


def test_ctrl_c_stops_the_parent_without_noise_from_the_child() -> None:
    body = (
        "try:\n"
        f"    verifier = math(time_limit=60); verifier([task], [{HANGS!r}])\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', verifier([task], ['5'])[0].score, flush=True)\n"
    )
    parent = script(body)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.7)
    os.killpg(parent.pid, signal.SIGINT)
    output, errors = parent.communicate(timeout=60)
    assert output == "stopped 1.0\n"
    assert errors == ""
    assert gone(pid, 5.0)


def test_the_child_imports_no_torch() -> None:
    modules = "apportion.rewards.worker, apportion.rewards.mathematics.decision, apportion.rewards.gym_scoring"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_files_of_the_current_folder_stay_out_of_the_child(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")  # type: ignore[operator]
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    one = Child("math")
    assert ask(one, "5").score == 1.0
    one.close()


def test_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (0, -1.0, float("nan"), float("inf"), "5", True):
        with pytest.raises(InputError, match="seconds above 0"):
            math(time_limit=limit)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'any' or 'stated'"):
        math(where="last")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        math()
