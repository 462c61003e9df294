"""EduAlign: three scores of every response as one reward, and advantages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.credit.edu_align import COMPONENTS
from apportion.rollouts import Rollouts


def run(
    *,
    dimension_scores: Sequence[Sequence[float]],
    group_ids: Sequence[int],
    weights: Sequence[float],
    low: float,
    high: float,
    scale_rewards: bool,
    eps: float,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists([[0]] * len(group_ids), groups=group_ids)
    for component, scores in zip(COMPONENTS, zip(*dimension_scores, strict=True), strict=True):
        rollouts = rollouts.with_reward(component, torch.tensor(scores, dtype=torch.float64))
    credit = METHODS["edu_align"](
        weights=weights, low=low, high=high, norm_by_std=scale_rewards, eps=eps, singleton="error"
    )(rollouts)
    return {"rewards": credit.columns["episode:credit/reward/mixed"].tensor, "advantages": credit.advantages}
