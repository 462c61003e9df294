"""KL estimates of single tokens, by evaluating the penalty one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.objectives import OBJECTIVES, bind
from golden.adapters._build import credit_of, from_mask


def run(*, logprobs: Sequence[float], ref_logprobs: Sequence[float], estimator: str) -> dict[str, Any]:
    """Each token's share of the penalty, times how many share it."""
    rollouts = from_mask([[1] * len(logprobs)], log_probs_reference=[ref_logprobs])
    bound = bind(OBJECTIVES["kl"](coefficient=1.0, estimator=estimator), rollouts, credit_of(rollouts))
    log_probs = torch.tensor(logprobs, dtype=torch.float64)
    shares = [bound({"log_probs": log_probs[[i]]}, torch.tensor([i]))[0].item() for i in range(len(logprobs))]
    return {"kl": [share * len(logprobs) for share in shares]}
