"""A verifier for whole numbers, exact at any length."""

from __future__ import annotations

import re

from apportion.errors import InputError
from apportion.rewards.each import answered, shown
from apportion.rewards.verdict import Verdict, Verifier

# Maximal runs of digits, commas and dots; what a run means is decided afterwards, so the search stays linear.
_RUN = re.compile(r"[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)*")
_EXPONENT = re.compile(r"[eE][+-]?[0-9]")
_MINUS = "-−"


def integer(where: str = "last") -> Verifier:
    """An integer of the response equals the answer's integer.

    A sign counts where it does not follow a digit, letter or closing bracket (``x-5`` holds 5). Commas separate
    thousands only before groups of exactly three digits, otherwise list elements. Decimals, fractions such as 3/4,
    e-notation and digits inside names such as ``x2`` are no integers.

    Args:
        where: which integer of the response counts: ``last``, ``first``, or ``only`` (it must hold exactly one).

    Raises:
        InputError: ``where`` is something else.

    Example:
        >>> from apportion.tasks.task import Task
        >>> integer()([Task("17*60=", "1020", "products")], ["17*60 is 1,020."])
        [Verdict(score=1.0, reason='1020 is the answer')]
    """
    if where not in ("first", "last", "only"):
        raise InputError(f"integer(where={where!r}) is not known: where must be 'first', 'last' or 'only'.")

    def check(answer: str, response: str) -> Verdict:
        wanted = integers(answer)
        if len(wanted) != 1:
            return Verdict(None, f"the task's answer {shown(answer)} is not one integer")
        found = integers(response)
        if not found:
            return Verdict(0.0, "the response holds no integer")
        if where == "only" and len(found) > 1:
            return Verdict(0.0, f"the response holds {len(found)} integers, expected only one")
        given = found[0] if where == "first" else found[-1]
        if given == wanted[0]:
            return Verdict(1.0, f"{_short(given)} is the answer")
        return Verdict(0.0, f"{_short(given)} is not {_short(wanted[0])}")

    return answered(check)


def integers(text: str) -> list[str]:
    """The integers in a text in order, as plain digits with a minus sign where negative.

    Digits, not ``int``: Python refuses to convert very long ones, and a response may hold a million.

    Example:
        >>> integers("from -3 to 1,000, then 2.5, 1/2 and 007")
        ['-3', '1000', '7']
    """
    found: list[str] = []
    for match in _RUN.finditer(text.replace("{,}", ",")):
        found += _of_run(match)
    return found


def _of_run(match: re.Match[str]) -> list[str]:
    text, start, end = match.string, match.start(), match.end()
    before, after = text[start - 1 : start], text[end : end + 1]
    if before.isalpha() or before == "_" or _EXPONENT.match(text, end):
        return []
    if (before == "/" and text[start - 2 : start - 1].isdigit()) or (
        after == "/" and text[end + 1 : end + 2].isdigit()
    ):
        return []
    # .5 is a decimal; the dots of an ellipsis are not.
    if before == "." and text[start - 2 : start - 1] != ".":
        return []
    whole, point, _ = match.group().partition(".")
    pieces = whole.split(",")
    if pieces[0][0] != "0" and len(pieces[0]) <= 3 and all(len(piece) == 3 for piece in pieces[1:]):
        pieces = ["".join(pieces)]
    plain = [piece.lstrip("0") or "0" for piece in pieces]
    if before and before in _MINUS and not _joined(text, start - 1) and plain[0] != "0":
        plain[0] = "-" + plain[0]
    return plain[:-1] if point else plain


def _joined(text: str, sign: int) -> bool:
    """Whether the sign at this position subtracts from something."""
    left = text[sign - 1] if sign else " "
    return left.isalnum() or left in "_)]}"


def _short(digits: str) -> str:
    return digits if len(digits) <= 30 else f"{digits[:12]}... ({len(digits)} characters)"
