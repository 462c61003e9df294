"""What a batch looks like, as numbers worth plotting."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit import Credit
from apportion.credit.reduce import spread_within
from apportion.rollouts import Rollouts, ragged


def batch_metrics(credit: Credit) -> dict[str, float]:
    """Scalars of one credited batch.

    Returns:
        ``reward`` and ``accuracy`` (share of full reward) of the known episodes; ``unknown``, their absence as a share;
        ``groups_right``, ``groups_wrong``, ``groups_mixed``, ``groups_unknown``, shares of groups that are all right,
        all alike otherwise, mixed, or without a known member; ``response_length`` in tokens; ``truncated`` share;
        ``entropy`` where recorded; ``mismatch_max`` and ``mismatch_mean`` between the sampler's and the trainer's
        log-probs, of freshly sampled responses; ``advantage_std`` over trained tokens. What does not exist (the reward
        of a batch without verdicts) is NaN.
    """
    rollouts = credit.rollouts
    reward, known = _rewards(credit)
    of_known, group = reward[known], rollouts.group_of_episode[known]
    asked = known | credit.unknown
    groups = torch.zeros(rollouts.n_groups, dtype=torch.bool, device=rollouts.device)
    groups[rollouts.group_of_episode[asked]] = True
    spread = spread_within(of_known, group, rollouts.n_groups)[groups]
    least = of_known.new_full((rollouts.n_groups,), torch.inf).scatter_reduce(0, group, of_known, "amin")[groups]
    alike = spread == 0
    shares = {
        "reward": of_known.mean(),
        "accuracy": (of_known >= 1).double().mean(),
        "unknown": credit.unknown[asked].double().mean() if bool(asked.any()) else torch.zeros(()),
        "groups_right": (alike & (least >= 1)).double().mean(),
        "groups_wrong": (alike & (least < 1)).double().mean(),
        "groups_mixed": (spread > 0).double().mean(),
        "groups_unknown": (spread < 0).double().mean(),
        "response_length": ragged.lengths_of(rollouts.token_offsets).double().mean(),
        "advantage_std": credit.advantages[credit.trained].double().std(correction=0),
    }
    shares |= _of_sampled(rollouts)
    if rollouts.has("entropy/old"):
        shares["entropy"] = rollouts.column("entropy/old")[rollouts.trained].double().mean()
    return {name: float(value) for name, value in shares.items()}


def _rewards(credit: Credit) -> tuple[Tensor, Tensor]:
    """Outcome of every episode ``[E]`` and whether there is one that is known."""
    rollouts = credit.rollouts
    column = rollouts.columns.get("episode:reward/outcome")
    if column is None:
        return credit.advantages.new_zeros(rollouts.n_episodes).double(), torch.zeros_like(credit.unknown)
    known = ~credit.unknown
    scored = rollouts.columns.get("episode:scored/outcome")
    if scored is not None:
        known = known & scored.tensor.bool()
    return column.tensor.double(), known if column.present is None else known & column.present


def _of_sampled(rollouts: Rollouts) -> dict[str, Tensor]:
    """What only freshly sampled responses have: stored ones were drawn from other weights."""
    fresh = torch.tensor([origin in ("policy", "hinted") for origin in rollouts.origin], device=rollouts.device)
    if not bool(fresh.any()):
        return {}
    used = rollouts.trained & fresh[rollouts.response_of_token]
    behaviour = rollouts.column("log_probs/behaviour", where=used)
    difference = (rollouts.column("log_probs/old") - behaviour).abs()[used]
    return {
        "truncated": rollouts.column("response:truncated", where=fresh)[fresh].double().mean(),
        "mismatch_max": difference.max() if len(difference) else difference.new_zeros(()),
        "mismatch_mean": difference.mean() if len(difference) else difference.new_zeros(()),
    }
