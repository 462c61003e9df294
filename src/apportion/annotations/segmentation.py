"""Spans cut by text: steps between delimiters, thoughts that begin with certain words.

Spans are of tokens as sampled, and tile every decision (a turn where turns are marked, else a response). A token that
reaches from one into the next belongs to the one it begins in.

Suffix legend: T tokens of one decision.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.spans import mark_spans
from apportion.annotations.token_texts import decisions
from apportion.errors import InputError
from apportion.models.policy import Policy
from apportion.rollouts import Rollouts

MARKERS = ("Wait", "But wait", "Alternatively", "Hmm", "However", "Let me", "Actually", "On second thought")
"""Words that often begin a thought."""

Cut = Callable[[str], list[int]]
"""Where the pieces of a text begin, ascending, but for the first, which begins at 0."""


def segment(texts: Sequence[str], delimiter: str = "\n\n") -> list[tuple[int, int]]:
    """Steps of one text, as half-open ranges of its tokens; together they are all tokens.

    A step is never blank: where nothing but white space stands between delimiters, it belongs to the step before, and
    at the beginning of the text to the first.

    Args:
        texts: what every token adds to the text ``[T]``.
        delimiter: what separates steps; it belongs to the step it closes.

    Example:
        >>> segment(["One", ".\\n", "\\n", "Two", "\\n\\n"])
        [(0, 3), (3, 5)]
    """
    _check_text("delimiter", delimiter)
    starts = [0, *accumulate(len(text) for text in texts)][: len(texts)]
    return _ranges(starts, _after("".join(texts), delimiter))


def steps(delimiter: str = "\n\n") -> Annotator:
    """Spans of kind ``step``, separated by a delimiter that belongs to the step it closes; see :func:`segment`.

    Args:
        delimiter: what separates steps.

    Makes ``step:text``, the text of every step.
    """
    _check_text("delimiter", delimiter)
    return _annotator("step", lambda text: _after(text, delimiter))


def thoughts(markers: Sequence[str] = MARKERS) -> Annotator:
    """Spans of kind ``thought``: a decision is cut before every one of some words.

    Words are matched whole and with their case; the spaces before them on their line come with them.

    Args:
        markers: those words.

    Makes ``thought:text``, the text of every thought.
    """
    if isinstance(markers, str) or not markers:
        raise InputError(f"markers is {markers!r}, expected a list of texts: give at least one.")
    for marker in markers:
        _check_text("a marker", marker)
    longest_first = sorted(markers, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    return _annotator("thought", lambda text: _before(text, pattern))


def with_pieces(rollouts: Rollouts, policy: Policy, kind: str, cut: Cut) -> Rollouts:
    """Spans of a kind, made by cutting the text of every decision, and their text.

    Args:
        rollouts: what is cut.
        policy: how tokens are read.
        kind: of the spans.
        cut: where.
    """
    starts: list[int] = []
    ends: list[int] = []
    texts: list[str] = []
    for first, tokens in decisions(rollouts, policy):
        pieces = tokens.pieces
        for start, end in _ranges(tokens.starts, cut(tokens.text)):
            starts.append(first + start)
            ends.append(first + end)
            texts.append("".join(pieces[start:end]))
    bounds = torch.tensor([starts, ends], dtype=torch.int64, device=rollouts.device)
    marked = mark_spans(rollouts, kind, bounds[0], bounds[1], makes="text")
    return marked.with_column(f"{kind}:text", texts, maker="segmentation")


def _annotator(kind: str, cut: Cut) -> Annotator:
    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        return with_pieces(rollouts, policy, kind, cut)

    return Annotator(apply, (f"{kind}:text",))


def _ranges(starts: Sequence[int], cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Tokens by the piece they begin in; a piece in which none begins has none."""
    ranges, at = [], 0
    for _, tokens in groupby(bisect_right(cuts, start) for start in starts):
        before, at = at, at + sum(1 for _ in tokens)
        ranges.append((before, at))
    return ranges


def _after(text: str, delimiter: str) -> list[int]:
    """Where pieces that are not blank begin behind a delimiter."""
    begins, at = [], 0
    for piece in text.split(delimiter):
        if piece.strip():
            begins.append(at)
        at += len(piece) + len(delimiter)
    return begins[1:]


def _before(text: str, pattern: re.Pattern[str]) -> list[int]:
    """Where matches begin, the spaces before them on their line included."""
    cuts, after = [], 0
    for match in pattern.finditer(text):
        at = match.start()
        while at > after and text[at - 1].isspace() and text[at - 1] not in "\r\n":
            at -= 1
        after = match.end()
        if at > 0:
            cuts.append(at)
    return cuts


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str) or not text:
        raise InputError(f"{name} is {text!r}, expected text of at least one character.")
