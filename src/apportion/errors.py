"""What can be wrong with what a user gave us.

    ApportionError
    ├── InputError (ValueError)          a value, file, name or setting that cannot be used
    │   └── MissingColumn (InputError)   rollouts lack a column; says which annotator makes it
    └── RunStopped (RuntimeError)        a run had to stop (non-finite loss, too many unknown rewards, full disk)

Every message is one sentence: what was given, what was expected, what to do. The command line prints it and
exits with code 2, never with a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ApportionError(Exception):
    """Root of every error this package raises on purpose."""


class InputError(ApportionError, ValueError):
    """Something the caller gave cannot be used."""


class MissingColumn(InputError):
    """Rollouts lack a column that a stage or an objective reads.

    Args:
        column: full name, such as ``log_probs/old`` or ``step:score/prm``.
        reader: who asked for it.
        maker: how it can be made, as the end of a sentence.
    """

    def __init__(self, column: str, reader: str, maker: str) -> None:
        self.column, self.reader, self.maker = column, reader, maker
        super().__init__(f"{reader} needs the column {column!r}, which these rollouts lack: {maker}.")

    def __reduce__(self) -> tuple[type[MissingColumn], tuple[str, str, str]]:
        return type(self), (self.column, self.reader, self.maker)


class RunStopped(ApportionError, RuntimeError):
    """A run stopped because going on would have produced wrong numbers or lost data."""


def unknown_name(kind: str, given: str, valid: Iterable[str], also: str = "") -> InputError:
    """The error for a name that is not known, with the nearest valid one.

    Example:
        >>> print(unknown_name("credit method", "tempa", ["grpo", "tempo"]))
        unknown credit method 'tempa': did you mean 'tempo'? Known: grpo, tempo.
    """
    names = sorted(valid)
    nearest = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    shown = ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:10])} and {len(names) - 10} more"
    return InputError(f"unknown {kind} {given!r}: {hint}Known: {shown}{also}.")


def check_share(name: str, value: float) -> None:
    """Refuse a setting that is not more than 0 and at most 1.

    Example:
        >>> check_share("rate", 1.0)
    """
    if not 0 < value <= 1:
        raise InputError(f"{name} is {value}, expected more than 0 and at most 1.")
