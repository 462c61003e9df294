"""What a batch looks like, as numbers worth plotting."""

from __future__ import annotations

import torch

from apportion.credit import Credit
from apportion.credit.reduce import spread_within
from apportion.rollouts import ragged


def batch_metrics(credit: Credit) -> dict[str, float]:
    """Scalars of one credited batch.

    Returns:
        ``reward`` and ``accuracy`` (share of full reward) of the known episodes; ``unknown``, their absence as a share;
        ``groups_right``, ``groups_wrong``, ``groups_mixed``, ``groups_unknown``, shares of groups that are all right,
        all alike otherwise, mixed, or without a known member; ``response_length`` in tokens; ``truncated`` share;
        ``entropy`` where recorded; ``mismatch_max`` and ``mismatch_mean`` between the sampler's and the trainer's
        log-probs; ``advantage_std`` over trained tokens. What does not exist (the reward of a batch without verdicts)
        is NaN.
    """
    rollouts = credit.rollouts
    known = ~credit.unknown
    reward = rollouts.column("episode:reward/outcome").double()
    of_known = reward[known]
    group = rollouts.group_of_episode[known]
    spread = spread_within(of_known, group, rollouts.n_groups)
    best = of_known.new_full((rollouts.n_groups,), torch.inf).scatter_reduce(0, group, of_known, "amin")
    scored, alike = spread >= 0, spread == 0
    difference = (rollouts.column("log_probs/old") - rollouts.column("log_probs/behaviour")).abs()[rollouts.trained]
    shares = {
        "reward": of_known.mean(),
        "accuracy": (of_known >= 1).double().mean(),
        "unknown": (~known).double().mean(),
        "groups_right": (alike & (best >= 1)).double().mean(),
        "groups_wrong": (alike & (best < 1)).double().mean(),
        "groups_mixed": (spread > 0).double().mean(),
        "groups_unknown": (~scored).double().mean(),
        "response_length": ragged.lengths_of(rollouts.token_offsets).double().mean(),
        "truncated": rollouts.column("response:truncated").double().mean(),
        "mismatch_max": difference.max(),
        "mismatch_mean": difference.mean(),
        "advantage_std": credit.advantages[credit.trained].double().std(correction=0),
    }
    if rollouts.has("entropy/old"):
        shares["entropy"] = rollouts.column("entropy/old")[rollouts.trained].double().mean()
    return {name: float(value) for name, value in shares.items()}
