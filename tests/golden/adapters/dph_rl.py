"""DPH-RL: token divergences, the hybrid loss, exact divergences, and the split of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.curricula.partition import partition
from apportion.objectives import OBJECTIVES
from apportion.objectives.divergence import expected_divergence, generator
from apportion.rollouts import Rollouts, join, ragged
from golden.adapters._build import Rows, aggregation_spec, credit_of, rows


def run(**given: Any) -> dict[str, Any]:
    """One of the four kinds of case."""
    kinds = {"ref_logprobs": on_tokens, "explore": hybrid, "probs_theta": exact, "n_correct": split}
    return next(kind for name, kind in kinds.items() if name in given)(**given)


def on_tokens(
    *,
    response_ids: Sequence[Sequence[int]],
    ref_logprobs: Rows,
    logprobs: Rows,
    divergence: str,
    alpha: float,
    loss_agg: str,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(response_ids, groups=range(len(response_ids)), log_probs_reference=ref_logprobs)
    stored = rollouts.with_column("response:origin", ["stored"] * rollouts.n_responses)
    objective = OBJECTIVES["dph_rl"](kind=divergence, alpha=alpha, eta=1.0, aggregate=aggregation_spec(loss_agg, None))
    log_probs = ragged.flatten(logprobs, torch.float64)[0].requires_grad_()
    loss = objective({"log_probs": log_probs}, stored, credit_of(stored))
    loss.value.backward()
    terms = generator(divergence, alpha)(log_probs.detach(), rollouts.column("log_probs/reference"))
    return {
        "token_divergence": rows(rollouts, terms),
        "loss": loss.value,
        "grad_logprobs": rows(rollouts, log_probs.grad),
    }


def hybrid(
    *,
    explore: Mapping[str, Any],
    rehearse: Mapping[str, Any],
    divergence: str,
    alpha: float = 0.2,
    eta: float,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
    adv_eps: float,
    adv_std: str,
    loss_agg: str,
) -> dict[str, Any]:
    assert adv_std == "sample", "the library divides by the sample deviation"
    sampled = Rollouts.from_lists(
        explore["response_ids"],
        groups=explore["group_ids"],
        rewards=explore["rewards"],
        log_probs_old=explore["old_logprobs"],
    )
    own_groups = [max(explore["group_ids"]) + 1 + i for i in range(len(rehearse["response_ids"]))]
    stored = Rollouts.from_lists(
        rehearse["response_ids"], groups=own_groups, log_probs_reference=rehearse["ref_logprobs"]
    ).with_column("response:origin", ["stored"] * len(own_groups))
    both = join([sampled, stored])
    credit = METHODS["grpo"](eps=adv_eps, singleton="raw")(both)
    now = {"log_probs": ragged.flatten([*explore["logprobs"], *rehearse["logprobs"]], torch.float64)[0]}
    aggregate = aggregation_spec(loss_agg, None)

    def loss(weight: float) -> float:
        objective = OBJECTIVES["dph_rl"](
            kind=divergence, eta=weight, alpha=alpha, low=clip_low, high=clip_high, dual=dual_clip, aggregate=aggregate
        )
        return objective(now, both, credit).value.item()

    return {
        "advantages": rows(sampled, credit.advantages[: sampled.n_tokens]),
        "loss_explore": loss(0.0),
        "loss_rehearse": loss(1.0) - loss(0.0),
        "loss": loss(eta),
    }


def exact(*, probs_theta: Sequence[float], probs_ref: Sequence[float], alpha: float) -> dict[str, Any]:
    theta, ref = (torch.tensor(values, dtype=torch.float64) for values in (probs_theta, probs_ref))
    return {
        "exact": {
            "forward_kl": expected_divergence("forward_kl", theta, ref),
            "js_generator": expected_divergence("js", theta, ref),
            "reverse_kl": expected_divergence("forward_kl", ref, theta),
            f"alpha_{alpha}": expected_divergence("alpha", theta, ref, alpha),
        }
    }


def split(**given: Any) -> dict[str, Any]:
    parts = partition(**given)
    return {"rehearse": parts.rehearse, "explore": parts.explore, "dropped": parts.dropped}
