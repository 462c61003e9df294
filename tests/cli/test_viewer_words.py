"""The words of apportion view and apportion report: runs stand anywhere among the options; what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apportion.cli import report, view
from apportion.cli.main import main
from apportion.viewer.session import Session
from viewer.worlds import write_jsonl, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them called as a method is."""
    place = tmp_path_factory.mktemp("words")
    write_run(place / "runs" / "first", steps=2)
    write_run(place / "grpo", steps=1)
    return place


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def served(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[list[str], view.Arguments]:
    """What ``apportion view`` would serve, and how."""
    found: list[Any] = []
    monkeypatch.setattr(view, "serve", lambda session, arguments: found.extend([session, arguments]))
    assert main(["view", *words]) == 0
    session, arguments = found
    return [str(source.path) for source in session.sources], arguments


@pytest.mark.parametrize(
    ("words", "paths", "settings"),
    [
        ("runs/first --port 8000", ["runs/first"], {"port": 8000}),
        ("--port 8000 runs/first", ["runs/first"], {"port": 8000}),
        ("--port=8000 runs/first", ["runs/first"], {"port": 8000}),
        ("--no-browser runs/first", ["runs/first"], {"browser": False}),
        ("--no_browser runs/first --host ::1 grpo", ["runs/first", "grpo"], {"browser": False, "host": "::1"}),
        ("--credit rloo runs/first", ["runs/first"], {"credit": ("rloo",)}),
        ("--credit rloo grpo runs/first", ["runs/first"], {"credit": ("rloo", "grpo")}),
        ("--credit rloo -- grpo", ["grpo"], {"credit": ("rloo",)}),
        ("--credit=rloo grpo", ["grpo"], {"credit": ("rloo",)}),
        ("grpo --credit tempo(norm_by_std=False)", ["grpo"], {"credit": ("tempo(norm_by_std=False)",)}),
    ],
)
def test_runs_stand_anywhere(
    monkeypatch: pytest.MonkeyPatch, words: str, paths: list[str], settings: dict[str, object]
) -> None:
    found, arguments = served(monkeypatch, *words.split())
    assert found == paths
    assert arguments == view.Arguments(**settings)  # type: ignore[arg-type]


def test_the_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "--terminal", "runs/first", "--step", "1"]) == 0
    assert capsys.readouterr().out.startswith("first: step 1, group ")
    assert main(["view", "--step", "-1", "--terminal", "runs/first"]) == 2
    assert "no rollouts of step -1" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["-o OUT grpo", "-o=OUT grpo", "grpo -o OUT", "--groups 1 --out=OUT grpo"])
def test_a_report_of_them(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert main(["report", *words.replace("OUT", str(out)).split()]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: ")
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("view", "view needs a run or a file of rollouts"),
        ("view --port 8000", "view needs a run or a file of rollouts"),
        ("view --credit rloo runs/frist", "runs/frist does not exist"),
        ("view --prot 8000 runs/first", "unknown setting of apportion view '--prot': did you mean '--port'?"),
        ("view runs/first --port", "--port has no value"),
        ("view --host= runs/first", "--host is empty, expected an address to listen at"),
        ("view --terminal grpo runs/first", "--terminal prints one group of one run, and 2 were given"),
        ("report -o report.html", "report needs a run or a file of rollouts"),
        ("report grpo -o", "--out has no value"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not Path("report.html").exists()


@pytest.mark.parametrize(
    ("host", "elsewhere"), [("127.0.0.1", False), ("127.0.0.2", False), ("localhost", False), ("0.0.0.0", True)]
)
def test_it_prints_and_opens_what_a_browser_here_reaches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, elsewhere: bool
) -> None:
    opened: list[str] = []

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(view.webbrowser, "open", opened.append)
    monkeypatch.setattr(view.time, "sleep", interrupted)
    assert main(["view", "grpo", "--host", host]) == 0
    lines = capsys.readouterr().out.splitlines()
    (url,) = opened
    assert lines[0] == f"looking at grpo: {url}"
    assert url.startswith("http://127.0.0.1:" if elsewhere else f"http://{host}:")
    assert sum("anybody who reaches it can read these rollouts" in line for line in lines) == elsewhere


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        (True, (), ["stored", "grpo"]),
        (True, ("rloo",), ["stored", "rloo", "grpo"]),
        (True, ("rloo", "reinforce_pp"), ["stored", "rloo", "reinforce_pp"]),
        (False, (), ["grpo", "tempo"]),
        (False, ("rloo",), ["rloo", "grpo", "tempo"]),
    ],
)
def test_a_report_holds_the_methods_that_its_help_says(
    stored: bool, asked: tuple[str, ...], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``grpo`` is a run that stored the credit of TEMPO."""
    records = [{"group": 0, "ids": [1, t], "reward": float(t)} for t in range(2)]
    path = Path("grpo") if stored else write_jsonl(tmp_path / "mine.jsonl", records)
    session = Session([path], asked)
    assert report.make_report(session, 0).methods == expected
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    said = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert (
        "grpo and tempo fill up to three in all, stored credit included, but for the one that the run stored the "
        "credit of." in said
    )
    assert json.loads(Path("grpo/config.json").read_text())["credit"] == "tempo"
