"""The clipped surrogate: loss, its token terms, its gradient and its metrics."""

from __future__ import annotations

from typing import Any

import torch

from apportion.objectives import OBJECTIVES
from apportion.rollouts import ragged
from golden.adapters._build import Masks, Rows, aggregation_spec, credit_of, from_mask, rows


def run(
    *,
    old_logprobs: Rows,
    logprobs: Rows,
    advantages: Rows,
    response_mask: Masks,
    clip_low: float,
    clip_high: float,
    dual_clip_c: float | None,
    loss_agg_mode: str,
    loss_scale_factor: float | None,
) -> dict[str, Any]:
    rollouts = from_mask(response_mask, log_probs_old=old_logprobs)
    credit = credit_of(rollouts, advantages)
    objective = OBJECTIVES["clip"](
        low=clip_low, high=clip_high, dual=dual_clip_c, aggregate=aggregation_spec(loss_agg_mode, loss_scale_factor)
    )
    log_probs = ragged.flatten(logprobs, torch.float64)[0].requires_grad_()
    loss = objective({"log_probs": log_probs}, rollouts, credit)
    loss.value.backward()

    at = {"log_probs/old": rollouts.column("log_probs/old"), "credit/advantages": credit.advantages}
    terms = objective.parts[0].terms({"log_probs": log_probs.detach()}, at).loss
    return {
        "loss": loss.value.item(),
        "per_token_loss": rows(rollouts, torch.where(rollouts.trained, terms, 0.0)),
        "grad_logprobs": rows(rollouts, log_probs.grad),
        "pg_clipfrac": loss.metrics["clip_fraction"].item(),
        "ppo_kl": loss.metrics["kl_old"].item(),
        "pg_clipfrac_lower": loss.metrics["dual_clip_fraction"].item(),
    }
