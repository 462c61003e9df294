"""A step that cannot be read, wherever it stands, takes nothing with it but itself, and is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from apportion.cli.main import main
from apportion.errors import InputError
from apportion.viewer.agreeing import Comparison
from apportion.viewer.session import Session
from apportion.viewer.source import Source
from viewer.test_reports import opened
from viewer.worlds import tear, write_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("torn") / "run", steps=4)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A run to tear."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def without(whole: Path, folder: Path, *steps: int) -> Path:
    """The run as if steps had never been."""
    shutil.copytree(whole, folder)
    for step in steps:
        (folder / "rollouts" / f"step_{step:06d}.arrow").unlink()
    return folder


def compared(run: Path) -> Comparison:
    """Stored credit and GRPO on all of a run."""
    session = Session([run])
    comparison = Comparison(session.sources[0], ["stored", "grpo"], session.methods, None)
    comparison.work()
    return comparison


@pytest.mark.parametrize("torn", [(4,), (3, 4)])
def test_methods_are_offered_by_the_last_step_that_can_be_read(run: Path, torn: tuple[int, ...]) -> None:
    before = Session([run]).answer("methods", {})
    tear(run, *torn)
    assert Session([run]).answer("methods", {}) == before
    newest = Source(run).newest()
    assert newest is not None
    assert newest[0] == 4 - len(torn)


def test_a_run_of_torn_steps_only_says_what_is_wrong_with_the_last(run: Path) -> None:
    tear(run, 1, 2, 3, 4)
    with pytest.raises(InputError, match=r"step_000004\.arrow is not a whole Arrow file"):
        Session([run]).answer("methods", {})
    comparison = compared(run)
    assert comparison.result is None
    assert "nothing here can be read" in str(comparison.error)
    assert "step_000004.arrow" in str(comparison.error)


@pytest.mark.parametrize("torn", [1, 2, 4])
def test_methods_are_compared_on_the_other_steps(whole: Path, run: Path, tmp_path: Path, torn: int) -> None:
    tear(run, torn)
    found = []
    for comparison in (compared(without(whole, tmp_path / "without", torn)), compared(run)):
        assert comparison.error is None
        assert comparison.done == comparison.total
        found.append(comparison.result)
    (complaint,) = found[1]["left_out"]
    assert f"step_{torn:06d}.arrow is not a whole Arrow file" in complaint
    assert found[0]["left_out"] == []
    assert {**found[1], "left_out": []} == found[0]


def test_a_report_holds_the_rest_and_says_what_it_left_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tear(run, 2, 4)
    assert main(["report", str(run), "-o", str(tmp_path / "report.html")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line[: len("left out step 2: ")] for line in printed[1:]] == ["left out step 2: ", "left out step 4: "]
    answers = opened((tmp_path / "report.html").read_text())["answers"]
    assert {row[0] for row in answers["groups?run=0"]["rows"]} == {1, 3}
    agreement = answers["agreement?credit=stored%0Agrpo&run=0"]
    assert agreement["groups"] == 4
    assert len(agreement["left_out"]) == 2


def test_the_terminal_shows_the_last_step_that_can_be_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tear(run, 4)
    assert main(["view", str(run), "--terminal"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("run: step 3, group ")
    assert printed.err == "step 4 cannot be read: this is the last step that can\n"
    assert main(["view", str(run), "--terminal", "--step", "4"]) == 2
    assert "step_000004.arrow is not a whole Arrow file" in capsys.readouterr().err
