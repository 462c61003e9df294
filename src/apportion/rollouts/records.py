"""The lines of a JSONL file, checked and handed on.

What the keys mean is in the documentation and, in short, at the top of :mod:`apportion.rollouts.interchange`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apportion.errors import InputError, unknown_name
from apportion.rollouts.cells import Header
from apportion.rollouts.columns import qualify
from apportion.rollouts.entries import integers, short
from apportion.rollouts.gather import Gathering
from apportion.rollouts.lines import RANGES, columns_of, lines, object_at, spans_of
from apportion.rollouts.model import Rollouts
from apportion.rollouts.survey import Survey

RESPONSE_KEYS = (
    *("schema", "group", "episode", "prompt_ids", "prompt_index", "ids"),
    *("token", "response", "episode_columns", "spans", "reward", "rewards", "prompt"),
)
COLUMNS_KEYS = ("schema", "columns", "spans", "pairs")
PAIR_KEYS = ("preferred", "other")


@dataclass(frozen=True)
class _Pair:
    order: int
    where: str
    preferred: int | str
    other: int | str
    columns: Mapping[str, Any]


class Reader:
    """Reads one file, whole or group by group.

    Args:
        path: the file.
        survey: of it, to read it group by group wherever the records of a group stand; None: in its order.
    """

    def __init__(self, path: str | os.PathLike[str], survey: Survey | None = None) -> None:
        self._path, self._survey = Path(path), survey
        self._headers: dict[str, Header] = {}
        self._kinds: dict[str, None] = dict.fromkeys(survey.kinds if survey is not None else ())
        self._group_numbers: dict[str, int] = {}
        self._group_type: type | None = None
        self._episodes: set[tuple[int, int | str]] = set()
        self._names: set[int | str] = set()
        self._complete: set[int | str | None] = set()
        self._repeated: int | str | None = None
        self._paired = False
        self._n_pairs = 0
        self._pairs: dict[int | str, list[_Pair]] = {}
        self._across: list[_Pair] = []

    def parts(self, by_group: bool) -> Iterator[Rollouts]:
        """The groups of the file, or all of it as one.

        Raises:
            InputError: something in the file cannot be used; the message begins with path and line.
        """
        part, ended, empty = Gathering(), set(), True
        group = episode = None
        places = None if self._survey is None else self._survey.places
        for _, _, where, record in lines(self._path, places):
            empty = False
            if "pair" in record:
                self._take_pair(record, where)
                continue
            if "columns" in record and "ids" not in record:
                if by_group and group is not None:
                    raise InputError(f"{where}: a columns record after the first response, expected it first: move it.")
                self._take_columns(record, where)
                continue
            _check_keys(record, RESPONSE_KEYS, where)
            number, name = self._group(record, where), _name(record, "episode", where)
            if by_group and group not in (None, number):
                yield self._finish(part)
                ended.add(group)
                self._episodes.clear()  # they are told apart within their group, which is complete
                part = Gathering()
            if number in ended:
                raise InputError(
                    f"{where}: group {record['group']!r} comes again after another began, expected the records of a "
                    "group together: sort the file by group, or read it whole with read_jsonl."
                )
            if name is None or (number, name) != (group, episode):
                self._begin_episode(part, number, name, where)
            group, episode = number, name
            self._take_response(record, where, part)
        if empty:
            raise InputError(f"{self._path} is empty, expected one record a response: check that it was written whole.")
        if group is not None or not by_group:
            yield self._finish(part)
        self._check_pairs(by_group)

    def _group(self, record: Mapping[str, Any], where: str) -> int:
        """The number of the group; names are numbered as they come."""
        if "group" not in record:
            raise InputError(f"{where}: a record without 'group', expected the number or name of the group it is in.")
        given = _name(record, "group", where)
        if given is None:
            raise InputError(f"{where}: group is null, expected a number or a name.")
        if self._group_type not in (None, type(given)):
            raise InputError(
                f"{where}: group is {given!r}, but earlier records have groups of the other kind: use numbers for all "
                "or names for all."
            )
        self._group_type = type(given)
        return given if isinstance(given, int) else self._group_numbers.setdefault(given, len(self._group_numbers))

    def _begin_episode(self, part: Gathering, group: int, name: int | str | None, where: str) -> None:
        if name is not None:
            if (group, name) in self._episodes:
                raise InputError(
                    f"{where}: episode {name!r} comes again after another began, expected the responses of an episode "
                    "next to each other, in order: sort the file, or give the episodes different names."
                )
            if name in self._names:
                self._repeated = name
                self._check_pairable(where)
            self._episodes.add((group, name))
            if self._pairs_to_come:
                self._names.add(name)
        part.begin_episode(group, name)

    @property
    def _pairs_to_come(self) -> bool:
        """Whether names of episodes that are done may yet be asked for; where lines are surveyed, pairs come first."""
        return self._survey is None or self._paired

    def _check_pairable(self, where: str) -> None:
        if self._paired and self._repeated is not None:
            raise InputError(
                f"{where}: episode {self._repeated!r} is in two groups and the file has pairs, which name episodes "
                "only: give every episode of the file a name of its own."
            )

    def _take_response(self, record: Mapping[str, Any], where: str, part: Gathering) -> None:
        if "ids" not in record:
            raise InputError(
                f"{where}: a record without 'ids', expected the token ids of a response: add them, or 'pair' or "
                "'columns' if it is a record of that kind."
            )
        ids = integers(record["ids"], "ids", where)
        prompt_index = record.get("prompt_index")
        if prompt_index is not None and type(prompt_index) is not int:
            raise InputError(f"{where}: prompt_index is {short(prompt_index)}, expected an integer.")
        prompt_ids = integers(record.get("prompt_ids", []), "prompt_ids", where)

        spans = {kind: _ranges(table[RANGES], kind, len(ids), where) for kind, table in spans_of(record, where).items()}
        part.add_response(ids, (prompt_index, prompt_ids), spans, columns_of(record, where), where)

    def _take_columns(self, record: Mapping[str, Any], where: str) -> None:
        _check_keys(record, COLUMNS_KEYS, where)
        for name, given in object_at(record, "columns", where).items():
            header = Header.from_json(given, f"{where}, column {name!r}")
            if self._headers.setdefault(qualify(name), header) != header:
                raise InputError(f"{where}: column {name!r} is declared twice and differently, expected one way.")
        kinds = record.get("spans", [])
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise InputError(f"{where}: spans of a columns record is {short(kinds)}, expected a list of kinds.")
        self._kinds |= dict.fromkeys(kinds)
        self._paired |= bool(record.get("pairs", False))

    def _take_pair(self, record: Mapping[str, Any], where: str) -> None:
        _check_keys(record, ("schema", "pair"), where)
        given = object_at(record, "pair", where)
        preferred, other = (_name(given, side, where) for side in PAIR_KEYS)
        if preferred is None or other is None:
            raise InputError(f"{where}: a pair without both 'preferred' and 'other', expected two episodes: name them.")
        if preferred in self._complete:
            raise InputError(
                f"{where}: a pair of episode {preferred!r}, whose group is complete, expected pairs before the end of "
                "their group: put them at the top of the file."
            )
        self._paired = True
        self._check_pairable(where)
        columns = {name: value for name, value in given.items() if name not in PAIR_KEYS}
        pair = _Pair(self._n_pairs, where, preferred, other, columns)
        self._n_pairs += 1
        self._pairs.setdefault(preferred, []).append(pair)

    def _finish(self, part: Gathering) -> Rollouts:
        """Build what was gathered, with the pairs among its episodes in the order of the file."""
        place = {name: index for index, name in enumerate(part.episodes) if name is not None}
        if self._pairs_to_come:
            self._complete.update(part.episodes)
        found = [pair for name in place for pair in self._pairs.pop(name, [])]
        for pair in sorted(found, key=lambda pair: pair.order):
            if pair.other in place:
                part.add_pair(place[pair.preferred], place[pair.other], pair.columns, pair.where)
            else:
                self._across.append(pair)
        mentioned = {} if self._survey is None else self._survey.columns
        return part.build(self._headers, mentioned, self._kinds, self._paired, str(self._path))

    def _check_pairs(self, by_group: bool) -> None:
        """Every pair must name episodes of this file; read group by group, some lie across groups."""
        lost = [(pair, pair.preferred) for pairs in self._pairs.values() for pair in pairs]
        lost += [(pair, pair.other) for pair in self._across if not by_group or pair.other not in self._names]
        for pair, name in lost:
            raise InputError(f"{pair.where}: a pair of episode {name!r}, expected episodes that are in this file.")


def _check_keys(record: Mapping[str, Any], valid: tuple[str, ...], where: str) -> None:
    for key in record:
        if key not in valid:
            raise InputError(f"{where}: {unknown_name('key', key, valid)}")


def _name(record: Mapping[str, Any], key: str, where: str) -> int | str | None:
    given = record.get(key)
    if given is None or (type(given) is int and -(2**63) <= given < 2**63) or isinstance(given, str):
        return given
    raise InputError(f"{where}: {key!r} is {short(given)}, expected an integer or text.")


def _ranges(given: Any, kind: str, length: int, where: str) -> np.ndarray:
    """``[S, 2]`` from ``[[start, end], ...]``."""
    if not isinstance(given, list) or not all(isinstance(row, list) and len(row) == 2 for row in given):
        raise InputError(f"{where}: ranges of {kind!r} are {short(given)}, expected [[start, end], ...].")
    flat = integers([bound for row in given for bound in row], f"ranges of {kind!r}", where)
    lengths_and_gaps = np.diff(flat, prepend=0, append=length)
    if (flat[::2] >= flat[1::2]).any() or (lengths_and_gaps < 0).any():
        raise InputError(
            f"{where}: ranges of {kind!r} are {short(given)}, expected sorted disjoint [start, end] with start < end "
            f"inside the {length} tokens of the response."
        )
    return flat.reshape(-1, 2)
