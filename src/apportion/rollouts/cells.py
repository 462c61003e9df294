"""Columns as files keep them: plain numbers or text, which of them are null, and a header that says the rest.

Both file formats share this module, so a column means the same in both. A null stands for a missing entry; in a
reward it also stands for one that was asked for and got no verdict, and the ``scored/`` column tells the two apart.

Suffix legend: n rows of the column's table, k entries a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from apportion.errors import InputError, unknown_name
from apportion.rollouts.columns import Column, split_name

SCHEMA = "apportion.rollouts/1"
"""Version of both file formats; a reader refuses any other."""

TEXT = "text"

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    )
}


def widened(dtype: str) -> str:
    """What numpy and files keep numbers of a dtype in; half precision they do not have, or not everywhere."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def check_schema(given: object, where: str) -> None:
    """Refuse what was written in another version of the format.

    Raises:
        InputError: ``given`` is not :data:`SCHEMA`.
    """
    if given != SCHEMA:
        raise InputError(
            f"{where} was written with schema {given!r}, expected {SCHEMA!r}: "
            "write it again with this version of apportion, or read it with the version that wrote it."
        )


@dataclass(frozen=True)
class Header:
    """What a file says about a column besides its entries.

    Attributes:
        dtype: name of a torch dtype, or ``text``; None where the file leaves it to the entries.
        width: k of a column ``[n, k]``; None for one entry a row.
        maker: as in :class:`Column`.
        parameters: as in :class:`Column`.
    """

    dtype: str | None = None
    width: int | None = None
    maker: str = "given"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(name: str, column: Column) -> Header:
        """The header of a column.

        Raises:
            InputError: it has numbers, dimensions or settings that files cannot hold.
        """
        dtype, width = TEXT, None
        if isinstance(column.values, torch.Tensor):
            dtype = str(column.values.dtype).removeprefix("torch.")
            if dtype not in DTYPES or column.values.dim() > 2:
                raise InputError(
                    f"column {name!r} is {dtype} of shape {tuple(column.values.shape)}, expected real numbers of "
                    "shape [rows] or [rows, k]: files hold no others, so reduce it first."
                )
            width = column.values.shape[1] if column.values.dim() == 2 else None
        return Header(dtype, width, column.maker, column.parameters)

    def to_json(self, name: str) -> dict[str, Any]:
        """As JSON, without what is at its default."""
        given = {"dtype": self.dtype, "width": self.width}
        result: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if self.maker != "given":
            result["maker"] = self.maker
        if self.parameters:
            result["parameters"] = _plain(dict(self.parameters), name)
        return result

    @staticmethod
    def from_json(given: Any, where: str) -> Header:
        """The inverse of :meth:`to_json`.

        Raises:
            InputError: unknown keys or entries of the wrong kind; the message begins with ``where``.
        """
        if not isinstance(given, dict):
            raise InputError(
                f"{where} is {given!r}, expected an object with dtype, width, maker and parameters, all optional."
            )
        keys = ("dtype", "width", "maker", "parameters")
        for key in given:
            if key not in keys:
                raise InputError(f"{where}: {unknown_name('key', key, keys)}")
        dtype, width = given.get("dtype"), given.get("width")
        if dtype is not None and dtype not in (*DTYPES, TEXT):
            raise InputError(f"{where}: {unknown_name('dtype', str(dtype), (*DTYPES, TEXT))}")
        if width is not None and (type(width) is not int or width < 0):
            raise InputError(f"{where}: width is {width!r}, expected a number of entries a row.")
        parameters = _restored(given.get("parameters", {}))
        if not isinstance(parameters, dict):
            raise InputError(f"{where}: parameters is {parameters!r}, expected an object.")
        return Header(dtype, width, str(given.get("maker", "given")), parameters)


def _plain(value: Any, name: str) -> Any:
    """A setting as JSON. Tuples are marked, because a column is refused when its settings come back different."""
    if isinstance(value, tuple):
        return {"__tuple__": [_plain(item, name) for item in value]}
    if isinstance(value, list):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, name) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and np.isfinite(value)):
        return value
    raise InputError(
        f"column {name!r} was made with a setting that files cannot hold, {value!r}: expected finite numbers, text, "
        "lists, tuples or dictionaries of them by text."
    )


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"__tuple__"}:
            return tuple(_restored(item) for item in value["__tuple__"])
        return {key: _restored(item) for key, item in value.items()}
    return value


@dataclass(frozen=True, eq=False)
class Cells:
    """The entries of a column.

    Attributes:
        values: ``[n]`` or ``[n, k]``, or n strings; what stands where there is no entry means nothing. Half
            precision is widened to float32, which files can hold.
        valid: ``[n]`` bool, False where the whole row is null.
        inner: ``[n, k]`` bool, False where one entry of a reward row is null; None for other columns.
    """

    values: np.ndarray | tuple[str | None, ...]
    valid: np.ndarray
    inner: np.ndarray | None = None


def cells_of(columns: Mapping[str, Column], name: str) -> Cells:
    """The entries of a column: what is not present, not scored or not finite is null."""
    column = columns[name]
    valid = np.ones(len(column), dtype=bool) if column.present is None else column.present.cpu().numpy()
    if not isinstance(column.values, torch.Tensor):
        return Cells(column.values, valid & np.array([text is not None for text in column.values], dtype=bool))
    tensor = column.values.detach().cpu()
    values = (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()
    known = np.isfinite(values)
    scored = columns.get(scored_name(name) or "")
    if scored is not None:
        known &= scored.tensor.bool().cpu().numpy()
    if values.ndim == 1:
        return Cells(values, valid & known)
    if scored_name(name) is not None:
        return Cells(values, valid, known)
    return Cells(values, valid & known.all(1))


def column_of(cells: Cells, header: Header) -> Column:
    """A column from its entries; null rows are not present."""
    present = None if cells.valid.all() else torch.from_numpy(cells.valid.copy())
    if isinstance(cells.values, tuple):
        texts = tuple(text if ok else None for text, ok in zip(cells.values, cells.valid, strict=True))
        return Column(texts, present, header.maker, header.parameters)
    values = torch.from_numpy(cells.values)
    if header.dtype is not None:
        values = values.to(DTYPES[header.dtype])
    return Column(values, present, header.maker, header.parameters)


def scored_name(name: str) -> str | None:
    """The column that says where a reward was scored, or None where ``name`` is no reward.

    Example:
        >>> scored_name("step:reward/prm"), scored_name("step:score/prm")
        ('step:scored/prm', None)
    """
    level, short = split_name(name)
    return f"{level}:scored/{short.removeprefix('reward/')}" if short.startswith("reward/") else None


def with_unknown(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns as read, with *unknown* and *absent* told apart in every reward.

    A reward entry that is null and has ``scored`` false is present and unknown; where ``scored`` is null too it is
    absent. A reward that came without its ``scored`` column gets one: scored where it has a number.
    """
    result = dict(columns)
    for name, reward in columns.items():
        beside = scored_name(name)
        if beside is None or not isinstance(reward.values, torch.Tensor):
            continue
        present = torch.ones(len(reward), dtype=torch.bool) if reward.present is None else reward.present
        if beside not in columns:
            known = torch.ones(reward.values.shape, dtype=torch.bool)
            result[beside] = replace(reward, values=known)
        elif reward.values.dim() == 1:
            scored = columns[beside]
            asked = torch.ones_like(present) if scored.present is None else scored.present
            present = present | (asked & ~scored.tensor.bool())
            result[name] = replace(reward, present=None if bool(present.all()) else present)
    return result
