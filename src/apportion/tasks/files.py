"""Tasks from a file of prompts and answers: JSON lines, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import decimal
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apportion.errors import InputError, unknown_name
from apportion.tasks.source import Source
from apportion.tasks.task import Message, Task

PROMPT_COLUMNS = ("prompt", "question", "problem", "instruction")
"""Where a prompt is looked for when no column is named, in this order, letter case ignored."""
ANSWER_COLUMNS = ("answer", "solution", "target", "label", "ground_truth", "reward_model.ground_truth")
"""The same for answers; the last is a field inside a column, as verl's data files have it."""


class _Row(NamedTuple):
    place: str  # "line 3" or "row 3", counted from 1
    values: Mapping[str, Any]


class _Written(float):
    """A float that remembers how the file wrote it: 3.0 and 3.00 are the same number but not the same answer."""

    text: str

    def __new__(cls, text: str) -> _Written:
        number = super().__new__(cls, text)
        number.text = text
        return number


def from_file(
    path: str | Path,
    prompt: str | None = None,
    answer: str | None = None,
    held_out: int | float = 0.2,
    seed: int = 0,
    verifier: str = "math",
    name: str | None = None,
) -> Source:
    """Tasks from a file, one a row.

    Prompts are text or a list of chat messages ``{"role": ..., "content": ...}``. Answers are text or numbers; a row
    without one is kept with answer None, which verifiers that compare call unknown. All other columns go to the
    task's metadata, where a verifier of one's own finds them.

    Args:
        path: a file ending in .jsonl, .json (a list of objects), .csv (with a header) or .parquet; UTF-8.
        prompt: column of the prompts; found by name unless given. ``column.field`` reads inside an object.
        answer: column of the answers; likewise.
        held_out: distinct prompts to hold out: a number, or a fraction of the distinct ones.
        seed: chooses which prompts are held out.
        verifier: spec of the verifier.
        name: what metrics call the source; the file's name without its ending unless given.

    Raises:
        InputError: the file is absent, empty or malformed, a column is absent, a row has no usable prompt or answer,
            or no row has an answer.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sums.jsonl"
        >>> rows = [{"question": f"{a} + {a} =", "answer": 2 * a} for a in range(10)]
        >>> _ = file.write_text("\\n".join(map(json.dumps, rows)))
        >>> source = from_file(file, held_out=2)
        >>> source.name, len(source.train), len(source.held_out)
        ('sums', 8, 2)
    """
    path = Path(path)
    rows = _read(path)
    columns = _columns(rows)
    prompt = _find(path, "prompt", prompt, PROMPT_COLUMNS, columns)
    answer = _find(path, "answer", answer, ANSWER_COLUMNS, columns)
    source = path.stem if name is None else name
    tasks = []
    for row in rows:
        place = f"{row.place} of {path.name}"
        tasks.append(
            Task(
                prompt=_prompt(_value(row.values, prompt), prompt, place),
                answer=_answer(_value(row.values, answer), answer, place),
                source=source,
                metadata={key: value for key, value in row.values.items() if key not in (prompt, answer)},
            )
        )
    if all(task.answer is None for task in tasks):
        raise InputError(
            f"{path.name} has no answers: all {len(tasks)} values of {answer!r} are empty; fill them in or name "
            "another column with answer=."
        )
    return Source.divided(source, tasks, held_out, seed, verifier, path.name)


def _read(path: Path) -> Sequence[_Row]:
    if path.suffix.lower() not in READERS:
        raise InputError(f"cannot read tasks from {str(path)!r}: expected a file ending in {', '.join(READERS)}.")
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"the task file {str(path)!r} {problem}: give the path of a file that exists.")
    try:
        rows = READERS[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text (byte {error.start}): save it in that encoding.") from None
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}.") from error
    if not rows:
        raise InputError(f"{path.name} is empty: expected at least two rows with a prompt and an answer.")
    return rows


def _read_jsonl(path: Path) -> list[_Row]:
    rows = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line, parse_float=_Written)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"line {number} of {path.name} is not JSON ({_reason(error)}): mend or remove that line."
                ) from None
            rows.append(_object(value, f"line {number}", path))
    return rows


