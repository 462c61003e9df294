"""One row a group: what it is about, how it went, and how much credit it got; what lists are sorted and filtered by.

Suffix legend: N tokens, B responses, E episodes, G groups.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.columns import Column
from apportion.viewer.rewards import components, episode_rewards, health
from apportion.viewer.texts import Decode, prompt_text

PREVIEW = 160
"""Characters of a prompt in a list."""

COLUMNS = (
    "part", "group", "name", "task", "prompt", "episodes", "responses", "rewards", "mean", "health", "length",
    "entropy", "credit",
)  # fmt: skip
"""What a row holds, in this order: ``rewards`` are those of the episodes, ``length`` the mean tokens of a response,
``entropy`` the mean over trained tokens, ``credit`` the largest magnitude of an advantage. Null is missing."""

SHOWN_REWARDS = 64
"""Rewards of a group that a row holds at most."""


def rows(part: int, rollouts: Rollouts, advantages: Tensor | None, decode: Decode | None) -> list[list[Any]]:
    """A row of :data:`COLUMNS` for every group, by ascending id.

    Args:
        part: step of the rollouts.
        rollouts: of that step.
        advantages: ``[N]``; None: there are none.
        decode: turns tokens into text where no column has the prompt's.

    Example:
        >>> pair = Rollouts.from_lists([[1, 2], [3, 4]], groups=[7, 7], rewards=[1.0, 0.0])
        >>> row = rows(3, pair, None, None)[0]
        >>> row[:2], row[7:11]
        ([3, 7], [[1.0, 0.0], 0.5, 'mixed', 2.0])
    """
    n, group_E = rollouts.n_groups, rollouts.group_of_episode
    group_B, group_N = group_E[rollouts.episode_of_response], group_E[rollouts.episode_of_token]
    named = components(rollouts)
    rewards = episode_rewards(rollouts, named[0] if named else "outcome")
    length = _mean(ragged.lengths_of(rollouts.token_offsets).double(), group_B, n)
    entropy = _entropy(rollouts, group_N)
    largest = torch.full((n,), torch.nan, dtype=torch.float64)
    if advantages is not None:
        largest = torch.zeros(n, dtype=torch.float64)
        largest.scatter_reduce_(0, group_N, advantages.double().abs(), "amax")
    sizes, responses = torch.bincount(group_E, minlength=n).tolist(), torch.bincount(group_B, minlength=n).tolist()
    ids = torch.unique(rollouts.group_ids).tolist()
    members = torch.split(torch.argsort(group_E, stable=True), sizes)
    first_response = rollouts.response_offsets[torch.stack([m[0] for m in members])].tolist() if n else []
    names, tasks = rollouts.columns.get("episode:group_name"), rollouts.columns.get("response:task_source")
    result = []
    for g in range(n):
        of_group = members[g]
        known = rewards.value[of_group][rewards.known[of_group]]
        shown = zip(rewards.value[of_group].tolist(), rewards.known[of_group].tolist(), strict=True)
        result.append(
            [
                part,
                ids[g],
                _text(names, int(of_group[0])),
                _text(tasks, first_response[g]),
                _preview(prompt_text(rollouts, first_response[g], decode)),
                sizes[g],
                responses[g],
                [value if is_known else None for value, is_known in shown][:SHOWN_REWARDS],
                float(known.mean()) if len(known) else None,
                health(known),
                real(length[g]),
                real(entropy[g]),
                real(largest[g]),
            ]
        )
    return result


def real(value: Tensor | float) -> float | None:
    """A number for JSON, None where it does not exist."""
    number = float(value)
    return number if math.isfinite(number) else None


def _mean(values: Tensor, row: Tensor, n: int) -> Tensor:
    total = torch.zeros(n, dtype=torch.float64).index_add_(0, row, values.double())
    return total / torch.bincount(row, minlength=n)


def _entropy(rollouts: Rollouts, group_N: Tensor) -> Tensor:
    name = next((n for n in ("entropy/old", "entropy/behaviour") if rollouts.has(n)), None)
    if name is None:
        return torch.full((rollouts.n_groups,), torch.nan)
    column = rollouts.columns[f"token:{name}"]
    used = rollouts.trained if column.present is None else rollouts.trained & column.present
    return _mean(column.tensor[used], group_N[used], rollouts.n_groups)


def _text(column: Column | None, row: int) -> str | None:
    if column is None or isinstance(column.values, Tensor):
        return None
    return _preview(column.values[row])


def _preview(text: str | None) -> str | None:
    """The beginning of a text."""
    if text is None or len(text) <= PREVIEW:
        return text
    return text[:PREVIEW] + "\N{HORIZONTAL ELLIPSIS}"
