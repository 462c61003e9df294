"""One group under every method: the numbers are those of the methods, and what is planted is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apportion.cli.example import GROUP
from apportion.cli.main import main
from apportion.credit import METHODS
from apportion.rollouts import Rollouts


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["methods", *words, "--example"]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    return json.loads(printed(capsys, *words, "--json"))  # type: ignore[no-any-return]


def test_every_registered_method_credits_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    shown = as_json(capsys)
    methods = {row["method"].partition("(")[0]: row for row in shown["methods"]}
    assert methods.keys() == METHODS.keys()
    assert not [row["refused"] for row in methods.values() if "refused" in row]
    for name, row in methods.items():
        assert [len(own) for own in row["advantages"]] == [len(own) for own in GROUP], name
        earned = {value for own in row["advantages"] for value in own}
        assert name == "none" or len(earned) > 1, f"{name} gives all tokens the same"
    assert methods["gae"]["planted"] == ["values/critic"]
    assert methods["tempo"]["planted"] == []


def test_numbers_are_those_of_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    shown = as_json(capsys, "tempo", "grpo(norm_by_std=False)")
    group = Rollouts.from_lists([list(own) for own in GROUP], groups=[0] * len(GROUP), rewards=shown["rewards"])
    for row, method in zip(
        [r for r in shown["methods"] if r["method"] in ("tempo", "grpo(norm_by_std=False)")],
        (METHODS["tempo"](), METHODS["grpo"](norm_by_std=False)),
        strict=True,
    ):
        given = [a for own in row["advantages"] for a in own]
        assert given == pytest.approx(method(group).advantages.tolist())


def test_people_get_a_row_a_method_and_are_told_what_is_planted(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    rows = {line.split()[0].rstrip("*"): line for line in text.splitlines() if line.split()}
    assert METHODS.keys() <= rows.keys()
    assert "+1.44" in rows["tempo"]
    assert "gae*" in text
    assert "planted from exact values" in text
    assert "planted" not in printed(capsys, "tempo")


def test_a_method_that_nothing_is_planted_for_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    method = "grpo(component='style')"
    assert "needs reward/style, which nothing plants here" in printed(capsys, method)
    assert as_json(capsys, method)["methods"][0]["advantages"] is None
