"""TP-GRPO: thoughts put together from the steps the method numbers alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.credit import METHODS
from apportion.rollouts import ragged
from golden.adapters._build import rows, with_steps


def run(
    *,
    group_ids: Sequence[int],
    correct: Sequence[int],
    response_lengths: Sequence[int],
    step_spans: Sequence[Sequence[Sequence[int]]],
    step_labels: Sequence[Sequence[str]],
    alpha: float,
    r_correct: float,
    r_incorrect: float,
    ddof: int,
    eps: float,
) -> dict[str, Any]:
    rollouts = with_steps(response_lengths, group_ids, step_spans, rewards=correct)
    rollouts = rollouts.with_column("step:label", [label for row in step_labels for label in row])
    method = METHODS["tp_grpo"](alpha=alpha, r_correct=r_correct, r_incorrect=r_incorrect, ddof=ddof, eps=eps)
    credit = method(rollouts)

    offsets = ragged.offsets_of(torch.tensor([len(spans) for spans in step_spans]))

    def per_step(name: str) -> list[list[Any]]:
        return ragged.unflatten(credit.columns[f"step:credit/{name}"].tensor, offsets)

    thoughts, rewards = [], []
    for spans, labels, numbers, process in zip(
        step_spans, step_labels, per_step("thought"), per_step("process_reward"), strict=True
    ):
        members = [[j for j, n in enumerate(numbers) if n == number] for number in range(max(numbers) + 1)]
        thoughts.append([{"span": [spans[m[0]][0], spans[m[-1]][1]], "label": labels[m[0]]} for m in members])
        rewards.append([process[m[0]] for m in members])
    size = credit.columns["episode:credit/process_size"].tensor.tolist()
    return {
        "thoughts": thoughts,
        "r_c": {str(group): r for group, r in zip(group_ids, size, strict=True)},
        "standardised_outcome": credit.columns["episode:credit/standardised_outcome"].tensor,
        "thought_process_rewards": rewards,
        "advantages": rows(rollouts, credit.advantages),
    }
