"""Right, wrong or unknown for one response. Runs in the child process only: it imports SymPy and math-verify.

The exact reader of this package decides. What it does not read (sums, integrals, limits, determinants) is left to
math-verify's own ``parse`` and ``verify``, with their signal-based timeouts off: the parent kills a child that hangs.
math-verify alone is not strict enough to pay rewards by: it rounds to six digits and takes 5 m for 5 cm.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace

from math_verify import LatexExtractionConfig, parse, verify

from apportion.rewards.each import short
from apportion.rewards.mathematics.equality import same
from apportion.rewards.mathematics.notation import Undefined, Unreadable, spelling, tokens
from apportion.rewards.mathematics.reading import clean, read
from apportion.rewards.statements import stated_answer

_BEYOND = re.compile(
    r"\\(?:sum|prod|i?i?int|oint|lim|det|partial|begin\s*\{vmatrix\})(?![A-Za-z])|\\[dtc]?frac\s*\{\s*d\s*\}\s*\{\s*d"
)
_SPELLING = replace(LatexExtractionConfig().normalization_config, units=False, nits=False)
_READER = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=_SPELLING)]


def decide(gold: str, response: str, where: str) -> tuple[float | None, str]:
    r"""Score and reason for one response.

    Args:
        gold: the reference answer, boxed or not.
        response: what the policy wrote.
        where: ``stated`` asks for a box or "answer is"; ``any`` takes a response without them as a whole.

    Example:
        >>> decide("1/2", r"So it is \boxed{0.5}.", "stated")
        (1.0, '0.5 is 1/2')
    """
    given = stated_answer(response)
    if given is None and where == "any":
        given = response
    if given is None:
        return 0.0, "no box and no 'answer is' states an answer"
    if not given.strip():
        return 0.0, "the stated answer is empty"
    return compare(gold.strip(), given.strip())


@functools.lru_cache(maxsize=4096)
def compare(gold: str, given: str) -> tuple[float | None, str]:
    """Score and reason for an extracted answer."""
    fault, equal = "", False
    try:
        reference = read(gold)
    except Undefined as error:
        return None, f"the reference answer {short(gold)} cannot be compared with: {error}"
    except Unreadable as error:
        reference, fault = None, str(error)
    try:
        answer = read(given)
        if reference is not None:
            equal = same(reference, answer)
            return float(equal), f"{short(given)} {'is' if equal else 'is not'} {short(gold)}"
    except Undefined as error:
        return 0.0, f"{short(given)} is no answer: {error}"
    except Unreadable as error:
        unread = f"{short(given)} cannot be read as an answer: {error}"
    else:
        unread = ""
    if (spelt := _spelt(given)) is not None and spelt == _spelt(gold):
        return 1.0, f"{short(given)} is written as the reference is"
    if _BEYOND.search(gold) or _BEYOND.search(given):
        parsed, references = _parsed(given), _parsed(gold)
        if parsed and references:
            equal = verify(
                references, parsed, float_rounding=30, numeric_precision=50, timeout_seconds=None, raise_on_error=True
            )
            return float(equal), f"{short(given)} {'is' if equal else 'is not'} {short(gold)} (math-verify)"
    if fault:
        return None, f"the reference answer {short(gold)} cannot be read: {fault}"
    return 0.0, unread


def _parsed(text: str) -> list[object]:
    """What math-verify reads; nothing where words stand beside the formula, among which it would pick a number."""
    if re.search(r"\\(?:text|mbox)|(?<![\\A-Za-z])[A-Za-z]{4,}", re.sub(r"\\(?:begin|end)\s*\{[a-z]+\}", "", text)):
        return []
    found: list[object] = parse(
        rf"\boxed{{{text}}}", _READER, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=False
    )
    return found


def _spelt(text: str) -> str | None:
    """The text's spelling if it says anything at all."""
    try:
        found = clean(tokens(text))
    except Unreadable:
        return text if re.search("[A-Za-z0-9]", text) else None
    return spelling(found) if any(t.kind in ("number", "letters", "word") for t in found) else None
