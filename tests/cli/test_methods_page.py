"""docs/methods.md is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from apportion.cli.main import main
from apportion.cli.methods import describe
from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES

PAGE = Path(__file__).parents[2] / "docs/methods.md"


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--markdown"]) == 0
    assert PAGE.read_text() == capsys.readouterr().out, "refresh it: apportion methods --markdown > docs/methods.md"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_short_and_says_what_it_is(name: str) -> None:
    row = describe("credit", name, METHODS[name])
    assert row["summary"]
    assert row["lines"] < 100


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_short_and_says_what_it_is(name: str) -> None:
    row = describe("objective", name, OBJECTIVES[name])
    assert row["summary"]
    assert row["lines"] < 100
