"""What every test runs under: one torch thread, the same random examples every time, and no unlisted skips."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from golden.pending import read_pending

# Read when torch is first imported, here and in processes that tests start.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# A shell lets the jobs it starts in the background ignore Ctrl-C, and all that these start; tests send it to some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("apportion", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("apportion")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--strict-skips``, which a set ``CI`` implies."""
    parser.addoption("--strict-skips", action="store_true", help="fail on skips that pending.txt does not list")


def unlisted_skips(config: pytest.Config) -> list[str]:
    """Reasons of skips of a strict run that are not allowed."""
    if not (config.getoption("--strict-skips") or os.environ.get("CI")):
        return []
    skipped = config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", [])
    return read_pending().unlisted(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make a run with unlisted skips a failed one."""
    on_a_worker = hasattr(session.config, "workerinput")
    if not on_a_worker and unlisted_skips(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which."""
    if reasons := unlisted_skips(config):
        terminalreporter.section("skips that pending.txt does not list", red=True)
        for reason in reasons:
            terminalreporter.line(reason)
