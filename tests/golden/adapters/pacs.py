"""PACS: the loss, its gradient, and the classification problem it is the loss of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES
from apportion.objectives.pacs import Classifier
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import Rows, rows


def run(
    *,
    response_ids: Sequence[Sequence[int]],
    logprobs: Rows,
    old_logprobs: Rows,
    labels: Sequence[int],
    group_ids: Sequence[int],
    **settings: Any,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(response_ids, groups=group_ids, rewards=labels, log_probs_old=old_logprobs)
    credit = METHODS["none"](component="outcome")(rollouts)
    log_probs = ragged.flatten(logprobs, torch.float64)[0].requires_grad_()
    loss = OBJECTIVES["pacs"](**settings)({"log_probs": log_probs}, rollouts, credit)
    loss.value.backward()
    at = Classifier(**settings, component="outcome")({"log_probs": log_probs.detach()}, rollouts, credit)
    return {
        "reward_proxy": at.proxy,
        "score": at.score,
        "weights": at.weights,
        "probability": at.score.sigmoid(),
        "loss": loss.value,
        "grad_logprobs": rows(rollouts, log_probs.grad),
    }
