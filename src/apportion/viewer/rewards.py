"""Rewards of episodes, whichever level they were given at.

Suffix legend: B responses, E episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.rollouts import Rollouts
from apportion.rollouts.columns import split_name

OUTCOME = "outcome"

HEALTH = ("right", "wrong", "mixed", "unscored")
"""What a group can be: all right (each at least 1), all alike otherwise, mixed, or without a known reward."""


@dataclass(frozen=True, eq=False)
class EpisodeRewards:
    """One reward component, summed over every episode.

    Attributes:
        value: ``[E]``, 0 where not known.
        known: ``[E]``, it was asked for and every verdict of it is there.
        asked: ``[E]``, somebody asked.
    """

    value: Tensor
    known: Tensor
    asked: Tensor


def components(rollouts: Rollouts) -> list[str]:
    """The reward components, the outcome first.

    Example:
        >>> components(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0], component="format").with_reward(
        ...     "outcome", torch.ones(1)))
        ['outcome', 'format']
    """
    names = [split_name(name)[1].removeprefix("reward/") for name in rollouts.columns if _is_reward(name)]
    return sorted(dict.fromkeys(names), key=lambda name: name != OUTCOME)


def _is_reward(name: str) -> bool:
    level, column = split_name(name)
    return level != "pair" and column.startswith("reward/")


def episode_rewards(rollouts: Rollouts, component: str) -> EpisodeRewards:
    """A reward of every episode: the sum over its tokens, spans or responses, unknown where one of them is.

    Example:
        >>> pair = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, None])
        >>> rewards = episode_rewards(pair, "outcome")
        >>> rewards.known.tolist(), rewards.asked.tolist()
        ([True, False], [True, True])
    """
    full = rollouts.find(f"reward/{component}")
    none = torch.zeros(rollouts.n_episodes, dtype=torch.bool)
    if full is None:
        return EpisodeRewards(torch.zeros(rollouts.n_episodes, dtype=torch.float64), none, none)
    level, column = split_name(full)[0], rollouts.columns[full]
    episode = episode_of_row(rollouts, level)
    there = torch.ones(len(episode), dtype=torch.bool) if column.present is None else column.present
    scored = rollouts.columns.get(f"{level}:scored/{component}")
    values, verdict = column.tensor.double(), there
    if scored is not None:
        verdicts = scored.tensor.bool()
        values = torch.where(verdicts, values, 0.0)
        verdict = there & (verdicts.any(1) if verdicts.dim() == 2 else verdicts)
    values = values.sum(1) if values.dim() == 2 else values
    total = torch.zeros(rollouts.n_episodes, dtype=torch.float64)
    total.index_add_(0, episode[verdict], values[verdict])
    asked, holes = none.clone(), none.clone()
    asked[episode[there]] = True
    holes[episode[there & ~verdict]] = True
    return EpisodeRewards(torch.where(holes, 0.0, total), asked & ~holes, asked)


def episode_of_row(rollouts: Rollouts, level: str) -> Tensor:
    """The episode every row of a level belongs to."""
    if level == "episode":
        return torch.arange(rollouts.n_episodes)
    if level == "response":
        return rollouts.episode_of_response
    if level == "token":
        return rollouts.episode_of_token
    return rollouts.episode_of_response[rollouts.response_of_span[level]]


def health(values: Tensor) -> str:
    """What a group is, from the known rewards of its episodes.

    Example:
        >>> [health(torch.tensor(rewards)) for rewards in ([1.0, 1.0], [0.0], [0.0, 1.0], [])]
        ['right', 'wrong', 'mixed', 'unscored']
    """
    if not len(values):
        return "unscored"
    if bool(values.max() > values.min()):
        return "mixed"
    return "right" if bool(values.min() >= 1) else "wrong"
