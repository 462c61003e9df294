"""JSONL, one record a response: the format in which rollouts come from elsewhere and leave again.

A file is lines of JSON objects of three kinds, told apart by the key they have. The documentation describes every
key with examples; in short::

    {"columns": {"token:log_probs/old": {"dtype": "float32", "maker": "trainer"}}, "spans": ["step"]}   optional
    {"pair": {"preferred": 17, "other": 18}}                                                            optional
    {"group": 3, "episode": 17, "prompt_ids": [5], "ids": [8, 9, 2],
     "token": {"log_probs/old": [-0.1, null, -2.5]}, "response": {"origin": "policy"},
     "episode_columns": {"reward/outcome": 1.0}, "spans": {"step": {"ranges": [[0, 2]], "score/prm": [0.5]}}}

In a reward an absent key is *absent* (never asked), null is *unknown* (asked, no verdict), a number is a score. In
any other column null and an absent key both mean *missing*. What is read equals what was written, entry for entry,
but for prompts that no response has, which are left out, and entries that are not finite, which become missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from apportion.errors import InputError
from apportion.rollouts.cells import SCHEMA, Cells, Header, cells_of, scored_name, with_unknown
from apportion.rollouts.columns import FIXED_LEVELS, split_name
from apportion.rollouts.files import written_aside
from apportion.rollouts.model import Rollouts
from apportion.rollouts.records import PAIR_KEYS, RANGES, Reader


def write_jsonl(rollouts: Rollouts, path: str | os.PathLike[str]) -> None:
    """Write rollouts as JSONL; the file appears when it is complete.

    Args:
        rollouts: any; episodes are written in their order.
        path: the file, by custom ``*.jsonl``; one that is there is replaced.

    Raises:
        InputError: the folder does not exist, or something in the rollouts cannot be written.
        RunStopped: the disk is full.

    Example:
        >>> import tempfile
        >>> rollouts = Rollouts.from_lists([[5, 6], [7]], groups=[0, 0], rewards=[1.0, None])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_jsonl(rollouts, f"{folder}/two.jsonl")
        ...     again = read_jsonl(f"{folder}/two.jsonl")
        >>> again.column("scored/outcome").tolist()
        [True, False]
    """
    with written_aside(path) as file:
        for record in records_of(rollouts):
            line = json.dumps({"schema": SCHEMA, **record}, separators=(",", ":"), allow_nan=False)
            file.write(line.encode() + b"\n")


def read_jsonl(path: str | os.PathLike[str]) -> Rollouts:
    """Read a JSONL file into memory. Groups may come in any order; the records of an episode stand together.

    Raises:
        InputError: the file is missing, empty, or a line of it cannot be used; the message names it.
    """
    (rollouts,) = Reader(path).parts(by_group=False)
    return rollouts


def stream_jsonl(path: str | os.PathLike[str]) -> Iterator[Rollouts]:
    """Read a JSONL file group by group, holding one group in memory.

    The records of a group stand together, its pairs come before its end, and a columns record comes first. As in
    :meth:`Rollouts.groups`, pairs across groups belong to none of them.

    Raises:
        InputError: as :func:`read_jsonl`; also when a group comes again after another began.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/two.jsonl"
        ...     write_jsonl(Rollouts.from_lists([[5, 6], [7]], groups=[0, 1]), path)
        ...     [group.n_tokens for group in stream_jsonl(path)]
        [2, 1]
    """
    return Reader(path).parts(by_group=True)


def records_of(rollouts: Rollouts) -> Iterator[dict[str, Any]]:
    """The records of a file: columns first, then pairs, then responses."""
    rollouts = rollouts.to("cpu")
    writers = _writers(rollouts)
    yield {
        "columns": {name: Header.of(name, c).to_json(name) for name, c in rollouts.columns.items()},
        "spans": list(rollouts.spans),
        "pairs": rollouts.pairs is not None,
    }
    if rollouts.pairs is not None:
        sides = zip(rollouts.pairs.preferred.tolist(), rollouts.pairs.other.tolist(), strict=True)
        for row, (preferred, other) in enumerate(sides):
            yield {"pair": {"preferred": preferred, "other": other, **_single(writers["pair"], row)}}

    ids, offsets = rollouts.ids.numpy(), rollouts.token_offsets.tolist()
    prompt_ids, prompt_offsets = rollouts.prompt_ids.numpy(), rollouts.prompt_offsets.tolist()
    prompts, groups = rollouts.prompts.tolist(), rollouts.group_ids.tolist()
    span_bounds = {
        kind: np.searchsorted(of_span.numpy(), np.arange(rollouts.n_responses + 1)).tolist()
        for kind, of_span in rollouts.response_of_span.items()
    }
    span_ranges = {
        kind: np.stack([spans.starts.numpy(), spans.ends.numpy()], axis=1) for kind, spans in rollouts.spans.items()
    }
    for response, episode in enumerate(rollouts.episode_of_response.tolist()):
        start, end, prompt = offsets[response], offsets[response + 1], prompts[response]
        record: dict[str, Any] = {
            "group": groups[episode],
            "episode": episode,
            "prompt_index": prompt,
            "prompt_ids": prompt_ids[prompt_offsets[prompt] : prompt_offsets[prompt + 1]].tolist(),
            "ids": ids[start:end].tolist(),
        }
        spans = {}
        for kind, bounds in span_bounds.items():
            first, last = bounds[response], bounds[response + 1]
            if first < last:
                ranges = (span_ranges[kind][first:last] - start).tolist()
                spans[kind] = {"ranges": ranges, **_several(writers[kind], first, last)}
        parts = {
            "token": _several(writers["token"], start, end),
            "response": _single(writers["response"], response),
            "episode_columns": _single(writers["episode"], episode),
            "spans": spans,
        }
        yield record | {key: part for key, part in parts.items() if part}


def _single(writers: Sequence[_Writer], row: int) -> dict[str, Any]:
    return {key: value for writer in writers for key, value in writer.single(row).items()}


def _several(writers: Sequence[_Writer], start: int, end: int) -> dict[str, Any]:
    return {key: value for writer in writers for key, value in writer.several(start, end).items()}


@dataclass(frozen=True, eq=False)
class _Writer:
    """A column on its way out.

    Attributes:
        name: without its level.
        cells: its entries.
        asked: ``[n]``, for rewards False where absent; all False for other columns, whose nulls say nothing.
        scored: for rewards, the entries of the ``scored`` column, written only where the reward does not imply them.
    """

    name: str
    cells: Cells
    asked: np.ndarray
    scored: Cells | None = None

    def single(self, row: int) -> dict[str, Any]:
        """What the record of one row says."""
        result = {}
        if self.cells.valid[row] or self.asked[row]:
            result[self.name] = _listed(self.cells, row, row + 1)[0]
        if self.scored is not None and self.scored.valid[row] != self.asked[row]:
            result[self._scored_name] = _listed(self.scored, row, row + 1)[0]
        return result

    def several(self, start: int, end: int) -> dict[str, Any]:
        """What the record of some rows says. Null in a list is unknown, so absent rows among others need saying."""
        result = {}
        rows = slice(start, end)
        if self.cells.valid[rows].any() or self.asked[rows].any():
            result[self.name] = _listed(self.cells, start, end)
        if self.scored is not None:
            asked, scored = self.asked[rows], self.scored.valid[rows]
            if (asked != scored).any() or (asked.any() and not asked.all()):
                result[self._scored_name] = _listed(self.scored, start, end)
        return result

    @property
    def _scored_name(self) -> str:
        return "scored/" + self.name.removeprefix("reward/")


def _writers(rollouts: Rollouts) -> dict[str, list[_Writer]]:
    """The columns of every level, rewards together with their ``scored`` column."""
    result: dict[str, list[_Writer]] = {level: [] for level in (*FIXED_LEVELS, *rollouts.spans)}
    columns = with_unknown(rollouts.columns)
    implied = {scored_name(name) for name in columns}
    for name, column in columns.items():
        level, short = split_name(name)
        if short in (PAIR_KEYS if level == "pair" else (RANGES,) if level in rollouts.spans else ()):
            raise InputError(f"column {name!r} cannot be written, {short!r} is a key of its record: rename the column.")
        if name in implied:
            continue
        cells = cells_of(columns, name)
        if not isinstance(cells.values, tuple):
            cells = replace(cells, values=shortest(cells.values))
        writer = _Writer(short, cells, np.zeros(len(column), dtype=bool))
        beside = scored_name(name)
        if beside is not None and beside in columns:
            asked = np.ones_like(writer.asked) if column.present is None else column.present.numpy()
            writer = replace(writer, asked=asked, scored=cells_of(columns, beside))
        result[level].append(writer)
    return result


def _listed(cells: Cells, start: int, end: int) -> list[Any]:
    """Rows as JSON has them, None for null."""
    if isinstance(cells.values, tuple):
        return [text if ok else None for text, ok in zip(cells.values[start:end], cells.valid[start:end], strict=True)]
    rows = cells.values[start:end]
    valid = cells.valid[start:end]
    if cells.inner is None and valid.all():
        return rows.tolist()
    boxed = rows.astype(object)
    boxed[~valid if cells.inner is None else ~cells.inner[start:end]] = None
    return [row if ok else None for row, ok in zip(boxed.tolist(), valid, strict=True)]


def shortest(values: np.ndarray) -> np.ndarray:
    """float32 as those float64 that print with few digits and read back as the same float32; others as they are.

    Example:
        >>> shortest(np.array([0.1], dtype=np.float32)).tolist(), float(np.float32(0.1))
        ([0.1], 0.10000000149011612)
    """
    if values.dtype != np.float32:
        return values
    result = values.astype(np.float64)
    with np.errstate(all="ignore"):
        magnitude = np.floor(np.log10(np.abs(result)))
        for digits in (9, 7):
            scale = 10.0 ** (digits - 1 - magnitude)
            rounded = np.round(result * scale) / scale
            result = np.where(rounded.astype(np.float32) == values, rounded, result)
    return result
