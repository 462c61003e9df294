"""Where a response states its answer: the last box, or what follows the last "answer is".

Numbers elsewhere in a response are its working, never its answer: paying for them pays for spraying numbers.
Every search here is linear in the length of the response.
"""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\[\\{}]|[{}]")
_ANSWER = re.compile(r"\banswers?(?:\s+(?:is|are)|\s?(?:\*\*|__)?:)(?:\*\*|__)?:?", re.IGNORECASE)
_DISPLAY = {r"\[": r"\]", "$$": "$$"}
# A dot inside a number ends nothing; nor does an exclamation mark that may be a factorial.
_SENTENCE_END = re.compile(r"\n|[.?](?=\s|\*|$)|!(?=\s+[A-Z])")


def last_box(text: str) -> str | None:
    r"""Content of the last complete ``\boxed{...}`` or ``\fbox{...}``; boxes that never close are ignored.

    Example:
        >>> last_box(r"\boxed{4}, no: \boxed{\frac{1}{2}} and \boxed{5")
        '\\frac{1}{2}'
    """
    starts = {match.end() for match in _BOX.finditer(text)}
    if not starts:
        return None
    opened: list[int] = []
    last = None
    for match in _BRACE.finditer(text, min(starts) - 1):
        if match.group() == "{":
            opened.append(match.end())
        elif match.group() == "}" and opened:
            start = opened.pop()
            if start in starts and (last is None or start > last[0]):
                last = (start, match.start())
    return None if last is None else text[last[0] : last[1]]


def after_answer(text: str) -> str | None:
    """What follows the last "answer is" or "answer:", to the end of its sentence or line.

    Example:
        >>> after_answer("So the answer is 2.5. I am sure.")
        '2.5'
    """
    ends = [match.end() for match in _ANSWER.finditer(text)]
    if not ends:
        return None
    rest = text[ends[-1] :].lstrip()
    for opening, closing in _DISPLAY.items():
        if rest.startswith(opening):
            return rest[len(opening) :].partition(closing)[0].strip()
    end = _SENTENCE_END.search(rest)
    return (rest[: end.start()] if end else rest).strip()


def stated_answer(text: str) -> str | None:
    """The last box, else what follows the last "answer is" or "answer:", else None."""
    box = last_box(text)
    return after_answer(text) if box is None else box
