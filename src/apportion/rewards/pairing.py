"""Preference pairs from rewards."""

from __future__ import annotations

import torch

from apportion.rollouts import Rollouts


def pair_by_reward(rollouts: Rollouts, component: str = "outcome") -> Rollouts:
    """Pair every group's best episode with its worst, the second best with the second worst, while they differ.

    Episodes whose reward is unknown are in no pair. The pair column ``margin`` is the difference of the rewards.

    Args:
        rollouts: with ``episode:reward/<component>``.
        component: the reward that decides.

    Example:
        >>> group = Rollouts.from_lists([[1], [2], [3]], groups=[0, 0, 0], rewards=[0.0, 1.0, 0.5])
        >>> pair_by_reward(group).pairs.preferred.tolist()
        [1]
    """
    reward = rollouts.column(f"episode:reward/{component}").double()
    known = rollouts.column(f"episode:scored/{component}").bool()
    # Known episodes by group, best first; then each is matched with its mirror image in the group.
    order = torch.argsort(reward, descending=True, stable=True)
    order = order[known[order]]
    order = order[torch.argsort(rollouts.group_of_episode[order], stable=True)]
    group = rollouts.group_of_episode[order]
    sizes = torch.bincount(group, minlength=rollouts.n_groups)
    starts = sizes.cumsum(0) - sizes
    place = torch.arange(len(order), device=order.device) - starts[group]
    mirror = order[starts[group] + sizes[group] - 1 - place]
    margin = reward[order] - reward[mirror]
    chosen = margin > 0
    paired = rollouts.with_pairs(order[chosen], mirror[chosen])
    return paired.with_column("pair:margin", margin[chosen], maker="pair_by_reward")
