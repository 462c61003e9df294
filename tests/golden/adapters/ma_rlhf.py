"""MA-RLHF: macro actions of one response, their generalised advantages, and the losses on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.annotations import ANNOTATORS
from apportion.credit import METHODS
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts

RULES = {
    "fixed": "fixed(n={n})",
    "sizes": "sizes(sizes={sizes}, repeat=1, seed=None)",
    "ppl": "ppl(column='log_probs/reference')",
}


def run(
    *,
    values: Sequence[float],
    token_rewards: Sequence[float],
    perplexities: Sequence[float] | None = None,
    old_logprobs: Sequence[float] | None = None,
    logprobs: Sequence[float] | None = None,
    values_pred: Sequence[float] | None = None,
    gamma: float,
    lam: float,
    clip: float,
    clip_value: float,
    reward_reduce: str,
    termination: str,
    **rule: Any,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists([range(len(values))], groups=[0], token_rewards=[token_rewards])
    rollouts = rollouts.with_column("values/critic", _numbers(values))
    if perplexities is not None:
        rollouts = rollouts.with_column("log_probs/reference", -_numbers(perplexities).log())
    annotated = ANNOTATORS["macro_actions"](rule=RULES[termination].format(**rule)).apply(rollouts, None)
    method = METHODS["ma_rlhf"](gamma=gamma, lam=lam, reward_reduce=reward_reduce, score_clamp=None, kl_coefficient=0.0)
    credit = method(annotated)
    spans = annotated.spans["macro"]
    result: dict[str, Any] = {
        "segment_lengths": spans.ends - spans.starts,
        "macro_values": credit.columns["macro:credit/value"].tensor,
        "macro_rewards": credit.columns["macro:credit/reward"].tensor,
        "macro_advantages": credit.columns["macro:credit/advantage"].tensor,
        "macro_returns": credit.columns["macro:credit/return"].tensor,
        "token_advantages": credit.advantages,
    }
    if logprobs is None or old_logprobs is None or values_pred is None:
        return result

    measured = annotated.with_column("log_probs/old", _numbers(old_logprobs))
    for unit in ("token", "macro"):
        surrogate = OBJECTIVES["segment_clip"](unit=unit, low=clip)
        result[f"actor_loss_{unit}_ratio"] = surrogate({"log_probs": _numbers(logprobs)}, measured, credit).value
    regression = OBJECTIVES["value"](clip=clip_value)
    result["critic_loss"] = regression({"values/critic": _numbers(values_pred)}, measured, credit).value
    return result


def _numbers(row: Sequence[float]) -> Tensor:
    return torch.tensor(row, dtype=torch.float64)
