"""OPRL: implicit rewards and advantages of turns, one response each, and the loss of the model behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import Rows, credit_of, rows


def run(
    *,
    group_ids: Sequence[int],
    traj_ids: Sequence[int],
    episode_rewards: Sequence[float],
    prm_logprobs: Rows,
    old_logprobs: Rows,
    beta: float,
    alpha: float,
    estimator: str,
    norm: str,
    step_baseline: str,
    traj_score: str,
    eps: float,
) -> dict[str, Any]:
    reward_of = dict(zip(traj_ids, episode_rewards, strict=True))
    rollouts = Rollouts.from_lists(
        [range(len(row)) for row in prm_logprobs],
        groups=group_ids,
        episodes=traj_ids,
        rewards=list(reward_of.values()),
        log_probs_old=old_logprobs,
    )
    log_probs = ragged.flatten(prm_logprobs, torch.float64)[0]
    rollouts = rollouts.with_column("log_probs/prm", log_probs)
    credit = METHODS["oprl"](
        beta=beta,
        alpha=alpha,
        estimator=estimator,
        norm=norm,
        step_baseline=step_baseline,
        eps=eps,
        singleton="raw",
    )(rollouts)
    loss = OBJECTIVES["implicit_prm"](beta=beta, traj_score=traj_score, threshold=0.0)(
        {"log_probs": log_probs}, rollouts, credit_of(rollouts)
    )
    names = ("step_rewards", "episode_advantages", "step_advantages")
    return {
        "advantages": rows(rollouts, credit.advantages),
        **{name: credit.columns[f"response:credit/{name}"].tensor for name in names},
        "prm_loss": loss.value.item(),
        "prm_pairs": loss.metrics["prm_pairs"].item(),
    }
