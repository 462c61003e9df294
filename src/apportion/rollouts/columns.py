"""A column: values of one level's table, which of them exist, and who made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from apportion.errors import InputError

FIXED_LEVELS = ("token", "response", "episode", "pair")
"""Levels every rollouts have; any other level is a kind of span."""

EVERY_ROW = ("trained", "weight")
"""Columns without missing entries: where there is none, all is trained, with weight 1."""


@dataclass(frozen=True, eq=False)
class Column:
    """Values of one table, one entry a row.

    Attributes:
        values: tensor ``[n]`` or ``[n, k]``, or a tuple of n strings. Entries that are not present hold anything.
        present: bool ``[n]``; False where the entry is *missing*. None: every entry is present.
        maker: which piece of code made the column, or ``given``.
        parameters: the settings it was made with; a reader that needs others refuses the column.
    """

    values: Tensor | tuple[str | None, ...]
    present: Tensor | None = None
    maker: str = "given"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def tensor(self) -> Tensor:
        """The values, where they are numbers."""
        if not isinstance(self.values, Tensor):
            raise InputError("this column holds text, expected numbers.")
        return self.values

    @property
    def text(self) -> tuple[str | None, ...]:
        """The values, where they are text."""
        if isinstance(self.values, Tensor):
            raise InputError("this column holds numbers, expected text.")
        return self.values

    def take(self, index: Tensor | slice) -> Column:
        """The rows named by ``index``, in that order; those of a slice are not copied."""
        if isinstance(self.values, Tensor):
            values: Tensor | tuple[str | None, ...] = self.values[index]
        elif isinstance(index, slice):
            values = self.values[index]
        else:
            values = tuple(self.values[i] for i in index.tolist())
        return replace(self, values=values, present=None if self.present is None else self.present[index])

    def to(self, device: torch.device | str) -> Column:
        """The same column on another device."""
        values = self.values.to(device) if isinstance(self.values, Tensor) else self.values
        return replace(self, values=values, present=None if self.present is None else self.present.to(device))


def concatenate(columns: list[Column | None], lengths: list[int], name: str) -> Column:
    """One column from several tables end to end; a table without it contributes missing rows.

    Raises:
        InputError: the parts were made by different makers or with different settings, have other numbers of
            entries a row, or mix text and numbers.
    """
    given = [column for column in columns if column is not None]
    first = given[0]
    if split_name(name)[1] in EVERY_ROW and isinstance(first.values, Tensor):
        # A part that does not say which tokens are trained, or weighted how, has all trained, and weighted alike.
        ones = [first.values.new_ones(n) for n in lengths]
        columns = [replace(first, values=one) if c is None else c for c, one in zip(columns, ones, strict=True)]
    for other in given[1:]:
        if (other.maker, dict(other.parameters)) != (first.maker, dict(first.parameters)):
            raise InputError(
                f"cannot join column {name!r}: one part was made by {first.maker} with {dict(first.parameters)}, "
                f"another by {other.maker} with {dict(other.parameters)}; make it again for all."
            )
        if isinstance(first.values, Tensor) and other.tensor.shape[1:] != first.values.shape[1:]:
            raise InputError(
                f"cannot join column {name!r}: rows of one part have shape {tuple(first.values.shape[1:])}, of another "
                f"{tuple(other.tensor.shape[1:])}; make it again for all."
            )
    everywhere = all(c is not None and c.present is None for c in columns)
    if isinstance(first.values, Tensor):
        blank, trailing = first.values, first.values.shape[1:]
        parts = [
            c.tensor if c is not None else blank.new_zeros((n, *trailing))
            for c, n in zip(columns, lengths, strict=True)
        ]
        values: Tensor | tuple[str | None, ...] = torch.cat(parts)
        device = blank.device
    else:
        values = tuple(
            v for c, n in zip(columns, lengths, strict=True) for v in (c.text if c is not None else (None,) * n)
        )
        device = next((c.present.device for c in given if c.present is not None), torch.device("cpu"))
    if everywhere:
        return replace(first, values=values, present=None)
    masks = []
    for column, n in zip(columns, lengths, strict=True):
        if column is None:
            masks.append(torch.zeros(n, dtype=torch.bool, device=device))
        elif column.present is None:
            masks.append(torch.ones(n, dtype=torch.bool, device=device))
        else:
            masks.append(column.present)
    return replace(first, values=values, present=torch.cat(masks))


def qualify(name: str) -> str:
    """The full name of a column: ``token`` is the level of a name that says none."""
    return name if ":" in name else f"token:{name}"


def split_name(name: str) -> tuple[str, str]:
    """Level and name of a full column name.

    Example:
        >>> split_name("log_probs/old"), split_name("step:score/prm")
        (('token', 'log_probs/old'), ('step', 'score/prm'))
    """
    level, _, column = qualify(name).partition(":")
    return level, column
