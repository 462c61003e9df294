"""Sotopia-RL: one dialogue shared out among its utterances, and utterances of many put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.rollouts import Rollouts


def attribute(
    *, method: str, scores: Sequence[int], episode_score: float, key: int | None = None, **settings: Any
) -> dict[str, Any]:
    count = len(scores)
    rollouts = Rollouts.from_lists(
        [[0]] * count, groups=[0] * count, episodes=[0] * count, rewards=[episode_score], component="goal"
    )
    rollouts = rollouts.with_reward("attribution/goal", torch.tensor(scores, dtype=torch.float64), level="response")
    if key is not None:
        rollouts = rollouts.with_reward("key/goal", torch.tensor([key]))
    credit = METHODS["sotopia_rl"](dimensions=("goal",), method=method, **settings)(rollouts)
    return {"rewards": credit.columns["response:credit/attributed/goal"].tensor}


def aggregate(
    *, dimensions: Mapping[str, Sequence[float]], weights: Mapping[str, float], output_scale: float
) -> dict[str, Any]:
    count = len(next(iter(dimensions.values())))
    rollouts = Rollouts.from_lists([[0]] * count, groups=[0] * count)
    for name, values in dimensions.items():
        rollouts = rollouts.with_reward(name, torch.tensor(values, dtype=torch.float64))
    credit = METHODS["sotopia_rl"](
        dimensions=tuple(dimensions), method="uniform", weights=weights, output_scale=output_scale
    )(rollouts)
    normalised = {name: credit.columns[f"response:credit/normalised/{name}"].tensor for name in dimensions}
    return {"normalised": normalised, "rewards": credit.columns["response:credit/utterance_rewards"].tensor}


KINDS = {"attribute": attribute, "aggregate": aggregate}


def run(*, kind: str, **given: Any) -> dict[str, Any]:
    return KINDS[kind](**given)
