"""Small whole runs in this process, for tests of what a run does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apportion.recipes.tabular import tabular
from apportion.training.config import TrainConfig
from apportion.training.loop import Observer, train
from apportion.training.run_folder import RunFolder
from apportion.training.setup import set_up

TABULAR = dataclasses.replace(tabular(), steps=4, save_every=2, learning_rate=0.5)
"""A table: about ten milliseconds a step."""

DIGITS = TrainConfig(
    model="digits(hidden=16, layers=1, heads=2)",
    tasks=("running_sum(digits=3, train=200, held_out=40)",),
    verifier="runs:evenness",
    prompts_per_step=2,
    group_size=4,
    max_new_tokens=4,
    steps=4,
    save_every=2,
    eval_prompts=0,
    threads=1,
)
"""A transformer of a few thousand parameters that has not been warmed up; it earns something all the same."""


def evenness(prompt: str, response: str, answer: str) -> float:
    """A verifier: the share of characters that are even digits."""
    return sum(letter in "02468" for letter in response) / max(len(response), 1)


def begin(folder: Path, config: TrainConfig, observers: Sequence[Observer] = ()) -> dict[str, Any] | None:
    """A new run."""
    parts = set_up(config)
    return train(RunFolder.create(folder, config), parts, observers)


def resume(folder: Path, steps: int | None = None) -> dict[str, Any] | None:
    """Go on with a run."""
    run, config = RunFolder.open(folder)
    return train(run, set_up(config if steps is None else dataclasses.replace(config, steps=steps)))


def metrics(folder: Path) -> list[dict[str, Any]]:
    """A record a step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int) -> bytes:
    """The weights of a checkpoint."""
    return (folder / f"checkpoints/step_{step:06d}/model/model.safetensors").read_bytes()
