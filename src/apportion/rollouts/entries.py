"""Entries of a column as JSON gives them, checked, and assembled into the column's table.

Suffix legend: n rows of the column's table, k entries a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apportion.errors import InputError
from apportion.rollouts.cells import DTYPES, TEXT, Cells, Header, widened
from apportion.rollouts.columns import EVERY_ROW, split_name

REAL = {
    *("reward", "score", "log_probs", "entropy", "vocab_mean", "values", "values_end", "waad", "fai"),
    *("weight", "temperature", "margin"),
}
"""First words of columns that are real numbers even where every entry happens to be written as an integer."""

KINDS = {bool: "bool", int: "int", float: "float", str: TEXT}


@dataclass(frozen=True, eq=False)
class Rows:
    """Consecutive rows of a column as one record gave them.

    Attributes:
        start: number of the first row in the table.
        valid: ``[n]`` bool, False where the row is null.
        listed: whether rows are lists of entries; None where all are null.
        widths: entries of every row that is not null.
        kind: ``int``, ``float``, ``bool``, ``text``, or ``null`` where no entry is anything else.
        values: entries of those rows end to end; 0 where an entry inside a row is null.
        inner: beside ``values``, False where an entry inside a row is null.
        where: path and line.
    """

    start: int
    valid: np.ndarray
    listed: bool | None
    widths: np.ndarray
    kind: str
    values: np.ndarray | tuple[str, ...]
    inner: np.ndarray
    where: str


def short(value: object) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def integers(given: Any, name: str, where: str) -> np.ndarray:
    """A list of integers of at most 64 bits.

    Raises:
        InputError: it is anything else.
    """
    if not isinstance(given, list) or not set(map(type, given)) <= {int}:
        raise InputError(f"{where}: {name} is {short(given)}, expected a list of integers.")
    try:
        return np.array(given, dtype=np.int64)
    except OverflowError:
        raise InputError(f"{where}: {name} has an integer beyond 64 bits, expected smaller ones.") from None


def rows_of(given: Sequence[Any], start: int, name: str, where: str) -> Rows:
    """What a record says of a column.

    Raises:
        InputError: entries of different kinds, or numbers that are not finite.
    """
    rows, valid = _without_null(given)
    widths, inner = np.ones(len(rows), dtype=np.int64), np.ones(len(rows), dtype=bool)
    types = set(map(type, rows))
    listed = types == {list} if rows else None
    if listed:
        widths = np.array([len(row) for row in rows], dtype=np.int64)
        rows, inner = _without_null([entry for row in rows for entry in row])
        types = set(map(type, rows))
    if len(types) < 2:
        kind = KINDS.get(next(iter(types))) if types else "null"
    else:
        kind = "float" if types == {int, float} else None
    if kind is None or (listed and kind == TEXT):
        raise InputError(
            f"{where}: {name!r} holds {' and '.join(sorted(t.__name__ for t in types))}, expected numbers, text, "
            "true and false, or lists of numbers, of one kind throughout."
        )
    if kind == TEXT:
        return Rows(start, valid, listed, widths, kind, tuple(rows), inner, where)
    values = integers(rows, repr(name), where) if kind == "int" else np.array(rows, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{where}: {name!r} has a number that is not finite: write null where one is missing.")
    if not inner.all():
        known, values = values, np.zeros(len(inner), dtype=values.dtype)
        values[inner] = known
    return Rows(start, valid, listed, widths, kind, values, inner, where)


def _without_null(given: Sequence[Any]) -> tuple[list[Any], np.ndarray]:
    """The entries that are not null, and which those are."""
    if type(None) not in set(map(type, given)):
        return list(given), np.ones(len(given), dtype=bool)
    return [one for one in given if one is not None], np.array([one is not None for one in given], dtype=bool)


def assemble(name: str, parts: Sequence[Rows], n: int, header: Header) -> tuple[Cells, np.ndarray]:
    """A column of ``n`` rows from what records said of it in order, and where they said anything, if only null.

    Returns:
        The entries, and ``[n]`` bool.

    Raises:
        InputError: entries that do not fit together; the message begins with path and line.
    """
    word = split_name(name)[1].split("/")[0]
    dtype = header.dtype or inferred(word, parts)
    valid, seen = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for part in parts:
        rows = slice(part.start, part.start + len(part.valid))
        valid[rows], seen[rows] = part.valid, True
    values = [_cast(part, dtype, name, header.dtype is not None or word in REAL) for part in parts]
    if dtype == TEXT:
        texts: list[str | None] = [None] * n
        for row, text in zip(np.flatnonzero(valid), (t for v in values for t in v), strict=True):
            texts[row] = text
        return Cells(tuple(texts), valid), seen

    longest = [int(part.widths.max(initial=0)) for part in parts if part.listed]
    width = header.width if header.width is not None else max(longest, default=None)
    for part in parts:
        _check_width(part, name, width, ragged=word in ("reward", "scored"))
    table = np.zeros((n, 1 if width is None else width), dtype=widened(dtype))
    inner = np.zeros(table.shape, dtype=bool)
    if word in EVERY_ROW:
        table[~seen], valid[~seen] = 1, True
    widths = np.zeros(n, dtype=np.int64)
    if parts:
        widths[valid & seen] = np.concatenate([part.widths for part in parts])
        cells = np.arange(table.shape[1]) < widths[:, None]
        table[cells] = np.concatenate(values)
        inner[cells] = np.concatenate([part.inner for part in parts])
    return (Cells(table[:, 0], valid) if width is None else Cells(table, valid, inner)), seen


def inferred(word: str, parts: Sequence[Rows]) -> str:
    """The dtype of a column for which the file says none; ``word`` is the first of its name."""
    if word in REAL:
        return "float64"
    if word in ("trained", "scored"):
        return "bool"
    kinds = {part.kind for part in parts} - {"null"}
    if TEXT in kinds:
        return TEXT
    if kinds == {"bool"}:
        return "bool"
    return "int64" if kinds == {"int"} else "float64"


def _cast(part: Rows, dtype: str, name: str, lenient: bool) -> np.ndarray | tuple[str, ...]:
    """Entries in the dtype of their column; true and false are 1 and 0 where ``lenient``."""
    if part.kind == "null":
        return () if dtype == TEXT else np.zeros(len(part.values), dtype=widened(dtype))
    fits = (dtype == TEXT) == (part.kind == TEXT) and (lenient or dtype == "bool" or part.kind != "bool")
    if fits and dtype == TEXT:
        return part.values
    if fits:
        with np.errstate(over="ignore", invalid="ignore"):
            result = np.asarray(part.values).astype(widened(dtype))
        exact = DTYPES[dtype].is_floating_point or np.array_equal(result, part.values)
        if exact and np.isfinite(result).all():
            return result
    raise InputError(
        f"{part.where}: {name!r} has {part.kind} entries, which do not fit a column of {dtype} as the rest of the "
        "file has it: write one kind, or another dtype in the columns record."
    )


def _check_width(part: Rows, name: str, width: int | None, ragged: bool) -> None:
    if part.listed is None:
        return
    if part.listed != (width is not None):
        found, wanted = ("lists", "single entries") if part.listed else ("single entries", "lists")
        raise InputError(f"{part.where}: {name!r} has {found} as rows, expected {wanted} as in the rest of the file.")
    if width is None or (bool((part.widths <= width).all()) and ragged):
        return
    if not bool((part.widths == width).all()) or not bool(part.inner.all()):
        raise InputError(
            f"{part.where}: {name!r} has rows of {sorted(set(part.widths.tolist()))} entries with "
            f"{int((~part.inner).sum())} nulls, expected {width} numbers each: only rewards may have holes."
        )
