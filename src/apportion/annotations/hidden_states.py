"""Sums of hidden states, pooled in the model: of a whole batch they would not fit anywhere.

Suffix legend: B responses, D hidden size.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from apportion.annotations.annotator import Annotator
from apportion.errors import InputError
from apportion.models.measuring import micro_batches
from apportion.models.policy import trained_tokens
from apportion.models.trunk import TrunkModel
from apportion.rollouts import Rollouts


def hidden_states(evaluator: Literal["old", "reference"] = "reference", micro_batch_tokens: int = 1 << 14) -> Annotator:
    """Response column ``hidden_sum/<evaluator>`` ``[B, D]``: the sum of the states its trained tokens were drawn from.

    These are the vectors that the output head multiplies: of the last prompt token, and of all response tokens but the
    last.

    Args:
        evaluator: whose: the ``reference`` policy's or the ``old`` one's, as it is before the update.
        micro_batch_tokens: padded tokens in one forward pass.

    Raises:
        InputError: an unknown evaluator; when applied, a policy without hidden states, or states that are not finite.
    """
    name = f"response:hidden_sum/{evaluator}"

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        return rollouts.with_column(name, hidden_sums(rollouts, policy, micro_batch_tokens), maker="hidden_states")

    return Annotator(apply, (name,), evaluator)


def hidden_sums(rollouts: Rollouts, policy: Any, micro_batch_tokens: int = 1 << 14) -> Tensor:
    """The same as a tensor ``[B, D]``; 0 of a response without trained tokens."""
    if not isinstance(policy, TrunkModel):
        raise InputError(
            f"hidden_states looks at hidden states, and a {type(policy).__name__} has none: choose a transformer."
        )
    total: Tensor | None = None
    for part in micro_batches(rollouts, micro_batch_tokens):
        if len(trained_tokens(rollouts, part)):
            sums = policy.hidden_sums(rollouts, part)
            total = sums.new_zeros((rollouts.n_responses, sums.shape[1])) if total is None else total
            total[part] = sums
    return torch.zeros((rollouts.n_responses, 1), device=rollouts.device) if total is None else total
