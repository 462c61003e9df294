"""CALM: subgoals of one episode, one response a decision, and how good verdicts are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.evals.verdicts import verdict_quality
from apportion.rollouts import Rollouts


def shape(
    *,
    env_rewards: Sequence[float],
    num_subgoals: int,
    verdicts: Sequence[Sequence[bool | None]],
    bonus: float,
    gamma: float,
    once: bool,
    ordered: bool,
) -> dict[str, Any]:
    steps = len(env_rewards)
    achieved = torch.tensor([[verdict is True for verdict in row] for row in verdicts]).reshape(steps, num_subgoals)
    known = torch.tensor([[verdict is not None for verdict in row] for row in verdicts]).reshape(steps, num_subgoals)
    rollouts = Rollouts.from_lists([[0]] * steps, groups=[0] * steps, episodes=[0] * steps)
    rollouts = rollouts.with_reward("step", torch.tensor(env_rewards, dtype=torch.float64), level="response")
    rollouts = rollouts.with_reward("subgoals", achieved.double(), known, level="response")
    credit = METHODS["calm"](bonus=bonus, gamma=gamma, once=once, ordered=ordered)(rollouts)
    ends = credit.columns["response:credit/terminations"].tensor
    return {
        "terminations": [row.nonzero().squeeze(1).tolist() for row in ends],
        "shaped_rewards": credit.columns["response:credit/shaped_rewards"].tensor,
        "returns": credit.columns["response:credit/step_returns"].tensor,
    }


def score(*, predictions: Sequence[bool | None], annotations: Sequence[bool]) -> dict[str, Any]:
    return verdict_quality(predictions, annotations).as_dict()


KINDS = {"shape": shape, "score": score}


def run(*, kind: str, **given: Any) -> dict[str, Any]:
    return KINDS[kind](**given)
