"""What methods of several decisions share: rewards of decisions, and their credit on tokens.

Suffix legend: N tokens, T steps (decisions).
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import Work
from apportion.errors import InputError
from apportion.rollouts import Rollouts, Steps


def step_rewards(work: Work, component: str, table: Steps) -> Tensor:
    """A reward as rewards of decisions ``[T]``.

    One above them is the last decision's; one below belongs to the decision it ends in, or that it follows.

    Raises:
        InputError: some of it comes before the first decision of its episode.
    """
    reward, rollouts = work.rewards[component], work.rollouts
    values = torch.where(reward.scored, reward.values, 0.0)
    values = values.sum(1) if values.dim() == 2 else values
    if reward.level == table.level:
        return values
    result = values.new_zeros(len(table))
    if reward.level == "episode":
        acted = table.offsets.diff() > 0
        result[table.offsets[1:][acted] - 1] = values[acted]
        return result
    after, episode = _ends(rollouts, reward.level)
    # The decision that begins last among those that begin before the reward ends.
    step = torch.searchsorted(table.starts, after - 1, right=True) - 1
    same = (step >= 0) & (table.episode[step.clamp(min=0)] == episode)
    lost = ~same & (values != 0)
    if bool(lost.any()):
        raise InputError(
            f"{int(lost.sum())} rewards {component!r} come before the first {table.level} of their episode, expected "
            f"rewards of decisions: give one a {table.level}."
        )
    return result.index_add_(0, step[same], values[same])


def _ends(rollouts: Rollouts, level: str) -> tuple[Tensor, Tensor]:
    """One past the last token of every row of a level below the episode, and the row's episode."""
    if level == "token":
        return torch.arange(1, rollouts.n_tokens + 1, device=rollouts.device), rollouts.episode_of_token
    if level == "response":
        return rollouts.token_offsets[1:], rollouts.episode_of_response
    return rollouts.spans[level].ends, rollouts.episode_of_response[rollouts.response_of_span[level]]


def trained_sizes(table: Steps) -> Tensor:
    """How many trained tokens every decision has ``[T]``."""
    step = table.step_of_token
    return torch.bincount(step[(step >= 0) & table.rollouts.trained], minlength=len(table))


def on_tokens_of(table: Steps, values: Tensor) -> Tensor:
    """Values of decisions ``[T]`` on all their tokens ``[N]``; 0 on tokens of none."""
    step = table.step_of_token
    result = values.new_zeros(len(step))
    result[step >= 0] = values[step[step >= 0]]
    return result
