"""``apportion view --terminal`` prints the tree of one group; no text of a model moves the cursor."""

from __future__ import annotations

from pathlib import Path

import pytest

from apportion.cli.main import main
from viewer.worlds import write_jsonl, write_run


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["view", *words, "--terminal"]) == 0
    return capsys.readouterr().out


def test_what_responses_share_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        {"group": "sum", "ids": [5, 7, 2], "reward": 1.0, "prompt": "2+2="},
        {"group": "sum", "ids": [5, 7, 9], "reward": 0.0},
        {"group": "sum", "ids": [5, 8, 2], "reward": None},
        {"group": "sum", "ids": [5, 8, 2], "reward": 0.0},
    ]
    path = write_jsonl(tmp_path / "mine.jsonl", records)
    lines = said(capsys, str(path), "--credit", "tempo(norm_by_std=False)").splitlines()
    assert lines[:2] == ["mine.jsonl: group sum", "credit: tempo(norm_by_std=False)"]
    assert lines[2] == "2+2=  value 0.33  ×4"
    assert lines[3] == "└── 5  value 0.33  ×4"
    assert [line.replace("│", " ").strip() for line in lines[4:8]] == [
        "├──  7  value 0.50  ×2",
        "├──  2  reward 1",
        "└──  9  reward 0",
        "└──  8 2  reward unknown  reward 0".replace("reward unknown", "unknown"),
    ]


def test_the_group_asked_for_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", steps=2)
    assert "step 1, group 3" in said(capsys, str(run), "--step", "1", "--group", "3")
    assert main(["view", str(run), "--terminal", "--group", "77"]) == 2
    assert "there is no group '77' here: groups are 4 to 5" in capsys.readouterr().err
    assert main(["view", str(run), "--step", "1"]) == 2
    assert "add it, or leave them out" in capsys.readouterr().err


def test_hostile_text_is_written_as_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        {"group": 0, "ids": [1], "reward": 1.0, "prompt": "\x1b[2J\u202e", "token": {"text": ["\x07[bold]\ud800"]}}
    ]
    out = said(capsys, str(write_jsonl(tmp_path / "mine.jsonl", records)))
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J\\u202e" in out
    assert "\\x07[bold]\\ud800" in out, "no markup of a model is read"


def test_stored_credit_has_the_name_of_its_method_where_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", steps=1)
    assert said(capsys, str(run)).splitlines()[1] == "credit: tempo, as stored"
    assert said(capsys, str(run / "rollouts" / "step_000001.arrow")).splitlines()[1] == "credit: as stored"


def test_one_run_is_shown_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(write_run(tmp_path / name, steps=1)) for name in ("first", "second")]
    assert main(["view", *paths, "--terminal"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "apportion: --terminal prints one group of one run, and 2 were given: give one of them.\n"


def test_a_run_without_rollouts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rollouts").mkdir()
    assert main(["view", str(tmp_path), "--terminal"]) == 2
    assert "has no stored rollouts yet" in capsys.readouterr().err
