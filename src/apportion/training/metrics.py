"""What a batch looks like, as numbers worth plotting."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.credit import Credit
from apportion.credit.reduce import spread_within
from apportion.rollouts import Rollouts, branches_of, is_branched, ragged


def batch_metrics(credit: Credit) -> dict[str, float]:
    """Scalars of one credited batch.

    Returns:
        those of :func:`credit_metrics`; ``tokens_sampled`` by the policy, those of a shared prefix once; ``truncated``
        share; ``entropy`` where recorded; ``mismatch_max`` and
        ``mismatch_mean`` between the sampler's and the trainer's log-probs, of freshly sampled responses; where drawn
        so, ``branches``, the share that branched from others, and ``hinted``, the share drawn under a hint. What does
        not exist (the reward of a batch without verdicts) is NaN.
    """
    shares = _of_sampled(credit.rollouts)
    if credit.rollouts.has("entropy/old"):
        shares["entropy"] = credit.rollouts.column("entropy/old")[credit.rollouts.trained].double().mean()
    if is_branched(credit.rollouts):
        shares["branches"] = (branches_of(credit.rollouts).parent >= 0).double().mean()
    if credit.rollouts.has("response:hint_stage"):
        shares["hinted"] = (credit.rollouts.columns["response:hint_stage"].tensor > 0).double().mean()
    return credit_metrics(credit) | {name: float(value) for name, value in shares.items()}


def drawn_for(metrics: Mapping[str, float]) -> float:
    """Tokens that the policy drew for a step: those of its batch, and all that its strategy or resampling put aside.

    Args:
        metrics: a step's; a batch of stored rollouts alone has drawn none. A run from before they were counted has
            only what reached its batches.
    """
    reached = metrics.get("tokens_sampled", 0.0) + metrics.get("tokens_discarded", 0.0)
    return metrics.get("tokens_drawn", reached)


def credit_metrics(credit: Credit) -> dict[str, float]:
    """What any credited batch has, whoever sampled it.

    Returns:
        ``reward`` and ``accuracy`` (share of full reward) of the known episodes; ``unknown``, their absence as a share;
        ``groups_right``, ``groups_wrong``, ``groups_mixed``, ``groups_unknown``, shares of groups that are all right,
        all alike otherwise, mixed, or without a known member; ``response_length`` in tokens; ``advantage_std`` over
        trained tokens. What does not exist is NaN.
    """
    rollouts = credit.rollouts
    reward, known = _rewards(credit)
    given = credit.advantages[credit.trained].double()
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
        "advantage_std": (given - given.mean()).square().mean().sqrt(),
    }
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
        "tokens_sampled": used.sum(),
        "truncated": rollouts.column("response:truncated", where=fresh)[fresh].double().mean(),
        "mismatch_max": difference.max() if len(difference) else difference.new_zeros(()),
        "mismatch_mean": difference.mean() if len(difference) else difference.new_zeros(()),
    }
