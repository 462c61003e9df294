"""Arrow: the format in which a run keeps its rollouts, one row a response.

Fields ``group``, ``episode``, ``prompt`` and ``ids`` say what a row is; ``prompt_ids`` is given at the first row of
every prompt. ``<kind>.starts`` and ``<kind>.ends`` are the ranges of its spans, from its beginning. Columns have their
full names: lists for tokens and spans, the same value in every row of an episode for its columns. A null is a missing
entry; in a reward it may also be unknown, which the ``scored/`` column beside it tells. The metadata of the schema
hold the version, how columns were made, and the pairs.

Suffix legend: N tokens, S spans, B responses, E episodes, K pairs, P prompts.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.rollouts.cells import (
    SCHEMA,
    TEXT,
    Cells,
    Header,
    cells_of,
    check_schema,
    column_of,
    widened,
    with_unknown,
)
from apportion.rollouts.columns import split_name
from apportion.rollouts.files import written_aside
from apportion.rollouts.model import Pairs, Rollouts, Spans

METADATA = b"apportion"


def write_arrow(rollouts: Rollouts, path: str | os.PathLike[str]) -> None:
    """Write rollouts as an Arrow IPC file, which appears when it is complete and on disk.

    Args:
        rollouts: any; episodes are written in their order.
        path: the file, by custom ``*.arrow``; one that is there is replaced.

    Raises:
        InputError: pyarrow is not installed, the folder does not exist, or something cannot be written.
        RunStopped: the disk is full; nothing is left behind.

    Example:
        >>> import tempfile
        >>> rollouts = Rollouts.from_lists([[5, 6], [7]], groups=[0, 0], rewards=[1.0, None])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_arrow(rollouts, f"{folder}/two.arrow")
        ...     again = read_arrow(f"{folder}/two.arrow")
        >>> again.column("scored/outcome").tolist()
        [True, False]
    """
    pa = _pyarrow()
    rollouts = rollouts.to("cpu")
    headers = {name: Header.of(name, column) for name, column in rollouts.columns.items()}
    metadata = {
        "schema": SCHEMA,
        "columns": {name: header.to_json(name) for name, header in headers.items()},
        "spans": list(rollouts.spans),
        "paired": rollouts.pairs is not None,
        "pairs": _packed(rollouts, headers),
    }
    fields = _fields(rollouts, headers)
    schema = pa.schema(
        [(name, array.type) for name, array in fields.items()], metadata={METADATA: json.dumps(metadata).encode()}
    )
    batch = pa.RecordBatch.from_arrays(list(fields.values()), schema=schema)
    with written_aside(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)


def read_arrow(path: str | os.PathLike[str]) -> Rollouts:
    """Read an Arrow file into memory.

    Raises:
        InputError: the file is missing, torn, no file of :func:`write_arrow`, or of another version.
    """
    with _opened(path) as source:
        return _File(source, path).rollouts()


def stream_arrow(path: str | os.PathLike[str], keep_order: bool = False) -> Iterator[Rollouts]:
    """Read an Arrow file group by group, in the order in which groups begin, holding one group in memory.

    As in :meth:`Rollouts.groups`, pairs across groups belong to none of them.

    Args:
        path: the file.
        keep_order: give a file whose groups do not stand together as one part, in its order.

    Raises:
        InputError: as :func:`read_arrow`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/two.arrow"
        ...     write_arrow(Rollouts.from_lists([[5, 6], [7]], groups=[0, 1]), path)
        ...     [group.n_tokens for group in stream_arrow(path)]
        [2, 1]
    """
    with _opened(path) as source:
        yield from _File(source, path).groups(keep_order)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise InputError(
            'files that end in .arrow need pyarrow, which is not installed: pip install "apportion[train]".'
        ) from error
    return pyarrow


def _fields(rollouts: Rollouts, headers: Mapping[str, Header]) -> dict[str, Any]:
    """The columns of the table by name, arrays of B rows."""
    pa = _pyarrow()
    episode = rollouts.episode_of_response
    offsets = {"token": rollouts.token_offsets}
    shown = np.sort(np.unique(rollouts.prompts.numpy(), return_index=True)[1])
    lengths = torch.zeros(rollouts.n_responses, dtype=torch.int64)
    prompt = rollouts.prompts[torch.from_numpy(shown)]
    starts, ends = rollouts.prompt_offsets[prompt], rollouts.prompt_offsets[prompt + 1]
    lengths[shown] = ends - starts
    prompt_ids = rollouts.prompt_ids[ragged.ranges(starts, ends)]
    repeated = np.ones(rollouts.n_responses, dtype=bool)
    repeated[shown] = False
    fields = {
        "group": pa.array(rollouts.group_ids[episode].numpy()),
        "episode": pa.array(episode.numpy()),
        "prompt": pa.array(rollouts.prompts.numpy()),
        "prompt_ids": _lists(pa.array(prompt_ids.numpy()), ragged.offsets_of(lengths), repeated),
        "ids": _lists(pa.array(rollouts.ids.numpy()), rollouts.token_offsets),
    }
    for kind, spans in rollouts.spans.items():
        response = rollouts.response_of_span[kind]
        offsets[kind] = ragged.offsets_of(torch.bincount(response, minlength=rollouts.n_responses))
        for end, bounds in (("starts", spans.starts), ("ends", spans.ends)):
            within = bounds - rollouts.token_offsets[response]
            fields[f"{kind}.{end}"] = _lists(pa.array(within.numpy()), offsets[kind])
    for name, header in headers.items():
        level = split_name(name)[0]
        array = _array(cells_of(rollouts.columns, name), header)
        if level == "episode":
            fields[name] = array.take(pa.array(episode.numpy()))
        elif level in offsets:
            fields[name] = _lists(array, offsets[level])
        elif level == "response":
            fields[name] = array
    return fields


def _packed(rollouts: Rollouts, headers: Mapping[str, Header]) -> str:
    """Pairs and their columns as text: a small Arrow table in base64."""
    pa = _pyarrow()
    none = torch.zeros(0, dtype=torch.int64)
    pairs = rollouts.pairs or Pairs(none, none)
    fields = {"preferred": pa.array(pairs.preferred.numpy()), "other": pa.array(pairs.other.numpy())}
    for name, header in headers.items():
        if split_name(name)[0] == "pair":
            fields[name] = _array(cells_of(rollouts.columns, name), header)
    table = pa.table(fields)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode()


def _array(cells: Cells, header: Header) -> Any:
    """The rows of a column as an Arrow array."""
    pa = _pyarrow()
    hidden = None if cells.valid.all() else ~cells.valid
    if header.dtype == TEXT:
        assert isinstance(cells.values, tuple)
        return pa.array(
            [text if ok else None for text, ok in zip(cells.values, cells.valid, strict=True)], type=pa.large_string()
        )
    if header.width is None:
        return pa.array(cells.values, mask=hidden)
    inner = None if cells.inner is None or cells.inner.all() else ~cells.inner.reshape(-1)
    entries = pa.array(np.asarray(cells.values).reshape(-1), mask=inner)
    return _lists(entries, torch.arange(len(cells.valid) + 1) * header.width, hidden)


def _lists(values: Any, offsets: Tensor, hidden: np.ndarray | None = None) -> Any:
    """Values end to end as an array of lists, null where ``hidden``."""
    pa = _pyarrow()
    mask = None if hidden is None or not hidden.any() else pa.array(hidden)
    return pa.LargeListArray.from_arrays(pa.array(offsets.numpy()), values, mask=mask)


def _opened(path: str | os.PathLike[str]) -> Any:
    """The file mapped into memory."""
    try:
        return _pyarrow().memory_map(os.fspath(path))
    except OSError as error:
        raise InputError(f"cannot read {path} ({error}), expected an Arrow file: check the path.") from error


class _File:
    """An open file, of which any episodes can be read."""

    def __init__(self, source: Any, path: str | os.PathLike[str]) -> None:
        pa = _pyarrow()
        self._path = os.fspath(path)
        try:
            self._table = pa.ipc.open_file(source).read_all()
            self._table.validate()
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{path} is not a whole Arrow file ({error}), expected one of write_arrow: write it again."
            ) from error
        metadata = json.loads((self._table.schema.metadata or {}).get(METADATA, b"{}"))
        if not metadata:
            raise InputError(
                f"{path} is an Arrow file of something else than rollouts, expected one of write_arrow: bring other "
                "data as JSONL."
            )
        check_schema(metadata.get("schema"), self._path)
        self._headers = {name: Header.from_json(given, name) for name, given in metadata["columns"].items()}
        self._kinds, self._paired = metadata["spans"], metadata["paired"]
        self._pairs = pa.ipc.open_stream(base64.b64decode(metadata["pairs"])).read_all()

    def groups(self, keep_order: bool = False) -> Iterator[Rollouts]:
        """Every group by itself, in the order in which they begin."""
        group = _numbers(self._table.column("group"))
        _, first, number = np.unique(group, return_index=True, return_inverse=True)
        if keep_order and int((group[1:] != group[:-1]).sum()) > max(len(first) - 1, 0):
            yield self.rollouts()
            return
        rows = np.split(np.argsort(number, kind="stable"), np.bincount(number).cumsum()[:-1])
        for index in np.argsort(first):
            yield self.rollouts(rows[index])

    def rollouts(self, rows: np.ndarray | None = None) -> Rollouts:
        """What some rows say, which are whole episodes; all by default."""
        table = self._table
        if rows is not None:
            whole = rows[-1] - rows[0] == len(rows) - 1
            table = table.slice(rows[0], len(rows)) if whole else table.take(rows)
        episode = _numbers(table.column("episode"))
        first = np.flatnonzero(np.diff(episode, prepend=-1))
        ids, lengths = _flat(table.column("ids"))
        offsets = {"token": ragged.offsets_of(lengths)}
        spans = {}
        for kind in self._kinds:
            starts, lengths = _flat(table.column(f"{kind}.starts"))
            ends, _ = _flat(table.column(f"{kind}.ends"))
            shift = torch.repeat_interleave(offsets["token"][:-1], lengths)
            spans[kind] = Spans(_tensor(starts) + shift, _tensor(ends) + shift)
            offsets[kind] = ragged.offsets_of(lengths)
        pairs, pair_rows = self._pairs_among(episode[first])
        columns = {}
        for name, header in self._headers.items():
            level = split_name(name)[0]
            if level in offsets:
                array, lengths = _flat(table.column(name))
                if not torch.equal(ragged.offsets_of(lengths), offsets[level]):
                    raise InputError(
                        f"{self._path}: {name!r} has lists of other lengths than the {level} lists, expected one "
                        "entry each: write the file again."
                    )
            elif level == "pair":
                array = _joined(self._pairs.column(name).take(pair_rows))
            else:
                array = _joined(table.column(name).take(first) if level == "episode" else table.column(name))
            columns[name] = column_of(_cells(array, header), header)
        used, prompts = np.unique(_numbers(table.column("prompt")), return_inverse=True)
        prompt_ids, prompt_offsets = self._prompts(used)
        try:
            return Rollouts(
                ids=_tensor(ids),
                token_offsets=offsets["token"],
                response_offsets=torch.from_numpy(np.append(first, len(episode))),
                group_ids=torch.from_numpy(_numbers(table.column("group"))[first]),
                prompt_ids=prompt_ids,
                prompt_offsets=prompt_offsets,
                prompts=torch.from_numpy(prompts),
                columns=with_unknown(columns),
                spans=spans,
                pairs=pairs,
            )
        except InputError as error:
            raise InputError(f"{self._path}: {error}") from error

    def _pairs_among(self, episodes: np.ndarray) -> tuple[Pairs | None, np.ndarray]:
        """The pairs of which both are in ``episodes`` (ascending), by place there, and their rows."""
        sides = [_numbers(self._pairs.column(side)) for side in ("preferred", "other")]
        among = np.flatnonzero(np.isin(sides[0], episodes) & np.isin(sides[1], episodes))
        places = [torch.from_numpy(np.searchsorted(episodes, side[among])) for side in sides]
        return (Pairs(*places) if self._paired else None), among

    def _prompts(self, used: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens and offsets of some prompts, which may be given at the rows of another group."""
        numbers, rows = self._shown
        given = self._table.column("prompt_ids").take(rows[np.searchsorted(numbers, used)])
        ids, lengths = _flat(given)
        return _tensor(ids), ragged.offsets_of(lengths)

    @cached_property
    def _shown(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (ascending) of all prompts, and the rows at which their tokens are given."""
        shown = np.flatnonzero(self._table.column("prompt_ids").is_valid().to_numpy())
        numbers = _numbers(self._table.column("prompt"))[shown]
        order = np.argsort(numbers)
        return numbers[order], shown[order]


def _joined(column: Any) -> Any:
    """A column of a table as one array, without a copy where it is one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _flat(column: Any) -> tuple[Any, Tensor]:
    """Lists as the array of their entries, end to end, and the length of each."""
    array = _joined(column)
    return array.flatten(), torch.from_numpy(_numbers(array.value_lengths()))


def _numbers(array: Any) -> np.ndarray:
    """A copy as numpy, 0 where null; the file's own memory is read-only."""
    pa = _pyarrow()
    filled = array.fill_null(pa.scalar(0).cast(array.type)) if array.null_count else array
    return np.array(filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy())


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(_numbers(array))


def _cells(array: Any, header: Header) -> Cells:
    """The entries of a column from its array."""
    valid = np.array(array.is_valid().to_numpy(zero_copy_only=False))
    if header.dtype == TEXT:
        return Cells(tuple(array.to_pylist()), valid)
    if header.width is None:
        return Cells(_numbers(array), valid)
    entries, shape = array.flatten(), (int(valid.sum()), header.width)
    values = np.zeros((len(array), header.width), dtype=widened(str(header.dtype)))
    inner = np.zeros(values.shape, dtype=bool)
    values[valid] = _numbers(entries).reshape(shape)
    inner[valid] = entries.is_valid().to_numpy(zero_copy_only=False).reshape(shape)
    return Cells(values, valid, inner)
