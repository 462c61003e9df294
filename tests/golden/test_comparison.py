"""The golden comparison leaves nothing out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from golden.files import differences, plain, read_cases

EXPECTED = {"loss": 1.0, "rows": [[1.0, 2.0], []], "kept": [True], "tree": {"a": None, "b": "x"}}


def with_entry(name: str, value: Any) -> dict[str, Any]:
    return {**EXPECTED, name: value}


def test_equal_within_tolerance() -> None:
    given = with_entry("rows", [torch.tensor([1.0, 2.0 + 0.9e-3], dtype=torch.float64), ()])
    assert list(differences(plain(given), EXPECTED, atol=1e-3)) == []
    assert list(differences({**EXPECTED, "more": 1}, EXPECTED, atol=0)) == []
    assert list(differences({"x": float("nan")}, {"x": float("nan")}, atol=0)) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({k: v for k, v in EXPECTED.items() if k != "loss"}, "result: lacks 'loss'"),
        (with_entry("loss", 1.0011), "loss: got 1.0011"),
        (with_entry("loss", float("nan")), "loss: got nan"),
        (with_entry("loss", True), "loss: got True"),
        (with_entry("loss", "1.0"), "loss: got '1.0'"),
        (with_entry("loss", None), "loss: got None"),
        (with_entry("rows", [[1.0, 2.0]]), "rows: got"),
        (with_entry("rows", [[1.0], [2.0]]), r"rows[0]: got"),
        (with_entry("rows", [[1.0, 2.5], []]), r"rows[0][1]: got 2.5"),
        (with_entry("rows", 3.0), "rows: got 3.0"),
        (with_entry("kept", [1]), "kept[0]: got 1"),
        (with_entry("kept", [False]), "kept[0]: got False"),
        (with_entry("tree", {"a": None}), "tree: lacks 'b'"),
        (with_entry("tree", {"a": 0, "b": "x"}), "tree.a: got 0"),
        (with_entry("tree", {"a": None, "b": "x", "c": 1}), "tree: has ['c']"),
        (with_entry("tree", []), "tree: got []"),
        (None, "result: got None"),
    ],
)
def test_different(given: Any, said: str) -> None:
    assert next(differences(given, EXPECTED, atol=1e-3)).startswith(said)


def test_cases_are_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "method.json"
    cases = [
        {"name": "one", "inputs": {"x": 1}, "params": {"y": 2}, "op": "sum", "expected": {"z": 3}, "atol": 0.5},
        {"name": "two", "inputs": {}, "expected": {"error": "ValueError"}, "reason": "empty"},
    ]
    file.write_text(json.dumps({"method": "sum", "cases": cases}))
    one, two = read_cases(file)
    assert (one.arguments, one.expected, one.atol, one.refused) == ({"x": 1, "y": 2, "op": "sum"}, {"z": 3}, 0.5, False)
    assert (two.arguments, two.atol, two.refused) == ({}, 0.0, True)
