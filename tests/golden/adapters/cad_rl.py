"""CAD-RL: the gated reward, the wide clip with attempts cut off left out, and the mean weighted by precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS, chain, drop_overlong, estimator
from apportion.objectives import OBJECTIVES
from apportion.rewards.cad import gated_reward, overlap_of_boxes
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import Masks, Rows, credit_of, rows


def run(*, part: str, **given: Any) -> dict[str, Any]:
    """One of the three kinds of case."""
    return {"reward": gated, "trs": stretched, "precision": weighted}[part](**given)


def gated(
    *,
    executes: Sequence[bool],
    generated_box: Sequence[Sequence[float]],
    reference_box: Sequence[Sequence[float]],
    evaluator_score: Sequence[float],
    failure_modes: Sequence[Sequence[str]],
    **settings: Any,
) -> dict[str, Any]:
    overlap = overlap_of_boxes(torch.tensor(generated_box), torch.tensor(reference_box))
    result = gated_reward(executes, overlap, evaluator_score, failure_modes, **settings)
    return {"geometric": result.geometric, "evaluation": result.evaluation, "reward": result.reward}


def stretched(
    *,
    log_prob: Rows,
    old_log_prob: Rows,
    advantages: Sequence[float],
    lengths: Sequence[int],
    ratio_low: float,
    ratio_high: float,
    max_length: int,
    aggregate: str,
) -> dict[str, Any]:
    assert aggregate == "mean over tokens of a response, then mean over kept responses"
    rollouts = Rollouts.from_lists([range(n) for n in lengths], groups=range(len(lengths)), log_probs_old=old_log_prob)

    @estimator()
    def given(work: Any) -> torch.Tensor:
        return work.spread(torch.tensor(advantages, dtype=torch.float64))

    credit = chain(given, drop_overlong(max_length))(rollouts)
    objective = OBJECTIVES["cad_rl"](ratio_low=ratio_low, ratio_high=ratio_high, weight=None)
    log_probs = ragged.flatten(log_prob, torch.float64)[0]
    loss = objective({"log_probs": log_probs}, rollouts, credit)
    every = credit_of(rollouts, [[a] * n for a, n in zip(advantages, lengths, strict=True)])
    at = {"log_probs/old": rollouts.column("log_probs/old"), "credit/advantages": every.advantages}
    terms = objective.parts[0].terms({"log_probs": log_probs}, at).loss
    filtered = METHODS["cad_rl"](max_length=max_length)(
        rollouts.with_reward("outcome", torch.zeros(len(lengths), dtype=torch.float64))
    )
    starts = rollouts.episode_offsets[:-1]
    assert torch.equal(filtered.trained, credit.trained)
    return {
        "kept": credit.trained[starts],
        "token_objective": rows(rollouts, -terms),
        "objective": -loss.value,
        "loss": loss.value,
    }


def weighted(*, token_nll: Rows, is_precision_token: Masks, omega: float) -> dict[str, Any]:
    rollouts = Rollouts.from_lists([range(len(row)) for row in token_nll], groups=range(len(token_nll)))
    precise = ragged.flatten(is_precision_token, torch.float64)[0]
    rollouts = rollouts.with_column("precision_weight", 1 + (omega - 1) * precise)
    log_probs = -ragged.flatten(token_nll, torch.float64)[0]
    objective = OBJECTIVES["imitation"](aggregate="seq_mean_token_mean(weight='precision_weight')")

    def loss(part: torch.Tensor) -> torch.Tensor:
        some = rollouts.select(part)
        return objective({"log_probs": log_probs[rollouts.indices(part)["token"]]}, some, credit_of(some)).value

    everything = torch.arange(len(token_nll))
    return {"per_response": [loss(one) for one in everything[:, None]], "loss": loss(everything)}
