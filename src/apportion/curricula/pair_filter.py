"""Preference pairs chosen before training, by how much they would displace."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apportion.annotations.ches import SCORES, ches, keep_lowest
from apportion.annotations.hidden_states import hidden_states
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.rollouts.pairs import with_some_pairs
from apportion.rollouts.store import read, write

Choice = Callable[[Tensor], Tensor]
"""From the scores of all pairs ``[K]`` to the numbers of those to keep."""


def with_ches(rollouts: Rollouts, policy: Any, micro_batch_tokens: int = 1 << 14) -> Rollouts:
    """Rollouts with ``pair:ches`` and ``pair:ches_length_normalised``, from the model that training will begin with.

    The sums of hidden states behind the scores are not kept.

    Args:
        rollouts: with pairs.
        policy: the model.
        micro_batch_tokens: padded tokens in one forward pass.
    """
    measured = hidden_states("reference", micro_batch_tokens).apply(rollouts, policy)
    scored = ches("reference").apply(measured, policy)
    for name in SCORES:
        rollouts = rollouts.with_column(name, scored.column(name), maker="ches", evaluator="reference")
    return rollouts


def filter_pairs(rollouts: Rollouts, choose: Choice, length_normalised: bool = True) -> Rollouts:
    """Some of the pairs, in their order, and the episodes in them; other episodes are left out.

    Args:
        rollouts: with the pair columns of :func:`with_ches`.
        choose: which, such as ``lambda scores: keep_lowest(scores, 0.05)``.
        length_normalised: by ``ches_length_normalised``, else by ``ches``.
    """
    name = SCORES[length_normalised]
    kept = choose(rollouts.column(name, reader="the filter of pairs")).sort().values
    fewer = with_some_pairs(rollouts, kept)
    assert fewer.pairs is not None  # with_some_pairs keeps them
    return fewer.select(torch.cat([fewer.pairs.preferred, fewer.pairs.other]).unique())


def filter_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    policy: Any,
    keep_fraction: float = 0.05,
    length_normalised: bool = True,
) -> Rollouts:
    """Write the pairs of a file that displace least, with their scores, to another file for ``train --rollouts``.

    Args:
        source: rollouts with pairs, .jsonl or .arrow.
        target: file to write.
        policy: the model that training will begin with.
        keep_fraction: the ``ceil(keep_fraction K)`` pairs of lowest score are kept.
        length_normalised: score by ``ches_length_normalised``, else by ``ches``.

    Returns:
        what was written.

    Raises:
        InputError: no pairs in the file, or pairs that cannot be scored (see ``ches``).

    Source: arXiv 2410.08847.
    """
    rollouts = read(source)
    if not rollouts.rows("pair"):
        raise InputError(f"{source} has no pairs, expected preferences: make some with apportion rollout --pairs.")
    scored = with_ches(rollouts.to(policy.device), policy)
    kept = filter_pairs(scored, lambda scores: keep_lowest(scores, keep_fraction), length_normalised).to("cpu")
    write(kept, target)
    return kept
