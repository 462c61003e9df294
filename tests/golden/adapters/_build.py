"""What several adapters need: rollouts from masks, a credit made by hand, names of aggregations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.credit import Credit
from apportion.rollouts import Rollouts, ragged

Rows = Sequence[Sequence[float]]
Masks = Sequence[Sequence[int]]


def from_mask(response_mask: Masks, group_ids: Sequence[int] | None = None, **given: Any) -> Rollouts:
    """Rollouts in which only masks matter: token ids count up, by default every response is a group."""
    ids = [range(len(row)) for row in response_mask]
    groups = group_ids if group_ids is not None else range(len(ids))
    return Rollouts.from_lists(ids, groups=groups, trained=response_mask, **given)


def rows(rollouts: Rollouts, values: Tensor) -> list[list[float]]:
    """Token values as one list a response."""
    return ragged.unflatten(values, rollouts.token_offsets)


def with_steps(
    lengths: Sequence[int],
    group_ids: Sequence[int],
    spans: Sequence[Sequence[Sequence[int]]],
    kind: str = "step",
    **given: Any,
) -> Rollouts:
    """Rollouts of responses of these lengths with spans, given as ``[start, end]`` from the response's beginning."""
    rollouts = Rollouts.from_lists([range(length) for length in lengths], groups=group_ids, **given)
    first = rollouts.token_offsets.tolist()
    places = [[at + start, at + end] for at, row in zip(first, spans, strict=False) for start, end in row]
    bounds = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T
    return rollouts.with_spans(kind, bounds[0], bounds[1])


def credit_of(rollouts: Rollouts, advantages: Rows | None = None) -> Credit:
    """A credit with given advantages and the masks of the rollouts; without, every advantage is 1."""
    ones = torch.ones(rollouts.n_tokens, dtype=torch.float64)
    values = ones if advantages is None else ragged.flatten(advantages, torch.float64)[0]
    unknown = torch.zeros(rollouts.n_episodes, dtype=torch.bool)
    return Credit(rollouts, values, rollouts.trained, rollouts.trained, {}, None, unknown)


def aggregation_spec(loss_agg_mode: str, scale: float | None) -> str:
    """verl's name of an aggregation as ours; verl's sum-norm does not divide by the number of sequences."""
    name = loss_agg_mode.replace("-", "_")
    return f"{name}(per_episode=False, length={scale})" if name == "seq_mean_token_sum_norm" else name
