"""Policies that only read: tokens that stand for bytes, as byte-level tokenizers have them, and awkward decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from apportion.rollouts import Rollouts


class Reader:
    """A policy whose tokens are given pieces of bytes; tokens beyond them stand for no text, as special ones do.

    Args:
        pieces: bytes of every token.
        change: what the decoder does to the text of all.
    """

    def __init__(self, pieces: Sequence[bytes], change: Callable[[str], str] = str) -> None:
        self.pieces, self.change = list(pieces), change
        self.end = len(self.pieces)

    def codec(self, instruction: str, chat: bool | None) -> Reader:
        return self

    def decode(self, ids: Sequence[int]) -> str:
        known = b"".join(self.pieces[i] for i in ids if i < self.end)
        return self.change(known.decode("utf-8", "replace"))


BYTES = Reader([bytes([i]) for i in range(256)])
"""Every byte a token."""


def written(*texts: Sequence[str | bytes], end: bool = False, **given: Any) -> tuple[Rollouts, Reader]:
    """Responses written in pieces, and who reads them; with ``end``, each closes with a token without text."""
    rows = [[piece.encode() if isinstance(piece, str) else piece for piece in row] for row in texts]
    pieces = list(dict.fromkeys(piece for row in rows for piece in row))
    ids = [[pieces.index(piece) for piece in row] + [len(pieces)] * end for row in rows]
    given.setdefault("groups", [0] * len(ids))
    return Rollouts.from_lists(ids, **given), Reader(pieces)
