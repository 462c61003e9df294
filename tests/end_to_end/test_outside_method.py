"""A method in one short file outside the repository, written after CONTRIBUTING, is a method like any other."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from apportion.cli.main import main
from apportion.rollouts.store import read

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
METHOD = "discounted:discounted(discount=0.5)"


def written(name: str) -> str:
    """A file that CONTRIBUTING shows."""
    block = re.search(rf"^```\w+ {re.escape(name)}\n(.*?)^```$", CONTRIBUTING.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None, f"CONTRIBUTING shows no {name}"
    return block[1]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing but the files of a user."""
    for name in ("discounted.py", "copying.py"):
        (tmp_path / name).write_text(written(name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in ("discounted", "copying"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def test_it_is_short(outside: Path) -> None:
    assert len((outside / "discounted.py").read_text().splitlines()) <= 60


def test_it_trains_and_credits_the_rollouts_of_another_run(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "1", "--eval-prompts", "0", "--warm-start", "None", "--model", "digits(hidden=16,layers=1)"]
    assert main(["train", "quickstart", "--credit", METHOD, "--run", str(outside / "own"), *small]) == 0
    assert main(["train", "quickstart", "--credit", "grpo", "--run", str(outside / "other"), *small]) == 0
    stored = str(outside / "other/rollouts/step_000001.arrow")
    again = ["credit", METHOD, stored, "--out", str(outside / "again.arrow")]
    assert main(again) == 0
    before, after = read(Path(stored)), read(outside / "again.arrow")
    assert after.ids.tolist() == before.ids.tolist()
    trained = read(outside / "own/rollouts/step_000001.arrow")
    # Both runs draw the same in their first step, so the credit given in training is that given afterwards.
    assert trained.ids.tolist() == after.ids.tolist()
    assert trained.column("credit/advantages").tolist() == pytest.approx(after.column("credit/advantages").tolist())
    capsys.readouterr()


def test_it_shows_among_the_methods(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", METHOD, "grpo", "copying:reinforce", "--json"]) == 0
    own, grpo, objective = json.loads(capsys.readouterr().out)
    assert own["kind"] == grpo["kind"] == "credit"
    assert own["name"] == "discounted:discounted"
    assert own["summary"].startswith("Group-relative outcome, discounted")
    assert own["needs"] == grpo["needs"] == ["reward/outcome"]
    assert own["bias"].startswith("biased")
    assert own["source"] == "none; the example of CONTRIBUTING.md."
    assert 0 < own["lines"] < 30
    assert (objective["kind"], objective["scope"], objective["now"]) == ("objective", "token", ["log_probs"])
    assert main(["methods", METHOD]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("credit methods\n  discounted:discounted")
    assert "grpo" not in shown
    assert "objectives" not in shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("discountd", "unknown method 'discountd'"),
        ("discounted:discountd", "unknown name in discounted 'discountd': did you mean 'discounted'"),
        ("no_such_module:method", "cannot import 'no_such_module'"),
        ("discounted:discounted(discount=2)", "discount is 2, expected 0 to 1"),
        ("copying:digits", "made a Source, expected the credit.Stage of a credit method or an objectives.Objective"),
    ],
)
def test_a_name_of_no_method(name: str, message: str, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_a_name_registered_twice_shows_both(capsys: pytest.CaptureFixture[str]) -> None:
    from apportion.credit import METHODS
    from apportion.objectives import OBJECTIVES

    for name in sorted(set(METHODS) & set(OBJECTIVES)):
        assert main(["methods", name, "--json"]) == 0
        assert [row["kind"] for row in json.loads(capsys.readouterr().out)] == ["credit", "objective"]
