"""Statistics of a model over whole rollouts, a micro-batch at a time.

Suffix legend: N tokens, B responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apportion.models.layouts import whole_rows
from apportion.models.packing.tree import in_order, rows_of
from apportion.models.policy import Model, trained_tokens
from apportion.rollouts import Rollouts, ragged


def micro_batches(rollouts: Rollouts, max_tokens: int, shared: bool = False) -> list[Tensor]:
    """Responses in parts of at most ``max_tokens`` (a longer response is a part of its own).

    Args:
        rollouts: whose responses.
        max_tokens: of padded rows, among which those of similar length go together, to pad little; or of distinct
            prefixes, among which those that share most go together.
        shared: count distinct prefixes.
    """
    parts = _by_prefix(rollouts, max_tokens) if shared else _by_length(rollouts, max_tokens)
    return [torch.tensor(part, device=rollouts.device) for part in parts]


def _by_length(rollouts: Rollouts, max_tokens: int) -> list[list[int]]:
    lengths = ragged.lengths_of(rollouts.token_offsets) + ragged.lengths_of(rollouts.prompt_offsets)[rollouts.prompts]
    order = torch.argsort(lengths, stable=True)
    parts: list[list[int]] = []
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if parts and (len(parts[-1]) + 1) * length <= max_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def _by_prefix(rollouts: Rollouts, max_tokens: int) -> list[list[int]]:
    ids, offsets, _ = whole_rows(rollouts, torch.arange(rollouts.n_responses, device=rollouts.device))
    rows = rows_of(ids, offsets)
    parts: list[list[int]] = []
    nodes = 0
    for row, common in in_order(rows):
        if parts and nodes + len(rows[row]) - common <= max_tokens:
            parts[-1].append(row)
            nodes += len(rows[row]) - common
        else:
            parts.append([row])
            nodes = len(rows[row])
    return parts


def measure(policy: Model, rollouts: Rollouts, names: Sequence[str], parts: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """Statistics of a policy at all trained tokens, 0 elsewhere.

    Args:
        policy: whose.
        rollouts: whose tokens.
        names: which statistics.
        parts: micro-batches covering all responses once.

    Returns:
        a tensor ``[N]`` a name.
    """
    result: dict[str, Tensor] = {}
    filled = [part for part in parts if len(trained_tokens(rollouts, part))]
    for part in filled or parts[:1]:  # only parts with trained tokens know the dtype of a statistic
        tokens = trained_tokens(rollouts, part)
        for name, values in policy.statistics(rollouts, part, names).items():
            if name not in result:
                result[name] = values.new_zeros(rollouts.n_tokens)
            result[name][tokens] = values
    return result
