"""Which characters of a text every sampled token stands for; nothing is tokenised again.

A byte-level token may be a part of a character, or finish one and begin another; a tokenizer may drop a space at the
start of a text, or a special token altogether. So the text of a token is what decoding gains by it, never what it
decodes to alone.

Suffix legend: T tokens of one text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from apportion.models.policy import Policy
from apportion.rollouts import Rollouts, steps

Decode = Callable[[Sequence[int]], str]

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for bytes that are no whole character, yet or ever."""


@dataclass(frozen=True)
class TokenTexts:
    """The text of T tokens, and where in it every token lies.

    Attributes:
        text: of all of them.
        starts: the first character of every token ``[T]``; of a token that goes on with a character begun before it,
            that character.
        ends: one past the last ``[T]``; of a token that leaves a character unfinished, past that one. A token without
            text ends where it starts.
    """

    text: str
    starts: list[int]
    ends: list[int]

    @property
    def pieces(self) -> list[str]:
        """What every token adds to the text ``[T]``: the token that finishes a character adds it."""
        return [self.text[a:b] for a, b in pairwise([*self.starts, len(self.text)])]


def token_texts(ids: Sequence[int], decode: Decode) -> TokenTexts:
    """Where tokens lie in their text.

    A token starts where the tokens before it, decoded, cease to agree with the text of all.

    Args:
        ids: tokens ``[T]``.
        decode: turns tokens into text; called on many short runs of them.

    Example:
        >>> token_texts(list("né.".encode()), lambda ids: bytes(ids).decode("utf-8", "replace"))
        TokenTexts(text='né.', starts=[0, 1, 1, 2], ends=[1, 2, 2, 3])
    """
    text = decode(ids)
    grown, unfinished, read = _by_windows(ids, decode)
    if read != text:  # what a token adds depends on tokens further away than the last
        grown, unfinished = _agreement([decode(ids[: t + 1]) for t in range(len(ids))], text)
    starts = [0, *grown][: len(ids)]
    ends = [min(end + more, len(text)) for end, more in zip(grown, unfinished, strict=True)]
    return TokenTexts(text, starts, ends)


def reader(policy: Policy) -> Callable[[Sequence[int]], TokenTexts]:
    """:func:`token_texts` as a policy decodes; it remembers what it has decoded, so make one for a batch."""
    decode = cache(policy.codec("{prompt}", None).decode)
    return lambda ids: token_texts(tuple(ids), decode)


def decisions(rollouts: Rollouts, policy: Policy) -> Iterator[tuple[int, TokenTexts]]:
    """Every decision with tokens (a turn where turns are marked, else a response): its first token, and its text."""
    read, table, ids = reader(policy), steps(rollouts), rollouts.ids.tolist()
    for start, end in zip(table.starts.tolist(), table.ends.tolist(), strict=True):
        if end > start:
            yield start, read(ids[start:end])


def _by_windows(ids: Sequence[int], decode: Decode) -> tuple[list[int], list[bool], str]:
    """Characters there are after every token, whether it leaves one unfinished, and the text read on the way.

    Only what was read last is decoded together with a token, and what follows it until a character is whole.
    """
    grown, unfinished, text = [], [], []
    before = now = length = 0
    known, waiting = "", []
    for t in range(len(ids)):
        window = decode(ids[before : t + 1])
        waiting.append(window)
        if window.endswith(UNFINISHED) and t + 1 < len(ids):
            continue
        agreed, partial = _agreement(waiting, window)
        grown += [length + max(n - len(known), 0) for n in agreed]
        unfinished += partial
        text.append(window[len(known) :])
        length += len(text[-1])
        before, now, waiting = now, t + 1, []
        known = decode(ids[before:now])
    return grown, unfinished, "".join(text)


def _agreement(prefixes: Sequence[str], text: str) -> tuple[list[int], list[bool]]:
    """How far texts of growing prefixes agree with the whole, never less than before, and which of them go further."""
    agreed, further, most = [], [], 0
    for prefix in prefixes:
        same = len(prefix) if text.startswith(prefix) else _common(prefix, text)
        most = max(most, same)
        agreed.append(most)
        further.append(len(prefix) > most)
    return agreed, further


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common from the first on."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
