"""Tokens that state a dimension weigh more: numbers, or whatever a pattern finds in the text.

Suffix legend: N tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.token_texts import TokenTexts, decisions
from apportion.errors import InputError
from apportion.rollouts import Rollouts

NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
"""Whole and decimal numbers, with an exponent or without; the sign is left to the operation before it."""


def precision_tokens(omega: float = 2.0, pattern: str = NUMBER) -> Annotator:
    """Token column ``precision_weight``: omega at tokens that a pattern touches, 1 at all others.

    Matches are looked for in the text of every decision (a turn where turns are marked, else a response); a token
    counts as touched if it stands for any character of one.

    Args:
        omega: weight of a touched token, 1 or more; ours, the paper's value was not found.
        pattern: a regular expression; a group of it named ``precise`` narrows a match down.

    Raises:
        InputError: an omega below 1, or a pattern that cannot be read or matches the empty text.

    Source: arXiv 2508.10118.
    """
    if not 1 <= omega < math.inf:
        raise InputError(f"omega is {omega}, expected 1 or more.")
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise InputError(f"cannot read the pattern {pattern!r} ({error}): expected a regular expression.") from None
    if found.match(""):
        raise InputError(f"the pattern {pattern!r} matches the empty text, expected one that takes some character.")
    group = "precise" if "precise" in found.groupindex else 0

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        touched = [
            first + t
            for first, tokens in decisions(rollouts, policy)
            for t in touching(tokens, [match.span(group) for match in found.finditer(tokens.text)])
        ]
        weight = torch.ones(rollouts.n_tokens, dtype=torch.float64, device=rollouts.device)
        weight[torch.tensor(touched, dtype=torch.int64, device=rollouts.device)] = omega
        return rollouts.with_column("precision_weight", weight, maker="precision_tokens", omega=omega, pattern=pattern)

    return Annotator(apply, ("precision_weight",))


def touching(tokens: TokenTexts, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The tokens that stand for any character of some spans of the text, ascending.

    Args:
        tokens: of one text.
        spans: half-open ranges of its characters, ascending and disjoint.

    Example:
        >>> touching(TokenTexts("ab12", [0, 1, 3, 4], [1, 3, 4, 4]), [(2, 4)])
        [1, 2]
    """
    inside = [0] * len(tokens.text)
    for start, end in spans:
        inside[start:end] = [1] * (end - start)
    before = [0, *accumulate(inside)]
    return [t for t, (a, b) in enumerate(zip(tokens.starts, tokens.ends, strict=True)) if before[b] > before[a]]
