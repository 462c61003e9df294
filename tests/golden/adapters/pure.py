"""PURE: transformed scores of steps, and advantages. The divergence is given, as a difference of log-probs (k1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.rollouts import Rollouts, ragged
from golden.adapters._build import Rows, rows

LEVEL = -50.0
"""Log-prob under the reference policy, low enough for any divergence beside it."""


def run(
    *,
    group_ids: Sequence[int],
    response_lengths: Sequence[int],
    step_ends: Sequence[Sequence[int]],
    step_rewards: Rows,
    verifiable_rewards: Sequence[float] | None = None,
    token_kl: Rows | None = None,
    credit: str,
    temperature: float,
    baseline: str,
    vr_coef: float,
    kl_coef: float,
    whiten: bool,
    max_response_length: int | None = None,
    zero_step_ends: bool = False,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(
        [range(length) for length in response_lengths], groups=group_ids, rewards=verifiable_rewards
    )
    if token_kl is not None:
        divergence = ragged.flatten(token_kl, torch.float64)[0]
        rollouts = rollouts.with_column("log_probs/old", LEVEL + divergence)
        rollouts = rollouts.with_column("log_probs/reference", torch.full_like(divergence, LEVEL))
    first = rollouts.token_offsets.tolist()
    starts = [at + end + 1 for at, ends in zip(first, step_ends, strict=False) for end in [-1, *ends[:-1]]]
    ends = [at + end + 1 for at, row in zip(first, step_ends, strict=False) for end in row]
    scores, of_steps = ragged.flatten(step_rewards, torch.float64)
    rollouts = rollouts.with_spans("step", torch.tensor(starts), torch.tensor(ends))
    rollouts = rollouts.with_reward("prm", scores, level="step")

    result = METHODS["pure"](
        verifiable=None if verifiable_rewards is None else "outcome",
        transform=credit,
        temperature=temperature,
        baseline=baseline,
        max_response_length=max_response_length,
        vr_coef=vr_coef,
        kl_coef=kl_coef,
        kl_estimator="k1",
        whiten=whiten,
        zero_step_ends=zero_step_ends,
        singleton="error",
    )(rollouts)
    transformed = result.columns["step:credit/transformed_reward"].tensor
    return {
        "transformed_step_rewards": ragged.unflatten(transformed, of_steps),
        "advantages": rows(rollouts, result.advantages),
    }
