"""LOOP: advantages, the loss of every rollout, what the filter keeps, and the loss of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.credit import METHODS, Credit
from apportion.objectives import OBJECTIVES, Loss, Objective
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import Masks, Rows, credit_of, rows


def run(**given: Any) -> dict[str, Any]:
    """One of the two kinds of case."""
    return turns(**given) if "turn_logprobs" in given else batch(**given)


def batch(
    *,
    token_ids: Sequence[Sequence[int]],
    is_output: Masks,
    old_logprobs: Rows,
    logprobs: Rows,
    rewards: Sequence[float],
    group_ids: Sequence[int],
    action: str,
    clip_eps: float,
    clip_style: str,
    clip: bool,
    normalize: bool,
    baseline: str,
    min_abs_advantage: float,
    loss_divisor: float,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(
        token_ids, groups=group_ids, rewards=rewards, trained=is_output, log_probs_old=old_logprobs
    )
    settings = {"baseline": baseline, "normalize": normalize, "singleton": "error"}
    every = METHODS["loop"](min_abs_advantage=0.0, **settings)(rollouts)
    kept = METHODS["loop"](min_abs_advantage=min_abs_advantage, **settings)(rollouts)
    log_probs = ragged.flatten(logprobs, torch.float64)[0].requires_grad_()

    def objective(divisor: float) -> Objective:
        if not clip:
            return OBJECTIVES["reinforce"](aggregate=f"seq_mean_token_mean(divisor={divisor})")
        return OBJECTIVES["loop"](action=action, eps=clip_eps, style=clip_style, divisor=divisor)

    each = [of_episode(objective(1), log_probs, every, e) for e in range(rollouts.n_episodes)]
    torch.stack([loss.value for loss in each]).sum().backward()
    first = ragged.ranges(*first_trained(rollouts))
    return {
        "advantages": every.advantages[first],
        "rollout_losses": [loss.value.item() for loss in each],
        "clip_fraction": [loss.metrics["clip_fraction"].item() if clip else None for loss in each],
        "kept": sorted(set(rollouts.episode_of_token[kept.trained].tolist())),
        "loss": objective(loss_divisor)({"log_probs": log_probs.detach()}, rollouts, kept).value,
        "grad_logprobs": rows(rollouts, log_probs.grad),
    }


def of_episode(objective: Objective, log_probs: Tensor, credit: Credit, episode: int) -> Loss:
    """The loss of one rollout by itself."""
    mine = torch.tensor([episode])
    tokens = credit.rollouts.indices(mine)["token"]
    return objective({"log_probs": log_probs[tokens]}, credit.rollouts.select(mine), credit.select(mine))


def first_trained(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """The range that holds the first trained token of every episode."""
    numbers = torch.where(rollouts.trained, torch.arange(rollouts.n_tokens), rollouts.n_tokens)
    first = torch.stack([row.min() for row in numbers.split(ragged.lengths_of(rollouts.episode_offsets).tolist())])
    return first, first + 1


def turns(
    *, turn_old_logprobs: Rows, turn_logprobs: Rows, advantage: float, clip_eps: float, clip_style: str, **_: Any
) -> dict[str, Any]:
    """One rollout, with a token of the environment after every turn."""
    old = [[x for turn in turn_old_logprobs for x in [*turn, 0.0]]]
    new = [[x for turn in turn_logprobs for x in [*turn, 0.0]]]
    trained = [[x for turn in turn_logprobs for x in [*(1 for _ in turn), 0]]]
    one = Rollouts.from_lists(trained, groups=[0], trained=trained, log_probs_old=old)
    credit = credit_of(one, [[advantage] * one.n_tokens])
    now = {"log_probs": ragged.flatten(new, torch.float64)[0]}
    objective = OBJECTIVES["loop"](action="turn", eps=clip_eps, style=clip_style, divisor=1)
    return {"loss": objective(now, one, credit).value}
