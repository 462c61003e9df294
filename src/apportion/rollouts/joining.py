"""Several rollouts as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.rollouts.columns import FIXED_LEVELS, concatenate, split_name
from apportion.rollouts.model import Pairs, Rollouts, Spans


def join(parts: Sequence[Rollouts]) -> Rollouts:
    """Several rollouts as one; equal group ids in different parts become one group.

    Raises:
        InputError: nothing to join, or a column made in different ways.
    """
    if not parts:
        raise InputError("got no rollouts to join, expected at least one.")
    levels = {level: None for part in parts for level in ("token", "response", "episode", *part.spans, "pair")}
    names = {name: None for part in parts for name in part.columns}
    sizes = {level: [p.rows(level) if level in (*FIXED_LEVELS, *p.spans) else 0 for p in parts] for level in levels}
    shift = {level: [sum(sizes[level][:i]) for i in range(len(parts))] for level in levels}
    prompt_shift = [sum(len(p.prompt_offsets) - 1 for p in parts[:i]) for i in range(len(parts))]

    def stacked(offsets: list[Tensor]) -> Tensor:
        return ragged.offsets_of(torch.cat([ragged.lengths_of(o) for o in offsets]))

    spans = {}
    for kind in levels:
        having = [(p.spans[kind], shift["token"][i]) for i, p in enumerate(parts) if kind in p.spans]
        if having:
            spans[kind] = Spans(
                torch.cat([s.starts + by for s, by in having]), torch.cat([s.ends + by for s, by in having])
            )
    paired = [(p.pairs, shift["episode"][i]) for i, p in enumerate(parts) if p.pairs is not None]
    return Rollouts(
        ids=torch.cat([p.ids for p in parts]),
        token_offsets=stacked([p.token_offsets for p in parts]),
        response_offsets=stacked([p.response_offsets for p in parts]),
        group_ids=torch.cat([p.group_ids for p in parts]),
        prompt_ids=torch.cat([p.prompt_ids for p in parts]),
        prompt_offsets=stacked([p.prompt_offsets for p in parts]),
        prompts=torch.cat([p.prompts + by for p, by in zip(parts, prompt_shift, strict=True)]),
        columns={
            name: concatenate([p.columns.get(name) for p in parts], sizes[split_name(name)[0]], name) for name in names
        },
        spans=spans,
        pairs=Pairs(
            torch.cat([pair.preferred + by for pair, by in paired]),
            torch.cat([pair.other + by for pair, by in paired]),
        )
        if paired
        else None,
    )
