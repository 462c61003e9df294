"""Trust-GRPO: the shaped reward and the advantages; the golden ``total_steps`` is T."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS, Clock
from apportion.rollouts import Rollouts
from golden.adapters._build import rows


def run(
    *,
    group_ids: Sequence[int],
    outcome_rewards: Sequence[float],
    thinking_rewards: Sequence[float],
    step: int,
    response_lengths: Sequence[int],
    alpha: float,
    total_steps: int,
    eps: float,
    variant: str,
) -> dict[str, Any]:
    ids = [range(length) for length in response_lengths]
    rollouts = Rollouts.from_lists(ids, groups=group_ids, rewards=outcome_rewards)
    rollouts = rollouts.with_reward("thinking", torch.tensor(thinking_rewards, dtype=torch.float64), level="response")
    method = METHODS["trust_grpo"](alpha=alpha, eps=eps, variant=variant, singleton="raw")
    credit = method(rollouts, clock=Clock(step, total_steps))
    trust, used, reward = (
        credit.columns[f"episode:credit/{name}"].tensor for name in ("trust", "thinking_used", "trusted_reward")
    )
    return {
        "trust": {str(group): gamma for group, gamma in zip(group_ids, trust.tolist(), strict=True)},
        "thinking_used": used,
        "rewards": reward,
        "advantages": rows(rollouts, credit.advantages),
    }
