"""Golden files: where they are, what a case is, and when two results are equal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

VECTORS = Path(__file__).parent / "vectors"
"""The repository's own vectors."""

FOLDER = Path(os.environ.get("APPORTION_GOLDEN") or VECTORS)
"""The vectors to test against."""

NOT_ARGUMENTS = ("name", "inputs", "params", "expected", "atol", "source", "reason")


@dataclass(frozen=True)
class Case:
    """One case of a golden file.

    Attributes:
        name: its name in the file.
        arguments: inputs and parameters by name, and whatever else the case says (``op``).
        expected: results by name, or ``{"error": ...}``: refused with a ValueError.
        atol: largest allowed difference of two numbers; 0 where the case has none.
    """

    name: str
    arguments: Mapping[str, Any]
    expected: Mapping[str, Any]
    atol: float

    @property
    def refused(self) -> bool:
        """The input is bad and must raise."""
        return set(self.expected) == {"error"}


def read_cases(path: Path) -> list[Case]:
    """All cases of a file."""
    cases = []
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        extra = {name: value for name, value in case.items() if name not in NOT_ARGUMENTS}
        arguments = {**case["inputs"], **(case.get("params") or {}), **extra}
        cases.append(Case(case["name"], arguments, case["expected"], case.get("atol", 0.0)))
    return cases


def plain(value: Any) -> Any:
    """Tensors as lists, tuples as lists, all the way down."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def differences(given: Any, expected: Any, atol: float, where: str = "") -> Iterator[str]:
    """Where a result is not what a case expects, in words.

    The whole of ``expected`` is compared. At the top a result may say more; everything below must match exactly.
    """
    if isinstance(expected, Mapping):
        if not isinstance(given, Mapping):
            yield f"{where or 'result'}: got {given!r}, expected the entries {sorted(expected)}"
            return
        for name in expected:
            if name in given:
                yield from differences(given[name], expected[name], atol, f"{where}.{name}" if where else name)
            else:
                yield f"{where or 'result'}: lacks {name!r}"
        if where and (surplus := sorted(set(given) - set(expected))):
            yield f"{where}: has {surplus}, which are not expected"
    elif isinstance(expected, list):
        if not isinstance(given, list) or len(given) != len(expected):
            yield f"{where}: got {given!r}, expected {len(expected)} entries"
            return
        for i, (one, other) in enumerate(zip(given, expected, strict=True)):
            yield from differences(one, other, atol, f"{where}[{i}]")
    elif not _equal(given, expected, atol):
        yield f"{where}: got {given!r}, expected {expected!r} within {atol}"


def _equal(given: Any, expected: Any, atol: float) -> bool:
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (given, expected)]
    if all(numbers):
        return given == expected or abs(given - expected) <= atol or (math.isnan(given) and math.isnan(expected))
    return not any(numbers) and type(given) is type(expected) and given == expected
