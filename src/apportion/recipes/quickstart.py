"""The quickstart: learns on a laptop in about a minute."""

from __future__ import annotations

from apportion.training.config import TrainConfig


def quickstart() -> TrainConfig:
    """Add eight digits modulo ten, writing every partial sum.

    A Llama of 108 thousand parameters first imitates a teacher who carries sloppily, then learns from a verifier that
    looks at the last digit only: every token of a wrong answer is blamed for one slip, so who is to blame matters.
    """
    return TrainConfig(
        model="digits",
        tasks=("running_sum(digits=8)",),
        warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate')",
        credit="grpo",
        objective=("clip(low=0.2, high=0.28)",),
        prompts_per_step=4,
        group_size=16,
        max_new_tokens=8,
        steps=150,
        learning_rate=3e-4,
        beta2=0.99,
        threads=1,
        eval_prompts=512,
        save_every=20,
    )
