"""Which tokens lie inside a planning phrase: phrases given as text or as token ids, or mined from a run.

Suffix legend: N tokens, g grams.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apportion.annotations.annotator import Annotator
from apportion.annotations.occurrences import Occurrences, occurrences
from apportion.annotations.token_texts import decisions
from apportion.errors import InputError
from apportion.models.policy import Policy
from apportion.rollouts import Rollouts, ragged, steps

Gram = str | Sequence[int]
"""A phrase, as text or as token ids."""

_ATOM = {True: re.compile(r"\w+|[^\w\s]"), False: re.compile(r"\S")}
"""What text is compared by, whole words or not: a word or a mark, or any character; never white space."""


@dataclass(frozen=True, eq=False)
class Marked:
    """Where grams were found.

    Attributes:
        tokens: bool ``[N]``, those inside an occurrence of any gram.
        counts: of every gram, how often it occurs ``[g]``, overlaps included; of equal grams the first has them all.
    """

    tokens: Tensor
    counts: Tensor


def planning_grams(file: str | None = None, grams: Sequence[Gram] = (), whole_words: bool = True) -> Annotator:
    """Token column ``planning/grams``: 1 inside any occurrence of any gram, else 0.

    Grams of text match whatever the case and the white space between words, and mark every token that has a character
    in common with the match; grams of token ids match exactly those. Occurrences may overlap, and lie within one
    decision (a turn where turns are marked, else a response).

    Args:
        file: of grams, as ``apportion grams`` writes it.
        grams: further ones, texts or lists of token ids.
        whole_words: text matches only from the beginning of a word to the end of one.

    Raises:
        InputError: a gram that is empty or neither, or a file that cannot be used.

    Source: arXiv 2509.03646.
    """
    check_grams(grams)
    wanted = (*(read_grams(file) if file is not None else ()), *grams)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        if not wanted:
            warnings.warn("planning_grams was given no grams, so it marks no token: name a file of them.", stacklevel=2)
        marked = mark(rollouts, wanted, policy, whole_words).tokens
        return rollouts.with_column("planning/grams", marked, maker="planning_grams")

    return Annotator(apply, ("planning/grams",), reads_policy=any(isinstance(gram, str) for gram in wanted))


def mark(rollouts: Rollouts, grams: Sequence[Gram], policy: Policy | None = None, whole_words: bool = True) -> Marked:
    """Find grams in rollouts.

    Args:
        rollouts: where to look.
        grams: texts or lists of token ids ``[g]``.
        policy: how tokens are read; needed for grams of text alone.
        whole_words: see :func:`planning_grams`.

    Example:
        >>> two = Rollouts.from_lists([[1, 5, 6, 5, 6], [5]], groups=[0, 0])
        >>> found = mark(two, [[5, 6], [6, 5]])
        >>> found.tokens.long().tolist(), found.counts.tolist()
        ([0, 1, 1, 1, 1, 0], [2, 1])
    """
    marked = torch.zeros(rollouts.n_tokens, dtype=torch.bool, device=rollouts.device)
    counts = torch.zeros(len(grams), dtype=torch.int64, device=rollouts.device)
    texts = {i: gram for i, gram in enumerate(grams) if isinstance(gram, str)}
    ids = {i: gram for i, gram in enumerate(grams) if not isinstance(gram, str)}
    parts = [(list(ids), _mark_ids(rollouts, list(ids.values())))] if ids else []
    if texts:
        if policy is None:
            raise InputError("grams of text need a policy that reads tokens: give one, or grams of token ids.")
        parts.append((list(texts), _mark_texts(rollouts, policy, list(texts.values()), _ATOM[whole_words])))
    for which, part in parts:
        marked |= part.tokens
        counts[which] = part.counts
    return Marked(marked, counts)


def _mark_ids(rollouts: Rollouts, grams: Sequence[Sequence[int]]) -> Marked:
    table = steps(rollouts)
    tokens = ragged.ranges(table.starts, table.ends)
    found = occurrences(rollouts.ids[tokens], ragged.offsets_of(table.ends - table.starts), grams)
    marked = torch.zeros(rollouts.n_tokens, dtype=torch.bool, device=rollouts.device)
    marked[tokens] = found.mask(len(tokens))
    return Marked(marked, _counts(found, len(grams)))


def _mark_texts(rollouts: Rollouts, policy: Policy, grams: Sequence[str], atom: re.Pattern[str]) -> Marked:
    alphabet: dict[str, int] = {}
    wanted = [[alphabet.setdefault(a, len(alphabet)) for a in map(str.casefold, atom.findall(gram))] for gram in grams]
    symbols: list[int] = []
    bounds: list[tuple[int, int]] = []  # of every atom, in the texts of all decisions end to end
    lengths: list[int] = []  # of every decision, in atoms
    tokens: list[tuple[int, int, int]] = []  # every token with its bounds
    at = 0
    for first, of in decisions(rollouts, policy):
        before = len(symbols)
        for match in atom.finditer(of.text):
            symbols.append(alphabet.get(match.group().casefold(), -1))
            bounds.append((at + match.start(), at + match.end()))
        lengths.append(len(symbols) - before)
        tokens += [(first + t, at + a, at + b) for t, (a, b) in enumerate(zip(of.starts, of.ends, strict=True))]
        at += len(of.text)

    offsets = ragged.offsets_of(torch.tensor(lengths, dtype=torch.int64))
    found = occurrences(torch.tensor(symbols, dtype=torch.int64), offsets, wanted)
    edges = torch.tensor(bounds, dtype=torch.int64).reshape(-1, 2)
    matched = Occurrences(edges[found.starts, 0], edges[found.ends - 1, 1], found.sequence).mask(at)
    inside = torch.cat([torch.zeros(1, dtype=torch.int64), matched.cumsum(0)])  # matched characters before each
    place, start, end = torch.tensor(tokens, dtype=torch.int64).reshape(-1, 3).T
    marked = torch.zeros(rollouts.n_tokens, dtype=torch.bool)
    marked[place] = inside[end] > inside[start]
    return Marked(marked.to(rollouts.device), _counts(found, len(grams)).to(rollouts.device))


def _counts(found: Occurrences, size: int) -> Tensor:
    return torch.bincount(found.sequence, minlength=size)


def check_grams(grams: Sequence[Gram]) -> None:
    """Refuse what is no list of grams.

    Raises:
        InputError: one that is empty, or neither text nor a list of token ids.
    """
    if isinstance(grams, str):
        raise InputError(f"grams is {grams!r}, expected a list of texts or of lists of token ids.")
    for gram in grams:
        ids = isinstance(gram, list | tuple) and all(type(i) is int and i >= 0 for i in gram)
        if not (isinstance(gram, str) or ids):
            raise InputError(f"a gram is {gram!r}, expected text or a list of token ids.")
        if not (gram.strip() if isinstance(gram, str) else gram):
            raise InputError(f"a gram is {gram!r}, expected at least one word or token: leave it out.")


def read_grams(path: str) -> tuple[Gram, ...]:
    """The grams of a file: a JSON object with a list ``grams``.

    Raises:
        InputError: no such file, or another content.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the grams in {path} ({error.strerror}): check the path.") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("grams"), list):
        raise InputError(
            f"{path} is no file of grams, expected a JSON object with a list 'grams': make one with apportion grams."
        )
    check_grams(content["grams"])
    return tuple(content["grams"])
