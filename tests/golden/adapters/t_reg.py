"""T-REG: marks of tokens from two prompts, the regularised loss, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.annotations.contrastive_marks import marks
from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import rows


def run(
    *,
    chosen_logprobs: Sequence[float],
    chosen_ref_logprobs: Sequence[float],
    rejected_logprobs: Sequence[float],
    rejected_ref_logprobs: Sequence[float],
    chosen_better: Sequence[float],
    chosen_worse: Sequence[float],
    rejected_better: Sequence[float],
    rejected_worse: Sequence[float],
    **settings: Any,
) -> dict[str, Any]:
    better, worse = (
        ragged.flatten(both, torch.float64)[0]
        for both in ([chosen_better, rejected_better], [chosen_worse, rejected_worse])
    )
    rollouts = Rollouts.from_lists(
        [range(len(chosen_logprobs)), range(len(rejected_logprobs))],
        groups=[0, 0],
        log_probs_reference=[chosen_ref_logprobs, rejected_ref_logprobs],
    ).with_pairs(torch.tensor([0]), torch.tensor([1]))
    rollouts = rollouts.with_column("mark/contrastive", marks(better, worse))
    log_probs = ragged.flatten([chosen_logprobs, rejected_logprobs], torch.float64)[0].requires_grad_()
    loss = OBJECTIVES["t_reg"](**settings)({"log_probs": log_probs}, rollouts, METHODS["none"]()(rollouts))
    loss.value.backward()
    (of_chosen, of_rejected), slopes = (
        rows(rollouts, rollouts.column("mark/contrastive")),
        rows(rollouts, log_probs.grad),
    )
    return {
        "token_rewards_chosen": of_chosen,
        "token_rewards_rejected": of_rejected,
        "weight": loss.metrics["pair_weight"],
        "base_loss": loss.metrics["base_loss"],
        "reg_chosen": loss.metrics["regulariser_chosen"],
        "reg_rejected": loss.metrics["regulariser_rejected"],
        "loss": loss.value,
        "grad_chosen_logprobs": slopes[0],
        "grad_rejected_logprobs": slopes[1],
    }
