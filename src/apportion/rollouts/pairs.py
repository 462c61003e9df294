"""Preferences between episodes: what must hold of those compared, and some of them.

Suffix legend: K pairs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.rollouts.columns import split_name
from apportion.rollouts.model import Pairs, Rollouts


def pairs_of(rollouts: Rollouts) -> Pairs:
    """The pairs of rollouts that are to have some.

    Raises:
        InputError: no pairs at all, or an episode of one has no tokens.
    """
    if rollouts.pairs is None:
        raise InputError("these rollouts have no pairs, expected preferences between episodes: add pair records.")
    both = torch.stack([rollouts.pairs.preferred, rollouts.pairs.other])
    if bool((ragged.lengths_of(rollouts.episode_offsets)[both] == 0).any()):
        raise InputError("an episode of a pair has no tokens, expected at least the end token: leave it out.")
    return rollouts.pairs


def check_prompts(rollouts: Rollouts, pairs: Pairs) -> None:
    """Both episodes of a pair answer the same prompt, by content.

    Raises:
        InputError: they do not.
    """
    first = rollouts.prompts[rollouts.response_offsets[:-1]]
    starts, ends = rollouts.prompt_offsets[:-1], rollouts.prompt_offsets[1:]
    one, two = first[pairs.preferred], first[pairs.other]
    same = bool((ends[one] - starts[one] == ends[two] - starts[two]).all())
    if same:
        tokens = (rollouts.prompt_ids[ragged.ranges(starts[side], ends[side])] for side in (one, two))
        same = torch.equal(*tokens)
    if not same:
        raise InputError(
            "the episodes of a pair have different prompts, expected the same: pair answers to one prompt."
        )


def with_some_pairs(rollouts: Rollouts, kept: Tensor) -> Rollouts:
    """The same episodes with some of their pairs (mask or indices ``[K]``), and those pairs' columns.

    Example:
        >>> two = Rollouts.from_lists([[1], [2]], groups=[0, 0]).with_pairs(torch.tensor([0, 1]), torch.tensor([1, 0]))
        >>> with_some_pairs(two, torch.tensor([1])).pairs.preferred.tolist()
        [1]
    """
    if rollouts.pairs is None:
        raise InputError("these rollouts have no pairs, expected preferences between episodes: add pair records.")
    index = kept.nonzero().squeeze(1) if kept.dtype == torch.bool else kept
    columns = {n: c.take(index) if split_name(n)[0] == "pair" else c for n, c in rollouts.columns.items()}
    pairs = Pairs(rollouts.pairs.preferred[index], rollouts.pairs.other[index])
    return replace(rollouts, columns=columns, pairs=pairs)
