"""CAPO: lists of wrong steps as a matrix of critiques, and the weights of the vote by step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.rollouts import ragged
from golden.adapters._build import rows, with_steps


def run(
    *,
    group_ids: Sequence[int],
    response_lengths: Sequence[int],
    step_spans: Sequence[Sequence[Sequence[int]]],
    critiques: Sequence[Sequence[Sequence[int]]],
    outcomes: Sequence[float],
    vote: str,
    w_whole: float,
    w_process: float,
    ddof: int,
    eps: float,
) -> dict[str, Any]:
    rollouts = with_steps(response_lengths, group_ids, step_spans, rewards=outcomes)
    wrong = [
        [[float(step in critique) for critique in of_response] for step in range(len(spans))]
        for spans, of_response in zip(step_spans, critiques, strict=True)
    ]
    values = torch.tensor([row for of_response in wrong for row in of_response], dtype=torch.float64)
    rollouts = rollouts.with_reward("critique", values, level="step")

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "w_process=.* is not below w_whole")
        method = METHODS["capo"](vote=vote, w_whole=w_whole, w_process=w_process, ddof=ddof, eps=eps)
    credit = method(rollouts)
    offsets = ragged.offsets_of(torch.tensor([len(spans) for spans in step_spans]))
    weights = ragged.unflatten(credit.columns["step:credit/penalty_weight"].tensor, offsets)
    return {
        "step_penalty_weights": [{str(s): w for s, w in enumerate(row) if w} for row in weights],
        "token_rewards": rows(rollouts, credit.columns["token:credit/token_rewards"].tensor),
        "advantages": rows(rollouts, credit.advantages),
    }
