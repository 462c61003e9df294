"""What methods of several decisions share: rewards of decisions, and their credit on tokens.

Suffix legend: N tokens, T steps (decisions).
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import Work
from apportion.errors import InputError
from apportion.rollouts import Steps


def step_rewards(work: Work, component: str, table: Steps) -> Tensor:
    """A reward as rewards of decisions ``[T]``: one above them stands on its last trained token, one below is summed.

    Raises:
        InputError: some of it would lie on tokens of no decision.
    """
    reward = work.rewards[component]
    if reward.level == table.level:
        values = torch.where(reward.scored, reward.values, 0.0)
        return values.sum(1) if values.dim() == 2 else values
    values, step = work.down(component), table.step_of_token
    outside = (step < 0) & (values != 0)
    if bool(outside.any()):
        raise InputError(
            f"reward {component!r} lies on {int(outside.sum())} tokens outside every {table.level}, expected rewards "
            f"of decisions: give it one a {table.level}."
        )
    inside = step >= 0
    return values.new_zeros(len(table)).index_add_(0, step[inside], values[inside])


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
