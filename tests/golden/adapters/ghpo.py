"""GHPO: which stage of hints every group ends at, and the advantages of the responses that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apportion.credit import METHODS
from apportion.curricula.guidance import check_guidance, escalate, hint
from apportion.rollouts import Rollouts

Stages = Sequence[Sequence[Sequence[float | None]]]


def run(
    *,
    stage_accuracy: Stages,
    stage_format: Stages,
    solutions: Sequence[str],
    hint_ratios: Sequence[float],
    reward_weights: Sequence[float],
    scale_rewards: bool,
    eps: float,
    global_step: int,
    start_hint_step: int,
) -> dict[str, Any]:
    check_guidance(hint_ratios, start_hint_step)
    generated = 0

    def ask(stage: int, groups: Sequence[int]) -> list[Sequence[float | None]]:
        nonlocal generated
        found = [stage_accuracy[group][stage] for group in groups]
        generated += sum(len(each) for each in found)
        return found

    final = escalate(len(solutions), ask, len(hint_ratios), global_step >= start_hint_step)
    method = METHODS["grpo"](norm_by_std=scale_rewards, eps=eps)
    advantages = []
    for group, stage in enumerate(final):
        both = zip(stage_accuracy[group][stage], stage_format[group][stage], strict=True)
        rewards = [sum(w * (r or 0.0) for w, r in zip(reward_weights, pair, strict=True)) for pair in both]
        rollouts = Rollouts.from_lists([[0]] * len(rewards), groups=[0] * len(rewards), rewards=rewards)
        advantages.append(method(rollouts).advantages.tolist())
    return {
        "final_stage": final,
        "hint_text": [
            hint(s, hint_ratios[stage - 1]) if stage else "" for s, stage in zip(solutions, final, strict=True)
        ],
        "advantages": advantages,
        "rollouts_generated": generated,
        "hinted_fraction": sum(stage > 0 for stage in final) / len(final),
    }
