"""ROVER: the regression on responses with whole logits, and the uniform policy's values on a tree of strings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.credit.soft_optimal import Tree
from apportion.evals.uniform_policy import (
    greedy_policy,
    rewarded_leaves,
    softmax_policy,
    success,
    success_bound,
    uniform_q,
)
from apportion.models.statistics import from_logits
from apportion.objectives import OBJECTIVES
from apportion.objectives.rover import regression
from apportion.rollouts import Rollouts
from golden.adapters._build import rows

Logits = Sequence[Sequence[Sequence[float]]]


def run(**given: Any) -> dict[str, Any]:
    """One of the two kinds of case."""
    return on_tree(**given) if "actions" in given else on_responses(**given)


def on_responses(
    *,
    response_ids: Sequence[Sequence[int]],
    logits: Logits,
    old_logits: Logits,
    rewards: Sequence[float],
    group_ids: Sequence[int],
    rho: float,
    next_q_scale: float,
    temperature: float,
    normalize_std: bool,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(response_ids, groups=group_ids, rewards=rewards)
    warmth = torch.full((rollouts.n_tokens,), temperature, dtype=torch.float64)
    now, old = (
        from_logits(
            torch.tensor([at for row in table for at in row], dtype=torch.float64),
            *(rollouts.ids, warmth, ["log_probs", "vocab_mean"]),
        )
        for table in (logits, old_logits)
    )
    for name, values in old.items():
        rollouts = rollouts.with_column(f"{name}/old", values)
    credit = METHODS["grpo"](norm_by_std=normalize_std, singleton="raw")(rollouts)
    leaves = {name: values.requires_grad_() for name, values in now.items()}
    loss = OBJECTIVES["rover"](rho=rho, next_q_scale=next_q_scale)(leaves, rollouts, credit)
    (slope,) = torch.autograd.grad(loss.value, leaves["log_probs"])
    at = regression(leaves, rollouts, credit, rho, next_q_scale)
    centred = torch.zeros(rollouts.n_episodes, dtype=torch.float64)
    centred[rollouts.episode_of_token] = credit.advantages
    return {
        "centered_rewards": centred,
        "q_values": rows(rollouts, at.q.detach()),
        "next_q": rows(rollouts, at.next_q),
        "targets": rows(rollouts, at.targets),
        "loss": loss.value,
        "grad_q": rows(rollouts, slope / rho),
    }


def on_tree(*, actions: Sequence[str], depth: int, rewarded: Sequence[str], rho: float) -> dict[str, Any]:
    leaves = rewarded_leaves(len(actions), depth, [[actions.index(a) for a in string] for string in rewarded])
    q = uniform_q(leaves)
    policy = softmax_policy(q, rho)

    def named(tree: Tree) -> dict[str, list[float]]:
        """States from which a rewarded string can be reached."""
        return {
            "".join(prefix) or "root": tree[d][i].tolist()
            for d in range(depth)
            for i, prefix in enumerate(itertools.product(actions, repeat=d))
            if d == 0 or q[d][i].any()
        }

    return {
        "q_uniform": named(q),
        "softmax_policy": named(policy),
        "success_softmax": success(policy, leaves),
        "lower_bound": success_bound(q, policy, rho),
        "greedy_success": success(greedy_policy(q), leaves),
    }
