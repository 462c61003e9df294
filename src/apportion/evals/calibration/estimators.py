"""Estimators of the textbook that no registered method is, to compare methods with: the best, the simplest, the biased.

Suffix legend: N tokens, T steps (decisions), E episodes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from apportion.credit import Bias, Claim, Stage, Work, estimator
from apportion.credit.algebra import EXACT
from apportion.credit.decisions import on_tokens_of, step_rewards
from apportion.credit.recursions import reverse_discounted_sum
from apportion.credit.reduce import group_by, statistics
from apportion.credit.step_returns import step_relative
from apportion.errors import InputError
from apportion.rollouts import Steps, steps


def exact_advantage(column: str = "exact/advantage") -> Stage:
    """The exact advantage of every token: as good as credit can be.

    Args:
        column: where it stands.
    """

    @estimator(needs=(column,), bias=EXACT, by_group=True)
    def exact(work: Work) -> Tensor:
        return work.rollouts.column(column, reader="exact_advantage")

    return exact


def total_return(component: str = "outcome") -> Stage:
    """The whole return of the episode, without a baseline: ``A_it = R_i``.

    Args:
        component: the reward.

    Source: Williams 1992.
    """

    @estimator(needs=(f"reward/{component}",), bias=EXACT, by_group=True)
    def whole(work: Work) -> Tensor:
        return work.spread(work.up(component))

    return whole


def return_to_go(component: str = "outcome") -> Stage:
    """Returns of decisions against the mean of the group's other episodes that are still going on.

        A_it = G_it - mean_{j != i, j acts at t} G_jt,    G_it alone

    :func:`~apportion.credit.step_returns.step_relative` by turn: whether others act at turn t does not depend on what
    the episode does there.

    Args:
        component: the reward.
    """
    return step_relative(component)


def turn_index(component: str = "outcome", leave_one_out: bool = False) -> Stage:
    """Rewards normalised turn by turn, then summed.

        A_it = sum_{k >= t} (r_ik - mu_k),    mu_k = mean r_jk over episodes that have a turn k

    The number of terms is the episode's own, so that stopping escapes the means still to come.

    Args:
        component: the reward.
        leave_one_out: mu_k of the other episodes, 0 without any.

    Source: verl issue 7244.
    """
    bias = Bias(Claim.BIASED, "how many means are subtracted depends on when the episode itself stops")

    @estimator(needs=(f"reward/{component}",), bias=bias, by_group=True)
    def by_turn(work: Work) -> Tensor:
        table, reward_T, place_T = _decisions(work, component)
        mean_T = statistics(reward_T, place_T, leave_one_out=leave_one_out).mean
        return on_tokens_of(table, reverse_discounted_sum(reward_T - mean_T, table.offsets))

    return by_turn


def zero_padded(component: str = "outcome") -> Stage:
    """Returns of decisions against the mean of all others, those that have stopped counting as 0.

        A_it = G_it - sum_{j != i} G_jt / (n - 1),    G_jt = 0 after j has stopped

    Args:
        component: the reward.

    Raises:
        InputError: when run, a group of one.
    """

    @estimator(needs=(f"reward/{component}",), bias=EXACT, compares_groups=True, by_group=True)
    def padded(work: Work) -> Tensor:
        table, reward_T, place_T = _decisions(work, component)
        return_T = reverse_discounted_sum(reward_T, table.offsets)
        group_E = work.rollouts.group_of_episode
        size_T = torch.bincount(group_E)[group_E][table.episode]
        if bool((size_T < 2).any()):
            raise InputError("a group has one member, expected at least two to compare.")
        running = statistics(return_T, place_T, leave_one_out=True)
        return on_tokens_of(table, return_T - running.mean * running.count / (size_T - 1))

    return padded


def _decisions(work: Work, component: str) -> tuple[Steps, Tensor, Tensor]:
    """The decisions, their rewards ``[T]``, and the group and turn they are in, as one number ``[T]``."""
    table = steps(work.rollouts)
    place_T, _ = group_by(work.rollouts.group_of_episode[table.episode], table.index)
    return table, step_rewards(work, component, table), place_T


TEXTBOOK: dict[str, Callable[..., Stage]] = {
    "exact_advantage": exact_advantage,
    "total_return": total_return,
    "return_to_go": return_to_go,
    "zero_padded": zero_padded,
    "turn_index": turn_index,
}
"""By the name they have in the table."""
