"""Command-line arguments from dataclasses, with errors of one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from apportion.errors import InputError, unknown_name

T = TypeVar("T")


def need(package: str, extra: str) -> InputError:
    """The error for a package that an optional part of the command line needs."""
    return InputError(f'this needs {package}, which is not installed: run pip install "apportion[{extra}]".')


def parse(kind: type[T], argv: Sequence[str], program: str, default: Any = None) -> T:
    """Read arguments into a dataclass; its fields are the options, their docstrings the help.

    Args:
        kind: the dataclass.
        argv: words after the verb.
        program: name shown in the help, such as ``apportion train``.
        default: values of options not given.

    Raises:
        InputError: an unknown option (with the nearest valid one), or a value of the wrong kind.
        SystemExit: after printing the help.
    """
    try:
        import tyro
    except ImportError:
        raise need("tyro", "train") from None
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            result, rest = tyro.cli(
                kind, prog=program, args=list(argv), default=default, return_unknown_args=True, description=kind.__doc__
            )
    except SystemExit as stop:
        if not stop.code:
            print(printed.getvalue(), end="")
            raise
        raise InputError(f"{_complaint(printed.getvalue())}; see {program} --help.") from None
    for word in rest:
        if word.startswith("-"):
            raise unknown_name(f"setting of {program}", word.partition("=")[0], _options(kind))
        raise InputError(f"{program} does not know what to do with {word!r}: see {program} --help.")
    return result


_WORDED_ANEW = {
    r"Error parsing (\S+): invalid literal for int\(\) .*: (.*)": r"\1 is \2, expected a whole number",
    r"Error parsing (\S+): could not convert string to float: (.*)": r"\1 is \2, expected a number",
    r"Error parsing (\S+): no type matching .*\|INT could .* from \[(.*?)\].*": r"\1 is \2, expected a whole number",
    r"Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]": r"\1 cannot be \2",
    r"Missing value for argument '(\S+)'.*": r"\1 has no value: give one after it",
}


def _complaint(text: str) -> str:
    """The message inside the box that tyro draws: what stands between the title and the next rule."""
    parts: list[list[str]] = [[]]
    for line in (line.strip(" │╰╯╮") for line in text.splitlines()):
        if line.startswith("╭") or (line and not line.strip("-─")):
            parts.append([])
        elif line:
            parts[-1].append(line)
    said = " ".join(parts[1] if len(parts) > 1 else parts[0]).rstrip(".")
    for pattern, sentence in _WORDED_ANEW.items():
        said = re.sub(pattern, sentence, said)
    return said or "the arguments could not be read"


def _options(kind: Any) -> list[str]:
    names: list[str] = []
    for field in dataclasses.fields(kind):
        inner = field.metadata.get("flattened")
        names += _options(inner) if inner else ["--" + field.name.replace("_", "-")]
    return names
