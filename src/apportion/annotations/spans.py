"""Spans that an annotator marks, perhaps anew."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import split_name


def mark_spans(rollouts: Rollouts, kind: str, starts: Tensor, ends: Tensor, makes: str) -> Rollouts:
    """Rollouts with spans of a kind; those that are there at other places give way, with what was credited to them.

    Args:
        rollouts: what is marked.
        kind: of the spans.
        starts: first tokens.
        ends: one past the last tokens.
        makes: the column of these spans that the annotator makes next.

    Raises:
        InputError: somebody else's columns belong to the spans that are there.
    """
    there = rollouts.spans.get(kind)
    if there is None or (torch.equal(there.starts, starts) and torch.equal(there.ends, ends)):
        return rollouts.with_spans(kind, starts, ends)
    own = {name: split_name(name)[1] for name in rollouts.columns if split_name(name)[0] == kind}
    foreign = [name for name, short in own.items() if short != makes and not short.startswith("credit/")]
    if foreign:
        raise InputError(
            f"these rollouts have {len(there.starts)} spans of kind {kind!r} with the column {foreign[0]!r}, and an "
            "annotator cuts them at other places: leave out the annotator, or the column."
        )
    kept = {name: column for name, column in rollouts.columns.items() if name not in own}
    spans = {name: table for name, table in rollouts.spans.items() if name != kind}
    return replace(rollouts, columns=kept, spans=spans).with_spans(kind, starts, ends)
