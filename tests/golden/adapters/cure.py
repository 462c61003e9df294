"""CURE: critical tokens and the prefixes they end, or the joint group of originals and branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion.credit import METHODS
from apportion.rollouts import Rollouts
from apportion.sampling.fork_rules import critical_tokens
from apportion.training.dynamic import contrasting


def run(**case: Any) -> dict[str, Any]:
    return _group(**case) if "original_rewards" in case else _prefixes(**case)


def _prefixes(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    entropies: Sequence[float],
    token_texts: Mapping[str, str],
    special_ids: Sequence[int],
    top_k: int,
    max_prefix_length: int,
) -> dict[str, Any]:
    texts = [token_texts[str(token)] for token in response_ids]
    special = [token in special_ids for token in response_ids]
    candidates = critical_tokens(entropies, texts, special, top_k) or [0]
    prefixes = [[*prompt_ids, *response_ids[:place]][:max_prefix_length] for place in candidates]
    return {"candidates": candidates, "prefixes": prefixes}


def _group(
    original_rewards: Sequence[float], branch_rewards: Sequence[float], n1: int, n2: int, eps: float
) -> dict[str, Any]:
    assert (len(original_rewards), len(branch_rewards)) == (n1, n1 * n2)
    rewards = [*original_rewards, *branch_rewards]
    group = Rollouts.from_lists([[0]] * len(rewards), groups=[0] * len(rewards), rewards=rewards)
    advantages = METHODS["grpo"](eps=eps)(group).advantages.tolist()
    return {
        "original_advantages": advantages[:n1],
        "branch_advantages": advantages[n1:],
        "kept_by_dynamic_sampling": bool(contrasting(group)[0]),
    }
