"""How token terms become one number: a weight for every token, computed on the whole update batch.

Weights are computed before any row is cut off or left out, so the loss does not depend on how a batch is cut. All
include the token's sampling weight. Only ``token_mean`` makes sense where branches were forced: the others need the
whole path, whose prefix a branched row does not train, and refuse such rows.

Suffix legend: N tokens, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from apportion import registry
from apportion.credit.assign import Credit
from apportion.errors import InputError
from apportion.objectives.protocol import Weights
from apportion.rollouts import Rollouts, ragged


def token_mean() -> Weights:
    """Every counted token of the batch weighs the same: ``1 / sum(counted)`` (DAPO; verl's default)."""

    def weights(rollouts: Rollouts, credit: Credit) -> Tensor:
        weight = rollouts.weight
        total = torch.where(credit.counted, weight, 0.0).sum()
        return weight / total if total > 0 else torch.zeros_like(weight)

    return weights


def seq_mean_token_sum() -> Weights:
    """Sum over the tokens of an episode, mean over the episodes that count any."""

    def weights(rollouts: Rollouts, credit: Credit) -> Tensor:
        length = _lengths(rollouts, credit)
        return torch.full_like(rollouts.weight, 1.0 / max(int((length > 0).sum()), 1))

    return weights


def seq_mean_token_mean() -> Weights:
    """Mean over the tokens of an episode, then over the episodes that count any (the original GRPO)."""

    def weights(rollouts: Rollouts, credit: Credit) -> Tensor:
        length = _lengths(rollouts, credit)
        weight_E = 1.0 / (length.clamp(min=1) * max(int((length > 0).sum()), 1))
        return weight_E[rollouts.episode_of_token]

    return weights


def seq_mean_token_sum_norm(length: float | None = None, per_episode: bool = True) -> Weights:
    """Sum over tokens divided by a constant length (Dr.GRPO).

    Args:
        length: the constant; None: the longest episode of the batch, as verl's padded width.
        per_episode: divide by the number of episodes too. verl does not.

    Raises:
        InputError: a length that is not positive.
    """
    if length is not None and not length > 0:
        raise InputError(f"length is {length}, expected more than 0.")

    def weights(rollouts: Rollouts, credit: Credit) -> Tensor:
        counted = _lengths(rollouts, credit)
        longest = int(ragged.lengths_of(rollouts.episode_offsets).max()) if rollouts.n_episodes else 0
        scale = max(longest, 1) if length is None else length
        episodes = max(int((counted > 0).sum()), 1) if per_episode else 1
        return torch.full_like(rollouts.weight, 1.0 / (scale * episodes))

    return weights


def _lengths(rollouts: Rollouts, credit: Credit) -> Tensor:
    """Counted tokens of every episode ``[E]``."""
    if bool((rollouts.weight != 1).any()):
        raise InputError(
            "this aggregation needs whole responses and these rollouts have branches that share a prefix: "
            "use aggregate='token_mean'."
        )
    return ragged.sum_rows(credit.counted.double(), rollouts.episode_offsets)


AGGREGATIONS: dict[str, Callable[..., Weights]] = {
    "token_mean": token_mean,
    "seq_mean_token_sum": seq_mean_token_sum,
    "seq_mean_token_mean": seq_mean_token_mean,
    "seq_mean_token_sum_norm": seq_mean_token_sum_norm,
}


def aggregation(spec: str | Weights) -> Weights:
    """The aggregation a spec names, such as ``seq_mean_token_sum_norm(length=512)``."""
    return registry.build(spec, AGGREGATIONS, "aggregation") if isinstance(spec, str) else spec
