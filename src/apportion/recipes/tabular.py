"""A policy that is a table, through the same loop: milliseconds a step."""

from __future__ import annotations

from apportion.tasks.source import Source
from apportion.tasks.task import Task
from apportion.training.config import TrainConfig


def tabular() -> TrainConfig:
    """Say the digit you are asked for: one token out of ten, four prompts."""
    return TrainConfig(
        model="tabular(vocabulary=10, depth=1, prompts=4)",
        tasks=("apportion.recipes.tabular:echo(numbers=4)",),
        verifier="exact",
        prompts_per_step=4,
        group_size=8,
        max_new_tokens=1,
        steps=50,
        learning_rate=0.1,
        dtype="float64",
        device="cpu",
        eval_prompts=0,
        threads=1,
    )


def echo(numbers: int = 4) -> Source:
    """Numbers to be repeated. All are trained on: a table says nothing about prompts it has not seen.

    Args:
        numbers: how many, from 0.

    Example:
        >>> [(task.text, task.answer) for task in echo(numbers=2).train]
        [('0', '0'), ('1', '1')]
    """
    return Source("echo", tuple(Task(str(n), str(n), "echo") for n in range(numbers)), (), "exact")
