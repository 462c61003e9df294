"""NSR, PSR and W-REINFORCE: advantages and loss, the direction of one step in logits, and pass@k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.evals.pass_at_k import pass_at_k
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import Rows, rows


def run(**given: Any) -> dict[str, Any]:
    """One of the three kinds of case."""
    kinds = {"old_logprobs": on_tokens, "logits": on_logits, "n_samples": estimates}
    return next(kind for name, kind in kinds.items() if name in given)(**given)


def on_tokens(
    *,
    response_ids: Sequence[Sequence[int]],
    rewards: Sequence[float],
    group_ids: Sequence[int],
    old_logprobs: Rows,
    logprobs: Rows,
    mode: str,
    positive_weight: float,
    clip_eps: float,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(response_ids, groups=group_ids, rewards=rewards, log_probs_old=old_logprobs)
    credit = METHODS["nsr"](mode=mode, positive_weight=positive_weight)(rollouts)
    log_probs = ragged.flatten(logprobs, torch.float64)[0].requires_grad_()
    loss = OBJECTIVES["clip"](low=clip_eps)({"log_probs": log_probs}, rollouts, credit)
    loss.value.backward()
    return {
        "advantages": rows(rollouts, credit.advantages),
        "loss": loss.value,
        "clip_fraction": loss.metrics["clip_fraction"],
        "approx_kl": loss.metrics["kl_old"],
        "grad_logprobs": rows(rollouts, log_probs.grad),
    }


def on_logits(
    *, logits: Sequence[float], token: int, reward: float, mode: str, positive_weight: float
) -> dict[str, Any]:
    """Minus the gradient of the loss of one sampled token, at the policy that drew it."""
    weights = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    log_probs = weights.log_softmax(0)[[token]]
    drawn = Rollouts.from_lists([[token]], groups=[0], rewards=[reward], log_probs_old=[[log_probs.item()]])
    credit = METHODS["nsr"](mode=mode, positive_weight=positive_weight)(drawn)
    OBJECTIVES["clip"]()({"log_probs": log_probs}, drawn, credit).value.backward()
    return {"probs": weights.detach().softmax(0), "ascent_logits": -weights.grad}


def estimates(*, n_samples: Sequence[int], n_correct: Sequence[int], ks: Sequence[int]) -> dict[str, Any]:
    by_k = {str(k): pass_at_k(n_samples, n_correct, k) for k in ks}
    return {
        "pass_at_k": {k: {"per_problem": each.tolist(), "mean": float(each.mean())} for k, each in by_k.items()},
    }
