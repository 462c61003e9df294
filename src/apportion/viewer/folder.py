"""What a run's folder says about it, read while the run may still be writing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from apportion.errors import InputError


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is not there yet.

    JSON has no numbers that are not finite, and Python writes some all the same: here they are words, such as
    ``"Infinity"`` for a gradient norm that is never cut.

    Raises:
        InputError: the file holds something else.

    Example:
        >>> read_object(Path("no/such/summary.json"))
        {}
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes(), parse_constant=str, parse_float=_float_or_word)
    except ValueError as error:
        raise InputError(
            f"{path} is not whole JSON ({error}), expected what a run wrote: restore it, or look at another run."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a JSON object: restore it.")
    return content


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of a JSON-lines file and complaints about lines that are none.

    A last line without its end is being written, or was torn by a crash: it is left out and nothing is said. A number
    that is not finite is null.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "metrics.jsonl"
        ...     _ = path.write_text('{"step": 1}\\nnot a record\\n{"step": 2}\\n{"step": 3, "rew')
        ...     records, complaints = read_lines(path)
        >>> records, len(complaints)
        ([{'step': 1}, {'step': 2}], 1)
    """
    if not path.is_file():
        return [], []
    records: list[dict[str, Any]] = []
    complaints: list[str] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line, parse_constant=lambda word: None, parse_float=_float_or_null)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            complaints.append(f"line {number} of {path.name} is no JSON object and is left out")
    return records, complaints


def curves(records: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Records of one step each as columns of numbers, None where a step lacks one; steps ascend.

    Example:
        >>> curves([{"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.75, "entropy": 1.0}])
        {'step': [1, 2], 'reward': [0.5, 0.75], 'entropy': [None, 1.0]}
    """
    kept = sorted((r for r in records if _number(r.get("step")) is not None), key=lambda r: float(r["step"]))
    names = dict.fromkeys(name for record in kept for name, value in record.items() if _number(value) is not None)
    return {name: [_number(record.get(name)) for record in kept] for name in names}


def _float_or_null(text: str) -> float | None:
    """A number as written, None where no double is so large."""
    return value if math.isfinite(value := float(text)) else None


def _float_or_word(text: str) -> float | str:
    """A number as written, a word where no double is so large."""
    return value if math.isfinite(value := float(text)) else f"{'-' if value < 0 else ''}Infinity"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
