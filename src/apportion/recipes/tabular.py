"""A policy that is a table, through the same loop: milliseconds a step."""

from __future__ import annotations

from apportion.training.config import TrainConfig


def tabular() -> TrainConfig:
    """Say the digit you are asked for: one token out of ten, four prompts."""
    return TrainConfig(
        model="tabular(vocabulary=10, depth=1, prompts=4)",
        tasks=("apportion.tasks.echo:echo(numbers=4)",),
        verifier="exact",
        prompts_per_step=4,
        group_size=8,
        max_new_tokens=1,
        steps=50,
        learning_rate=0.1,
        dtype="float64",
        eval_prompts=0,
        threads=1,
    )
