r"""A verifier for multiple choice: which option letters a response names."""

from __future__ import annotations

import re

from apportion.errors import InputError
from apportion.rewards.each import answered, shown
from apportion.rewards.statements import after_answer, last_box
from apportion.rewards.verdict import Verdict, Verifier

_MARKUP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed|fbox|left|right|[,;: ])|[{}$*_`\"'“”‘’]|\\")
_WORD = re.compile(r"[^\W\d_]+")
_HEDGES = frozenset(
    "or not nor neither either maybe perhaps possibly probably might could unsure except but unless instead none "
    "wrong incorrect false isn aren doesn don cannot versus vs rather guess".split()
)


def choice(letters: str = "ABCDEFGHIJ") -> Verifier:
    r"""The option letters that a response names are exactly those of the answer.

    Looked at is the last complete box, else what follows the last "answer is" or "answer:", else the whole response.
    Several letters are a set ("B and D" for BD). Hedging ("A or B"), negation, and missing or further options are
    wrong; the article "A" and the pronoun "I" are no options unless they stand alone or are marked as in ``(A)``.

    Args:
        letters: the options there are.

    Raises:
        InputError: ``letters`` are not distinct capital letters.

    Example:
        >>> from apportion.tasks.task import Task
        >>> verify = choice("ABCD")
        >>> [v.score for v in verify([Task("?", "B", "quiz")] * 3, ["Answer: B", r"\boxed{B}", "(A) or (B)"])]
        [1.0, 1.0, 0.0]
    """
    if not re.fullmatch("[A-Z]{2,26}", letters) or len(set(letters)) != len(letters):
        raise InputError(f"choice(letters={letters!r}) must be two or more distinct capital letters such as 'ABCD'.")

    def check(answer: str, response: str) -> Verdict:
        wanted = _named(answer, letters) or frozenset(answer.strip().upper()) & frozenset(letters)
        if not wanted or frozenset(re.sub(r"[^A-Z]", "", answer.upper())) - wanted:
            return Verdict(None, f"the task's answer {shown(answer)} does not name options among {letters}")
        segment = last_box(response)
        if segment is None:
            segment = after_answer(response)
        segment = response if segment is None else segment
        text = _MARKUP.sub(" ", segment)
        hedge = next((word for word in _WORD.findall(text) if word.lower() in _HEDGES), None)
        given = _named(segment, letters)
        if not given:
            return Verdict(0.0, f"{shown(segment)} names no option among {letters}")
        if hedge is not None:
            return Verdict(0.0, f"{shown(segment)} is ambiguous: {hedge!r}")
        if given == wanted:
            return Verdict(1.0, f"the response names {_together(given)}")
        return Verdict(0.0, f"the response names {_together(given)}, not {_together(wanted)}")

    return answered(check)


def _named(segment: str, letters: str) -> frozenset[str]:
    """The options a segment names."""
    text = _MARKUP.sub(" ", segment).strip().rstrip(".!,;: ")
    alone = re.sub(r"[\s()\[\],;&+.]|\band\b", "", text)
    if 0 < len(alone) <= len(letters) and len(set(alone.upper())) == len(alone) and set(alone.upper()) <= set(letters):
        # Nothing but letters: "b", "(B)", "B, D", "BD". A word such as "bad" is none, so several must be capital.
        if len(alone) == 1 or alone.isupper():
            return frozenset(alone.upper())
    named = set()
    for match in _WORD.finditer(text):
        word = match.group()
        if len(word) != 1 or word not in letters:
            continue
        marked = text[: match.start()].rstrip()[-1:] in ("(", "[", ":") or text[match.end() : match.end() + 1] in (")", "]")
        article = word in "AI" and re.match(r"\s+[a-z]", text[match.end() :]) is not None
        apostrophe = segment[segment.find(word) + 1 : segment.find(word) + 2] in ("'", "’") if word == "I" else False
        if marked or not (article or apostrophe):
            named.add(word)
    return frozenset(named)


def _together(options: frozenset[str]) -> str:
    return "".join(sorted(options))
