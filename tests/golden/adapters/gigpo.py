"""GiGPO, one response a step; states of any kind as text, equal states as equal text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.credit import METHODS
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import Rows


def run(
    *,
    step_rewards: Rows,
    anchor_states: Sequence[Sequence[Any]],
    group_ids: Sequence[int],
    step_penalties: Rows | None = None,
    gamma: float,
    step_weight: float,
    mode: str,
    eps: float,
    episode_stats: str,
    similarity: float | None = None,
) -> dict[str, Any]:
    rewards, offsets = ragged.flatten(step_rewards, torch.float64)
    episodes = ragged.row_of(offsets).tolist()
    rollouts = Rollouts.from_lists([[0]] * len(rewards), groups=[group_ids[e] for e in episodes], episodes=episodes)
    states = [json.dumps(state, sort_keys=True) for row in anchor_states for state in row]
    rollouts = rollouts.with_reward("step", rewards, level="response").with_column("response:state_key", states)
    if step_penalties is not None:
        rollouts = rollouts.with_column("response:penalty", ragged.flatten(step_penalties, torch.float64)[0])
    credit = METHODS["gigpo"](
        gamma=gamma,
        step_weight=step_weight,
        mode=mode,
        eps=eps,
        episode_stats=episode_stats,
        similarity=similarity,
        singleton="raw",
    )(rollouts)

    def per_step(values: Tensor) -> list[list[float]]:
        return ragged.unflatten(values, offsets)

    names = ("step_returns", "episode_advantages", "step_advantages")
    details = {name: per_step(credit.columns[f"response:credit/{name}"].tensor) for name in names}
    return {"advantages": per_step(credit.advantages), **details}
