"""A real browser: Debian's chromium, driven by playwright. Where one is missing the tests fail and say what to do."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apportion.viewer.report import make_report
from apportion.viewer.server import Server
from apportion.viewer.session import Session

WAIT = 90_000
"""Milliseconds a page may take before a test fails."""


def until(page: Any, expression: str) -> None:
    """Wait until an expression holds on a page; the page's policy lets nothing be evaluated on it by itself."""
    for _ in range(WAIT // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"the page never got to {expression}")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Chromium without a window."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("the browser tests need chromium, which is not installed: run apt-get install -y chromium.")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("the browser tests need playwright, which is not installed: run make install.")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextlib.contextmanager
def serving(*paths: Path, credit: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve runs or files; gives the address."""
    session = Session(paths, credit)
    session.watch(0.2)
    server = Server(session).start()
    try:
        yield server.url
    finally:
        session.close()
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page; a complaint of the browser (a script that failed, a policy that was broken) fails the test."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, color_scheme="light")
    opened = context.new_page()
    opened.set_default_timeout(WAIT)
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    opened.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    opened.complaints = complaints
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """Serve runs or files; gives the address."""
    with contextlib.ExitStack() as started:
        yield lambda *paths, credit=(): started.enter_context(serving(*paths, credit=credit))


@pytest.fixture
def reported(tmp_path: Path) -> Callable[..., str]:
    """Write a report of runs or files; gives its address on disk."""

    def report(*paths: Path) -> str:
        session = Session(paths)
        for listing in session.listings:
            listing.catch_up()
        path = tmp_path / "report.html"
        path.write_bytes(make_report(session).html)
        return path.as_uri()

    return report
