"""Columns that must have been made in a certain way."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import Rollouts


def made_with(rollouts: Rollouts, name: str, reader: str, **wanted: Any) -> Tensor:
    """The numbers of a column, unless it records that it was made with other settings than the reader's.

    A setting that the column does not record, as when it came with a file, is taken on trust.

    Raises:
        MissingColumn: there is no such column.
        InputError: it was made with other settings, or an entry that is to be used is missing.

    Example:
        >>> import torch
        >>> one = Rollouts.from_lists([[5]], groups=[0]).with_column("waad/old", torch.ones(1), window=3)
        >>> made_with(one, "waad/old", "a method", window=3).tolist()
        [1.0]
    """
    values = rollouts.column(name, reader=reader)
    full = rollouts.find(name)
    column = rollouts.columns[full or name]
    for setting, value in wanted.items():
        if setting in column.parameters and column.parameters[setting] != value:
            raise InputError(
                f"{reader} needs {name!r} made with {setting}={value!r}, but {column.maker} made it with "
                f"{setting}={column.parameters[setting]!r}: make it again, or give the method that setting."
            )
    return values
