"""Attempts that are too long: which they are, and a soft penalty before the limit.

The length of an episode is the number of its trained tokens, across its responses.

Suffix legend: N tokens, B responses, E episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Result, Reward, Stage, Work, last_of_row, shaper
from apportion.credit.recursions import trained_tokens
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError
from apportion.rollouts import Rollouts, ragged


def lengths(rollouts: Rollouts) -> Tensor:
    """Trained tokens of every episode ``[E]``."""
    return ragged.lengths_of(trained_tokens(rollouts)[1])


def cut_off(rollouts: Rollouts, max_length: int | None = None) -> Tensor:
    """``[E]``: the episodes that ran into a limit.

    Args:
        rollouts: with ``response:truncated`` where there is no ``max_length``.
        max_length: episodes with at least so many trained tokens; None: those with a response that sampling or the
            environment cut off.

    Example:
        >>> rollouts = Rollouts.from_lists([[5, 6], [5]], groups=[0, 0])
        >>> cut_off(rollouts, max_length=2).tolist()
        [True, False]
        >>> cut_off(rollouts.with_column("response:truncated", torch.tensor([False, True]))).tolist()
        [False, True]
    """
    if max_length is not None:
        return lengths(rollouts) >= max_length
    truncated = rollouts.column("response:truncated", reader="a method that looks for responses cut off")
    return ragged.sum_rows(truncated.long(), rollouts.response_offsets) > 0


def check_max_length(max_length: int) -> None:
    """Raise an :class:`InputError` unless a longest length is at least 1."""
    if max_length < 1:
        raise InputError(f"max_length is {max_length}, expected at least 1.")


def overlong_penalties(lengths: Tensor, max_length: int, buffer: int, factor: float = 1.0) -> Tensor:
    """What an attempt of a length pays: nothing, then more by the token.

        penalty = clip(factor (max_length - buffer - length) / buffer, -factor, 0)

    Args:
        lengths: in tokens, of any shape.
        max_length: where the penalty is ``-factor``; beyond it stays so.
        buffer: tokens before it over which the penalty grows.
        factor: the largest penalty.

    Raises:
        InputError: a buffer outside 1 to ``max_length``, or a negative factor.

    Source: arXiv 2503.14476, soft overlong punishment; verl's DAPO reward manager.

    Example:
        >>> overlong_penalties(torch.tensor([80, 90, 95, 100, 120]), max_length=100, buffer=10).tolist()
        [0.0, 0.0, -0.5, -1.0, -1.0]
    """
    check_max_length(max_length)
    if not 1 <= buffer <= max_length:
        raise InputError(f"buffer is {buffer}, expected 1 to max_length, which is {max_length}.")
    check_coefficient("factor", factor)
    return (factor * (max_length - buffer - lengths.double()) / buffer).clamp(-factor, 0.0)


def overlong_penalty(max_length: int, buffer: int, factor: float = 1.0, component: str = "outcome") -> Stage:
    """A reward minus a penalty that grows towards the longest length; see :func:`overlong_penalties`.

    The penalty joins an episode's reward; one of anything smaller becomes a reward of tokens, and the penalty stands
    on the episode's last trained token.

    Args:
        max_length: trained tokens of an episode at which the whole penalty is due.
        buffer: tokens before it over which the penalty grows.
        factor: the largest penalty.
        component: the reward.

    Details: ``episode:overlong_penalty``.

    Raises:
        InputError: a buffer outside 1 to ``max_length``, or a negative factor.

    Source: arXiv 2503.14476.
    """
    overlong_penalties(torch.zeros(0), max_length, buffer, factor)  # refuses settings that cannot be used

    bias = EXACT if factor == 0 else Bias(Claim.BIASED, "length is charged for beside the task's reward")

    @shaper(needs=(f"reward/{component}",), bias=bias, by_group=True)
    def penalised(work: Work) -> Result:
        penalty_E = overlong_penalties(lengths(work.rollouts), max_length, buffer, factor).to(work.advantages.dtype)
        if work.rewards[component].level == "episode":
            level, values = "episode", work.up(component) + penalty_E
        else:
            at_end = last_of_row(work.rollouts.episode_of_token, work.rollouts.trained)
            level, values = "token", work.down(component) + torch.where(at_end, work.spread(penalty_E), 0.0)
        reward = Reward(level, values, torch.ones_like(values, dtype=torch.bool))
        return Result({component: reward}, {"episode:overlong_penalty": penalty_E})

    return penalised
