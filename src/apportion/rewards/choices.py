r"""A verifier for multiple choice: which option letters a response names."""

from __future__ import annotations

import re

from apportion.errors import InputError
from apportion.rewards.each import answered, shown
from apportion.rewards.statements import after_answer, last_box
from apportion.rewards.verdict import Verdict, Verifier

_MARKUP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed|fbox|left|right|[,;: ])|[{}$*_`\"'“”‘’]|\\")
_WORD = re.compile(r"[^\W\d_]+")
_LETTER = re.compile(
    r"(?P<opening>[(\[:]\s*)?(?<![^\W_])(?P<letter>[A-Z])(?![^\W_])(?P<closing>\s*[)\]])?(?=(?:\s+(?P<next>[a-z]+))?)"
)
# Words that stand behind an option but not behind the article "A" or the pronoun "I".
_AFTER_OPTION = ("and", "is", "are", "was", "as", "because", "since", "so", "but", "not", "then", "seems", "fits")
_HEDGES = (
    *("or", "not", "nor", "neither", "either", "maybe", "perhaps", "possibly", "probably", "might", "could", "unsure"),
    *("except", "but", "unless", "instead", "none", "wrong", "incorrect", "false", "isn", "aren", "doesn", "don"),
    *("cannot", "versus", "vs", "rather", "guess"),
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
        wanted = _only_letters(answer, letters)
        if not wanted:
            return Verdict(None, f"the task's answer {shown(answer)} does not name options among {letters}")
        segment = last_box(response)
        if segment is None:
            segment = after_answer(response)
        segment = response if segment is None else segment
        given = _only_letters(segment, letters) or _named(segment, letters)
        hedge = next((w for w in _WORD.findall(_MARKUP.sub(" ", segment)) if w.lower() in _HEDGES), None)
        if not given:
            return Verdict(0.0, f"{shown(segment)} names no option among {letters}")
        if hedge is not None:
            return Verdict(0.0, f"{shown(segment)} is ambiguous: {hedge!r}")
        if given == wanted:
            return Verdict(1.0, f"the response names {_together(given)}")
        return Verdict(0.0, f"the response names {_together(given)}, not {_together(wanted)}")

    return answered(check)


def _only_letters(segment: str, letters: str) -> frozenset[str]:
    """The options of a segment that is nothing but letters: ``b``, ``(B)``, ``B, D``, ``B and D``, ``BD``."""
    alone = re.sub(r"[\s()\[\],;&+.!:]|\band\b", "", _MARKUP.sub(" ", segment))
    if not alone.isascii() or len(alone) > len(letters) or len(set(alone.upper())) < len(alone):
        return frozenset()
    # A word such as "bad" is no set of options, so several letters must be capitals.
    if not set(alone.upper()) <= set(letters) or (len(alone) > 1 and not alone.isupper()):
        return frozenset()
    return frozenset(alone.upper())


def _named(segment: str, letters: str) -> frozenset[str]:
    """The options a text names, leaving out the article "A" and the pronoun "I"."""
    named = set()
    for match in _LETTER.finditer(_MARKUP.sub(" ", segment)):
        marked = match["opening"] or match["closing"]
        prose = match["letter"] in "AI" and match["next"] and match["next"] not in _AFTER_OPTION
        if match["letter"] in letters and (marked or not prose):
            named.add(match["letter"])
    return frozenset(named)


def _together(options: frozenset[str]) -> str:
    return "".join(sorted(options))
