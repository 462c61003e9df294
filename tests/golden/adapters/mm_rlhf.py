"""MM-RLHF: DPO scaled by margins, and the loss of the reward model that writes critiques."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts


def run(*, part: str, **given: Any) -> dict[str, Any]:
    """One of the two kinds of case."""
    return {"mm_dpo": scaled, "critique_rm": critiqued}[part](**given)


def scaled(
    *,
    policy_chosen_logp: Sequence[float],
    policy_rejected_logp: Sequence[float],
    reference_chosen_logp: Sequence[float],
    reference_rejected_logp: Sequence[float],
    reward_margin: Sequence[float],
    **settings: Any,
) -> dict[str, Any]:
    """Answers of one token, whose log-prob is the sequence's."""
    objective = OBJECTIVES["mm_dpo"](imitate=0.0, **settings)

    def loss(kept: slice) -> Any:
        now = torch.tensor([*policy_chosen_logp[kept], *policy_rejected_logp[kept]], dtype=torch.float64)
        reference = [[value] for value in (*reference_chosen_logp[kept], *reference_rejected_logp[kept])]
        n = len(reward_margin[kept])
        rollouts = Rollouts.from_lists([[0]] * 2 * n, groups=[0] * 2 * n, log_probs_reference=reference)
        rollouts = rollouts.with_pairs(torch.arange(n), torch.arange(n, 2 * n))
        rollouts = rollouts.with_column("pair:margin", torch.tensor(reward_margin[kept], dtype=torch.float64))
        return objective({"log_probs": now}, rollouts, METHODS["none"]()(rollouts))

    each = [loss(slice(i, i + 1)) for i in range(len(reward_margin))]
    return {
        "beta_per_pair": [one.metrics["beta"] for one in each],
        "loss_per_pair": [one.value for one in each],
        "loss": loss(slice(None)).value,
    }


def critiqued(
    *,
    reward_chosen: Sequence[float],
    reward_rejected: Sequence[float],
    critique_nll_chosen: float,
    critique_nll_rejected: float,
    is_tie: Sequence[bool] | None,
    no_critique: Sequence[float],
    margin: Sequence[float] | None,
    **settings: Any,
) -> dict[str, Any]:
    """An answer is one token, its critique, where it has one, another; the score is that after the last."""
    n = len(reward_chosen)
    sizes = [1 if silent else 2 for silent in (*no_critique, *no_critique)]
    rollouts = Rollouts.from_lists([range(size) for size in sizes], groups=[0] * 2 * n)
    rollouts = rollouts.with_pairs(torch.arange(n), torch.arange(n, 2 * n))
    ends = rollouts.token_offsets[1:]
    speaks = torch.tensor(sizes) == 2
    rollouts = rollouts.with_spans("critique", ends[speaks] - 1, ends[speaks])
    if is_tie is not None:
        rollouts = rollouts.with_column("pair:tie", torch.tensor(is_tie))
    if margin is not None:
        rollouts = rollouts.with_column("pair:margin", torch.tensor(margin, dtype=torch.float64))
    scores = torch.full((rollouts.n_tokens,), torch.nan, dtype=torch.float64)
    scores[ends - 1] = torch.tensor([*reward_chosen, *reward_rejected], dtype=torch.float64)
    log_probs = torch.full_like(scores, torch.nan)
    nll = torch.tensor([critique_nll_chosen] * n + [critique_nll_rejected] * n, dtype=torch.float64)
    log_probs[ends[speaks] - 1] = -nll[speaks]
    objective = OBJECTIVES["reward_model"](margin=margin is not None, **settings)
    credit = METHODS["none"]()(rollouts)
    return {"loss": objective({"scores/reward": scores, "log_probs": log_probs}, rollouts, credit).value}