def _read_json(path: Path) -> list[_Row]:
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        return []
    try:
        values = json.loads(text, parse_float=_Written)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path.name} is not JSON ({_reason(error)}): mend it, or name it .jsonl if it has one object a line."
        ) from None
    if not isinstance(values, list):
        raise InputError(f"{path.name} holds a JSON {_kind(values)}, expected a list of objects, one a task.")
    return [_object(value, f"row {number}", path) for number, value in enumerate(values, start=1)]


def _read_csv(path: Path) -> list[_Row]:
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise InputError(f"{path.name} names a column twice in its header: give each its own name.")
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise InputError(
                        f"line {reader.line_num} of {path.name} has {len(fields)} fields where the header has "
                        f"{len(header)}: mend that line; text with commas belongs in double quotes."
                    )
                rows.append(_Row(f"line {reader.line_num}", dict(zip(header, fields, strict=True))))
        except csv.Error as error:
            raise InputError(f"line {reader.line_num} of {path.name} is not CSV ({error}): mend that line.") from None
    return rows


def _read_parquet(path: Path) -> list[_Row]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError('reading Parquet needs pyarrow: run pip install "apportion[train]".') from None
    try:
        values = parquet.read_table(path).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path.name} cannot be read as Parquet ({str(error).splitlines()[0]}): write it anew."
        ) from None
    return [_Row(f"row {number}", value) for number, value in enumerate(values, start=1)]


READERS: dict[str, Callable[[Path], list[_Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""File endings that can be read."""


def _object(value: Any, place: str, path: Path) -> _Row:
    if not isinstance(value, dict):
        raise InputError(f"{place} of {path.name} is a JSON {_kind(value)}, expected an object with named columns.")
    return _Row(place, value)


def _columns(rows: Iterable[_Row]) -> list[str]:
    """All column names in order of appearance, fields of objects as ``column.field``."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.values.items():
            names[name] = None
            if isinstance(value, dict):
                names.update(dict.fromkeys(f"{name}.{field}" for field in value))
    return list(names)


def _find(path: Path, role: str, given: str | None, usual: Sequence[str], columns: Sequence[str]) -> str:
    if given is not None:
        if given not in columns:
            raise unknown_name(f"column of {path.name}", given, columns)
        return given
    by_folded = {column.casefold(): column for column in reversed(columns)}
    for name in usual:
        if name in by_folded:
            return by_folded[name]
    raise InputError(
        f"{path.name} has no {role} column: expected one of {', '.join(usual)}, found {', '.join(columns)}; "
        f"name the right one with {role}=."
    )


def _value(values: Mapping[str, Any], column: str) -> Any:
    if column in values:
        return values[column]
    outer, _, field = column.partition(".")
    inner = values.get(outer)
    return inner.get(field) if isinstance(inner, dict) else None


def _prompt(value: Any, column: str, place: str) -> str | tuple[Message, ...]:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value:
        messages = tuple(_message(message, column, place) for message in value)
        if any(message["content"].strip() for message in messages):
            return messages
    elif value is not None and not isinstance(value, str | list):
        raise InputError(
            f"{place} has a prompt of type {_kind(value)} in {column!r}: expected text or a list of chat messages."
        )
    raise InputError(f"{place} has no prompt: {column!r} is empty; fill it in or remove the row.")


def _message(value: Any, column: str, place: str) -> Message:
    # Parquet fills the fields that other messages have with nulls.
    message = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {}
    if not {"role", "content"} <= message.keys() or not all(isinstance(v, str) for v in message.values()):
        raise InputError(
            f"{place} has the chat message {value!r} in {column!r}: expected an object of texts with 'role' and "
            "'content'."
        )
    return message


def _answer(value: Any, column: str, place: str) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, _Written):
        return value.text
    if isinstance(value, int | float | decimal.Decimal):
        return str(value)
    raise InputError(f"{place} has an answer of type {_kind(value)} in {column!r}: expected text or a number.")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}" if error.lineno == 1 else f"{error.msg} at line {error.lineno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else type(value).__name__
