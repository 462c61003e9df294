"""apportion claims: verdicts in the terminal, as JSON and as a page; what cannot be done is said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apportion.cli import claims as verb
from apportion.cli.main import main
from apportion.studies.claims_entries import Entry, entries_of

KNOWN = Path(__file__).parents[1] / "studies"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> tuple[Entry, ...]:
    """Claims whose outcome is known, in place of those of the cards."""
    monkeypatch.syspath_prepend(str(KNOWN))
    chosen = entries_of("cards")
    monkeypatch.setattr(verb, "entries", lambda names: [chosen[0], chosen[1]])
    return chosen


def run(*words: Any) -> int:
    return main(["claims", *map(str, words)])


def test_verdicts_are_printed_and_written(
    known: tuple[Entry, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    words = ("grpo", "--again", "--folder", tmp_path / "kept", "--write", tmp_path / "docs", "--processes", 2)
    assert run(*words) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == ["claim", "smallest", "effect", "seeds", "verdict", "again", "CPU", "s"]
    assert said.out.splitlines()[1].split()[:2] == ["grpo:", "large"]
    assert (
        said.out.splitlines()[-1] == "1 reproduced, 1 not reproduced; of 1 reproduced on first seeds, 1 held on others"
    )
    assert "  grpo\n" in said.err
    page = (tmp_path / "docs/claims.md").read_text()
    assert "apportion claims grpo --again --write docs" in page
    assert "| `grpo` | Says large. | Against large. | 0.5 | +1.01 [" in page
    assert "| reproduced | reproduced: +1.01 [" in page
    assert "How small." in page
    kept = json.loads((tmp_path / "docs/claims.json").read_text())
    before = (tmp_path / "kept/measured.jsonl").read_bytes()
    assert run(*words, "--json") == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == kept
    assert again.err == ""
    assert (tmp_path / "kept/measured.jsonl").read_bytes() == before


def test_a_claim_that_cannot_be_measured_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unmeasured_cards.py").write_text("from cards import FAILING as CLAIMS\n")
    monkeypatch.syspath_prepend(str(KNOWN))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(verb, "entries", lambda names: list(entries_of("unmeasured_cards"))[:1])
    assert run("--folder", tmp_path / "kept") == 1
    said = capsys.readouterr().out
    assert "grpo: fails: seed 3: ValueError: seed 3 | it is (cards.py:" in said
    assert said.endswith("1 not measured\n")


def test_claims_are_listed_without_being_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "kept"
    assert run("rloo", "--list", "--folder", folder) == 0
    said = capsys.readouterr().out
    assert said.startswith("rloo: ")
    assert "against it: " in said
    assert "smallest effect that counts: 0.2" in said
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tempa"], "unknown claim of 'tempa': did you mean 'tempo'?"),
        (["none"], "none has no claim of its own: it assigns no credit"),
        (["rloo", "--write", "absent"], "cannot write into absent: it is no folder"),
        (["rloo", "--processes", "0"], "processes is 0 and the first seed 0, expected at least 1 and 0"),
        (["rloo", "--seed-offset", "-5"], "the first seed -5"),
        (["rloo", "--sedes", "3"], "unknown setting of apportion claims '--sedes'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("apportion: ")
    assert said.count("\n") == 1
    assert sentence in said
    assert not list(tmp_path.rglob("measured.jsonl"))
