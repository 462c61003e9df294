"""The lines of a JSONL file as objects, and the columns that a record of a response gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from apportion.errors import InputError
from apportion.rollouts.cells import SCHEMA, check_schema
from apportion.rollouts.columns import FIXED_LEVELS
from apportion.rollouts.entries import short

RANGES = "ranges"
"""The key of a span table that holds its ranges, beside its columns."""


class Line(NamedTuple):
    """A line that is not blank.

    Attributes:
        offset: its first byte.
        number: from 1.
        where: path and number, for messages.
        record: the object on it.
    """

    offset: int
    number: int
    where: str
    record: dict[str, Any]


def lines(path: Path, places: np.ndarray | None = None) -> Iterator[Line]:
    """The lines of a file.

    Args:
        path: the file.
        places: ``[lines, 2]``, offset and number of those to read, in that order; None: all.

    Raises:
        InputError: the file cannot be read, or a line of it is no object of this version of the format.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}), expected a JSONL file: check the path.") from error
    with file:
        if places is None:
            offset = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _line(path, offset, number, line)
                offset += len(line)
            return
        for place in places:
            offset, number = place.tolist()
            file.seek(offset)
            yield _line(path, offset, number, file.readline())


def _line(path: Path, offset: int, number: int, text: bytes) -> Line:
    where = f"{path}, line {number}"
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is not JSON ({error}), expected one object a line: check that the file is JSONL and was "
            "written whole."
        ) from error
    if not isinstance(record, dict):
        raise InputError(f"{where} is {short(record)}, expected an object with the keys of a record.")
    check_schema(record.get("schema", SCHEMA), where)
    return Line(offset, number, where, record)


def object_at(record: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """What a record has under a key, which is an object; an empty one where it has nothing."""
    given = record.get(key, {})
    if not isinstance(given, dict):
        raise InputError(f"{where}: {key!r} is {short(given)}, expected an object of names and entries.")
    return given


def spans_of(record: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The span tables of a response by kind, each with its ranges and columns."""
    spans = {}
    for kind, table in object_at(record, "spans", where).items():
        if kind in FIXED_LEVELS or ":" in kind:
            raise InputError(
                f"{where}: {kind!r} cannot be a kind of span, expected a name without a colon that is not one of "
                f"{', '.join(FIXED_LEVELS)}: choose another."
            )
        table = {RANGES: table} if isinstance(table, list) else object_at({kind: table}, kind, where)
        if RANGES not in table:
            raise InputError(f"{where}: spans of kind {kind!r} lack {RANGES!r}, expected [[start, end], ...].")
        spans[kind] = table
    return spans


def columns_of(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the record of a response says of every column, by full name, short forms included.

    Raises:
        InputError: it says something twice.
    """
    columns: dict[str, Any] = {}

    def put(level: str, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            if f"{level}:{name}" in columns:
                raise InputError(f"{where}: {level}:{name} is given twice, expected once: leave one out.")
            columns[f"{level}:{name}"] = value

    put("token", object_at(record, "token", where))
    if isinstance(record.get("response"), str):
        put("response", {"text": record["response"]})
    else:
        put("response", object_at(record, "response", where))
    if "prompt" in record:
        put("response", {"prompt": record["prompt"]})
    put("episode", object_at(record, "episode_columns", where))
    put("episode", {f"reward/{name}": value for name, value in object_at(record, "rewards", where).items()})
    if "reward" in record:
        put("episode", {"reward/outcome": record["reward"]})
    if isinstance(record.get("group"), str):
        columns.setdefault("episode:group_name", record["group"])
    for kind, table in spans_of(record, where).items():
        put(kind, {name: value for name, value in table.items() if name != RANGES})
    return columns
