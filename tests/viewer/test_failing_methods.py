"""A credit method of somebody's own may fail in any way: it is named with what it raised, and the rest is shown."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path

import pytest

from apportion.cli.main import main
from apportion.viewer import session as sessions
from apportion.viewer.agreeing import Comparison
from apportion.viewer.server import Server
from apportion.viewer.session import Session
from viewer.test_reports import opened
from viewer.worlds import write_jsonl, write_run

BROKEN = "viewer.worlds:broken"
SAID = f"the credit method {BROKEN} failed (AttributeError: 'Work' object has no attribute 'no_such_thing')"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("failing") / "run", steps=2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    records = [{"group": 0, "ids": [1, t], "reward": float(t)} for t in range(2)]
    return write_jsonl(tmp_path / "mine.jsonl", records)


def test_its_group_shows_the_other_methods_and_what_it_raised(run: Path) -> None:
    answer = Session([run], [BROKEN]).answer("group", {"part": "1", "group": "2", "credit": f"{BROKEN}\ngrpo"})
    credits = answer["credits"]
    assert credits[BROKEN]["error"].startswith(SAID)
    assert len(credits["grpo"]["advantages"]) == 32


def test_groups_are_listed_without_its_credit(file: Path) -> None:
    session = Session([file], [BROKEN])
    session.listings[0].catch_up()
    answer = session.answer("groups", {})
    assert (answer["listed"], answer["count"], answer["rows"][0][-1]) == (1, 1, None)
    (complaint,) = answer["complaints"]
    assert complaint.startswith(SAID)


def test_the_thread_that_lists_groups_outlives_it_and_whatever_else_goes_wrong(
    run: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, again = sessions.index.rows, threading.Event()

    def sometimes(part: int, *rest: object) -> list[list[object]]:
        if part == 1:
            raise ZeroDivisionError("nobody foresaw this")
        return rows(part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions.index, "rows", sometimes)
    session = Session([run, file], [BROKEN])
    last, catch_up = session.listings[-1], session.listings[-1].catch_up

    def counted() -> int:
        if last.progress()["listed"]:
            again.set()  # a second time round
        return catch_up()

    monkeypatch.setattr(last, "catch_up", counted)
    session.watch(0.01)
    assert again.wait(60)
    session.close()
    first, second = session.answer("runs", {})["runs"]
    assert first["complaints"] == ["step 1 cannot be listed (ZeroDivisionError: nobody foresaw this)."]
    assert (first["listed"], first["count"]) == (2, 2)
    assert second["complaints"][0].startswith(SAID)


def test_a_folder_that_cannot_be_looked_into_for_a_while_is_listed_after(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session([run])
    source, waiting, asked = session.sources[0], [PermissionError(13, "Permission denied")], threading.Event()
    parts = source.parts

    def sometimes() -> list[int]:
        if waiting:
            raise waiting.pop()
        asked.set()
        return parts()

    monkeypatch.setattr(source, "parts", sometimes)
    session.watch(0.01)
    assert asked.wait(60)
    session.close()


def test_a_comparison_with_it_says_so(run: Path) -> None:
    session = Session([run], [BROKEN])
    comparison = Comparison(session.sources[0], ["stored", BROKEN], session.methods, None)
    comparison.work()
    assert str(comparison.error).startswith(SAID)


def test_a_report_is_written_and_says_what_it_left_out(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(file), "-o", str(tmp_path / "report.html"), "--credit", BROKEN]) == 0
    said = capsys.readouterr().out.splitlines()[1:]
    assert [line.partition(SAID)[0] for line in said] == [
        "left out credit in the list of groups of mine.jsonl: ",
        f"left out how far {BROKEN} and grpo agree on mine.jsonl: ",
        f"left out how far {BROKEN} and tempo agree on mine.jsonl: ",
        f"left out how far {BROKEN} and grpo and tempo agree on mine.jsonl: ",
    ]
    answers = opened((tmp_path / "report.html").read_text())["answers"]
    assert answers["agreement?credit=grpo%0Atempo&run=0"]["groups"] == 1


def test_a_method_asked_for_that_lacks_columns_is_said_to_be_left_out(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(file), "-o", str(tmp_path / "report.html"), "--credit", "gae"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["left out credit under gae: mine.jsonl lacks values/critic"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [(BROKEN, SAID), ("viewer.worlds:unmakeable", "method viewer.worlds:unmakeable cannot be made (KeyError: 'lost')")],
)
def test_the_terminal_says_it_in_a_sentence(
    file: Path, capsys: pytest.CaptureFixture[str], spec: str, says: str
) -> None:
    assert main(["view", str(file), "--terminal", "--credit", spec]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_what_nobody_foresaw_is_answered_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session([file])
    server = Server(session).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def ask(answer: object) -> tuple[int, dict[str, str]]:
        def answered(question: str, query: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(session, "answer", answered)
        connection.request("GET", "/api/runs")
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    try:
        status, content = ask(ZeroDivisionError("nobody foresaw this"))
        assert (status, content) == (
            500, {"error": "the viewer failed at 'runs' (ZeroDivisionError: nobody foresaw this)."},
        )  # fmt: skip
        status, content = ask({"reward": float("nan")})
        assert status == 500
        assert "(ValueError: " in content["error"]
        assert ask({"reward": 1.0}) == (200, {"reward": 1.0}), "the same connection goes on"
    finally:
        connection.close()
        server.shutdown()
        server.server_close()
