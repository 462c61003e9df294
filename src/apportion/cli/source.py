"""What a verb that reads a policy is pointed at: a run's folder, or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from apportion.errors import InputError
from apportion.models.policy import Policy
from apportion.rewards.collect import Collector
from apportion.sampling import SamplingSettings
from apportion.tasks.task import Task
from apportion.training.config import TrainConfig
from apportion.training.run_folder import RunFolder
from apportion.training.setup import set_up


@dataclass(frozen=True, eq=False)
class Opened:
    """A policy ready to be asked.

    Attributes:
        policy: the policy.
        collect: samples from it and scores.
        train: tasks it may be trained on.
        held_out: tasks it may be measured on.
        sampling: how the run samples.
        seed: of the run.
        device: where it samples.
    """

    policy: Policy
    collect: Collector
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    sampling: SamplingSettings
    seed: int
    device: torch.device


def open_policy(path: str, tasks: Sequence[str], verifier: str | None, max_new_tokens: int | None) -> Opened:
    """Open a run (its newest good checkpoint, its tasks unless others are given) or a model.

    Raises:
        InputError: a run without a checkpoint, or a model without tasks.
    """
    newest, run = None, None
    if (Path(path) / "environment.json").is_file():
        run, config = RunFolder.open(Path(path))
        newest = run.checkpoints.newest_good()
        if newest is None:
            raise InputError(f"{path} has no whole checkpoint yet: wait for the first, or resume the run.")
    else:
        if not tasks:
            raise InputError(f"{path!r} is a model and brings no tasks: name some with --tasks.")
        config = TrainConfig(model=path)
    if tasks:
        config = replace(config, tasks=tuple(tasks), environment=None)
    config = replace(
        config,
        verifier=verifier or config.verifier,
        max_new_tokens=config.max_new_tokens if max_new_tokens is None else max_new_tokens,
        eval_prompts=1 << 40,  # all there are: the verb cuts
    )
    parts = set_up(config)
    if run is not None and newest is not None:
        parts.policy.load_weights(run.checkpoints.model(newest))
        parts.collect.engine.refresh()
    train = tuple(task for part in parts.curriculum.parts for task in part.train)
    return Opened(parts.policy, parts.collect, train, parts.held_out, parts.sampling, config.seed, parts.policy.device)
