"""Rewards that must be verdicts: right or wrong, or a share of the whole.

Suffix legend: E episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import Work
from apportion.errors import InputError


def right_episodes(work: Work, component: str) -> Tensor:
    """Bool ``[E]``: the episodes whose reward is 1.

    Raises:
        InputError: a reward other than 0 and 1.
    """
    reward_E = work.up(component)
    other = reward_E[(reward_E != 0) & (reward_E != 1)]
    if len(other):
        raise InputError(
            f"reward {component!r} is {float(other[0]):g} for {len(other)} episodes, expected 1 (right) or 0 (wrong): "
            "choose a verifier that gives no partial credit."
        )
    return reward_E == 1


def check_shares(values: Tensor, what: str) -> None:
    """Refuse numbers outside 0 to 1.

    Raises:
        InputError: there are some.
    """
    outside = values[(values < 0) | (values > 1)]
    if len(outside):
        raise InputError(f"{what} is {float(outside[0]):g} for {len(outside)} of {len(values)}, expected 0 to 1.")


def mean_of_known(work: Work, component: str) -> tuple[Tensor, Tensor]:
    """A score of responses or episodes as one an episode ``[E]``, and where there is one ``[E]``; 0 where not.

    An episode of several responses has the mean of those that have a score.

    Raises:
        InputError: a reward below the response, or several numbers a row.
    """
    reward, rollouts = work.rewards[component], work.rollouts
    if reward.level not in ("response", "episode") or reward.values.dim() > 1:
        raise InputError(f"reward {component!r} is not one number a response or episode, expected a score of each.")
    values = torch.where(reward.scored, reward.values, 0.0)
    if reward.level == "episode":
        return values, reward.scored
    none = values.new_zeros(rollouts.n_episodes)
    total = none.index_add(0, rollouts.episode_of_response, values)
    count = none.index_add(0, rollouts.episode_of_response, reward.scored.to(values.dtype))
    return total / count.clamp(min=1), count > 0
