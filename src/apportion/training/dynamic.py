"""Dynamic sampling: draw again in place of groups that have nothing to compare.

Suffix legend: G groups, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from apportion.credit.reduce import spread_within
from apportion.rollouts import Rollouts, join


def contrasting(rollouts: Rollouts) -> Tensor:
    """Bool ``[G]``: the known outcomes of the group differ; groups by ascending id."""
    reward = rollouts.columns["episode:reward/outcome"].tensor.double()
    known = rollouts.columns["episode:scored/outcome"].tensor.bool()
    return spread_within(reward[known], rollouts.group_of_episode[known], rollouts.n_groups) > 0


def draw_contrasting(draw: Callable[[int], Rollouts], groups: int, rounds: int) -> tuple[Rollouts, dict[str, float]]:
    """Rounds of groups until enough of them have different rewards.

    Args:
        draw: the scored rollouts of a round, from 0; ids of groups ascend from round to round.
        groups: how many are wanted.
        rounds: how many rounds at most.

    Returns:
        the first ``groups`` that have a contrast, filled up, where there are too few, with the first of the others; and
        ``sampling_rounds``, ``groups_discarded``, ``tokens_discarded``.

    Source: dynamic sampling, arXiv 2503.14476.
    """
    drawn: list[Rollouts] = []
    found = 0
    while len(drawn) < rounds and found < groups:
        drawn.append(draw(len(drawn)))
        found += int(contrasting(drawn[-1]).sum())
    every = join(drawn)
    wanted = contrasting(every)
    order = torch.cat([wanted.nonzero(), (~wanted).nonzero()]).squeeze(1)
    kept = every.select(torch.isin(every.group_of_episode, order[:groups]))
    return kept, {
        "sampling_rounds": float(len(drawn)),
        "groups_discarded": float(every.n_groups - kept.n_groups),
        "tokens_discarded": float(every.trained.sum() - kept.trained.sum()),
    }
