"""Token-level DPO: pairs, soft-optimal trees, logits at one state, proxy tuning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.credit import METHODS
from apportion.credit.soft_optimal import Tree, beam_search, proxy_tuned, read_logits, soft_optimal
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from golden.adapters._build import rows


def run(**given: Any) -> dict[str, Any]:
    """One of the four kinds of case."""
    kinds = {"chosen_ids": on_pair, "rewards": on_tree, "logits": at_state, "base_probs": with_proxy}
    return next(kind for name, kind in kinds.items() if name in given)(**given)


def on_pair(
    *,
    chosen_ids: Sequence[int],
    rejected_ids: Sequence[int],
    chosen_logprobs: Sequence[float],
    rejected_logprobs: Sequence[float],
    chosen_ref_logprobs: Sequence[float],
    rejected_ref_logprobs: Sequence[float],
    beta: float,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(
        [chosen_ids, rejected_ids],
        groups=[0, 0],
        log_probs_old=[chosen_logprobs, rejected_logprobs],
        log_probs_reference=[chosen_ref_logprobs, rejected_ref_logprobs],
    ).with_pairs(torch.tensor([0]), torch.tensor([1]))
    credit = METHODS["token_dpo"](beta=beta)(rollouts)
    chosen, rejected = rows(rollouts, credit.columns["token:credit/implicit_reward"].tensor)
    log_probs = rollouts.column("log_probs/old").clone().requires_grad_()
    loss = OBJECTIVES["dpo"](beta=beta)({"log_probs": log_probs}, rollouts, credit)
    loss.value.backward()
    slopes = rows(rollouts, log_probs.grad)
    return {
        "chosen_rewards": chosen,
        "rejected_rewards": rejected,
        "chosen_sum": loss.metrics["reward_chosen"],
        "rejected_sum": loss.metrics["reward_rejected"],
        "margin": loss.metrics["margin"],
        "loss": loss.value,
        "grad_chosen_logprobs": slopes[0],
        "grad_rejected_logprobs": slopes[1],
        "lowest_reward_token_rejected": rejected.index(min(rejected)),
    }


def on_tree(
    *,
    ref_probs: Mapping[str, Sequence[float]],
    rewards: Mapping[str, Sequence[float]],
    beta: float,
    vocab: int,
    depth: int,
    beams: Sequence[int],
) -> dict[str, Any]:
    names = [[",".join(map(str, p)) for p in itertools.product(range(vocab), repeat=d)] for d in range(depth)]

    def tree(given: Mapping[str, Sequence[float]]) -> list[Tensor]:
        return [torch.tensor([given[name] for name in level], dtype=torch.float64) for level in names]

    def named(values: Tree) -> dict[str, Any]:
        flat = itertools.chain.from_iterable(level.tolist() for level in values)
        return dict(zip(itertools.chain.from_iterable(names), flat, strict=True))

    best = soft_optimal(tree(rewards), tree(ref_probs), beta)
    log_policy = [p.log() for p in best.policy]
    sequence, log_prob = beam_search(log_policy, width=vocab**depth)
    found = {str(width): beam_search(log_policy, width) for width in beams}
    return {
        "V": named(best.value),
        "Q": named(best.q),
        "policy": named(best.policy),
        "implicit_rewards": named(best.implicit_reward),
        "best_sequence": sequence,
        "best_logprob": log_prob,
        "beam": {width: {"tokens": tokens, "logprob": value} for width, (tokens, value) in found.items()},
    }


def at_state(*, logits: Sequence[float], ref_logits: Sequence[float], beta: float) -> dict[str, Any]:
    at = read_logits(*(torch.tensor(values, dtype=torch.float64) for values in (logits, ref_logits)), beta)
    return {
        "value": at.value,
        "advantage": at.advantage,
        "policy": at.policy,
        "implicit_reward": at.implicit_reward,
        "expected_under_ref": at.expected_under_reference,
        "minus_beta_kl": at.minus_divergence,
    }


def with_proxy(
    *, base_probs: Sequence[float], proxy_probs: Sequence[float], ref_probs: Sequence[float], beta: float
) -> dict[str, Any]:
    given = (torch.tensor(values, dtype=torch.float64) for values in (base_probs, proxy_probs, ref_probs))
    return {"probs": proxy_tuned(*given, beta)}
