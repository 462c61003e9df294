"""The leaderboard is made of the JSON beside it, which has every registered method."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apportion.cli.main import main
from apportion.credit import METHODS
from apportion.evals.calibration.page import page, table

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads((DOCS / "calibration.json").read_text(encoding="utf-8"))


def test_the_page_is_made_of_the_json(found: dict[str, Any]) -> None:
    written = (DOCS / "leaderboard.md").read_text(encoding="utf-8")
    assert written == page(found), "docs/leaderboard.md is out of date: run apportion calibrate --write docs"


def test_every_registered_method_is_on_it(found: dict[str, Any]) -> None:
    missing = set(METHODS) - {line["method"] for line in found["methods"]}
    assert not missing, f"the leaderboard lacks {', '.join(missing)}: run apportion calibrate --write docs"


def test_it_holds_what_a_leaderboard_must(found: dict[str, Any]) -> None:
    """Nothing refuted, everything foretold, and figures for every method that has a gradient."""
    assert not [claim for claim in found["claims"] if claim["verdict"] == "refuted"]
    assert all(truth["holds"] for truth in found["truths"])
    assert len(found["truths"]) == 11
    without = {line["spec"] for line in found["methods"] if line["noise_against_baseline"] is None}
    assert without == {"none"}
    head, lines = table(found)
    assert all(len(line) == len(head) for line in lines)
    assert len(lines) == len(found["methods"])


def test_writing_makes_the_page_and_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", exc_type=ImportError)
    words = ["--methods", "rloo,grpo,gae", "--worlds", "stopping,dense_rewards", "--sizes", "4", "--quick"]
    assert main(["calibrate", *words, "--write", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    assert (tmp_path / "leaderboard.md").read_text(encoding="utf-8") == page(found)
    assert (tmp_path / "leaderboard.svg").read_text(encoding="utf-8").count("<path") > 100


def test_without_matplotlib_the_line_that_installs_it_is_said_before_the_work(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from apportion.cli.main import main; "
        f"sys.exit(main(['calibrate', '--methods', 'rloo', '--write', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'run pip install "apportion[dev]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
