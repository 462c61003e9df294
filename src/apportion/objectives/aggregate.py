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
from apportion.rollouts import Rollouts, is_branched, ragged


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


def seq_mean_token_mean(divisor: float | None = None, weight: str | None = None) -> Weights:
    """Mean over the tokens of an episode, then over the episodes that count any (the original GRPO).

    Args:
        divisor: what the sum over episodes is divided by instead of their number (LOOP).
        weight: a token column of positive weights, for a weighted mean over the tokens (CAD-RL: ``precision_weight``).

    Raises:
        InputError: a divisor below 1; when evaluated, a weight that is not positive.
    """
    if divisor is not None and not divisor >= 1:
        raise InputError(f"divisor is {divisor}, expected at least 1.")

    def weights(rollouts: Rollouts, credit: Credit) -> Tensor:
        length = _lengths(rollouts, credit)
        episodes = max(int((length > 0).sum()), 1) if divisor is None else divisor
        if weight is None:
            return (1.0 / (length.clamp(min=1) * episodes))[rollouts.episode_of_token]
        weight_N = _column(weight, rollouts, credit)
        total = ragged.sum_rows(torch.where(credit.counted, weight_N, 0.0), rollouts.episode_offsets)
        return weight_N / (torch.where(length > 0, total, 1.0) * episodes)[rollouts.episode_of_token]

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


def _column(name: str, rollouts: Rollouts, credit: Credit) -> Tensor:
    """A token column as weights ``[N]``, 1 at tokens that are in neither a loss nor a normaliser."""
    used = credit.trained | credit.counted
    values = torch.where(used, rollouts.column(name, where=used, reader="this aggregation").double(), 1.0)
    if not bool((values > 0).all()):
        raise InputError(f"the weight {name!r} is {float(values.min()):g} at some token, expected more than 0.")
    return values


def _lengths(rollouts: Rollouts, credit: Credit) -> Tensor:
    """Counted tokens of every episode ``[E]``."""
    if is_branched(rollouts) or bool((rollouts.weight != 1).any()):
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
