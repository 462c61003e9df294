"""One pass over a JSONL file that finds its groups, so that each can be read from wherever its records stand."""

from __future__ import annotations

import array
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from apportion.rollouts.cells import Header
from apportion.rollouts.columns import split_name
from apportion.rollouts.entries import inferred, rows_of
from apportion.rollouts.lines import columns_of, lines, spans_of

ONE_A_RESPONSE = ("response", "episode")
"""Levels of which a record gives one entry; of the others it gives a list."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Where the groups of a file are, and what its records mention.

    Attributes:
        places: ``[lines, 2]``, offset and number of every line: declarations and pairs first, then group by group, in
            the order in which groups begin.
        together: the records of every group stand together.
        columns: what groups that do not mention a column are told about it, by full name.
        kinds: the kinds of span.
    """

    places: np.ndarray
    together: bool
    columns: dict[str, Header] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()


def survey(path: str | os.PathLike[str]) -> Survey:
    """Look through a file, holding a few numbers a line in memory.

    Raises:
        InputError: the file cannot be read, or a line of it is no record.
    """
    offsets, numbers, groups = (array.array("q") for _ in range(3))
    order: dict[Any, int] = {}
    found: dict[str, Header] = {}
    kinds: dict[str, None] = {}
    for line in lines(Path(path)):
        name = line.record.get("group")
        known = isinstance(name, int | str)  # what is not is refused when it is read
        offsets.append(line.offset)
        numbers.append(line.number)
        groups.append(order.setdefault(name, len(order)) if known and "ids" in line.record else -1)
        if groups[-1] >= 0:
            kinds |= dict.fromkeys(spans_of(line.record, line.where))
            _mentioned(columns_of(line.record, line.where), found, line.where)
    group = np.array(groups, dtype=np.int64)
    responses = group[group >= 0]
    changes = int((responses[1:] != responses[:-1]).sum()) + 1 if len(responses) else 0
    places = np.stack([np.array(offsets, dtype=np.int64), np.array(numbers, dtype=np.int64)], axis=1)
    return Survey(places[np.argsort(group, kind="stable")], changes <= len(order), found, tuple(kinds))


def _mentioned(columns: dict[str, Any], found: dict[str, Header], where: str) -> None:
    """Take down the kind of entries of columns met for the first time; one that is only null so far may yet tell."""
    for name, given in columns.items():
        if name in found and found[name].dtype is not None:
            continue
        found.setdefault(name, Header())
        level, column = split_name(name)
        rows = [given] if level in ONE_A_RESPONSE else given
        if isinstance(rows, list) and any(row is not None for row in rows):
            part = rows_of(rows, 0, name, where)
            width = int(part.widths.max(initial=0)) if part.listed else None
            found[name] = Header(inferred(column.split("/")[0], [part]), width)
