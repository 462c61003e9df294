"""What a verb that reads a policy is pointed at: a run's folder, or a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion.errors import InputError
from apportion.models import build_policy
from apportion.models.codec import Codec
from apportion.models.policy import Policy
from apportion.rewards import build_verifier
from apportion.rewards.verdict import Verifier
from apportion.sampling import Engine, engine_for
from apportion.tasks import build_tasks, parts_of
from apportion.tasks.task import TaskSource
from apportion.training.run_folder import RunFolder
from apportion.training.setup import set_up


@dataclass(frozen=True, eq=False)
class Opened:
    """A policy with the tasks it is asked."""

    policy: Policy
    codec: Codec
    engine: Engine
    source: TaskSource
    verifiers: Mapping[str, Verifier]
    max_new_tokens: int


def open_policy(path: str, tasks: Sequence[str], verifier: str | None, seed: int) -> Opened:
    """Open a run (its newest good checkpoint, its tasks unless others are given) or a model.

    Raises:
        InputError: a run without a checkpoint, or a model without tasks.
    """
    max_new_tokens = 64
    if (Path(path) / "environment.json").is_file():
        run, config = RunFolder.open(Path(path))
        newest = run.checkpoints.newest_good()
        if newest is None:
            raise InputError(f"{path} has no whole checkpoint yet: wait for the first, or resume the run.")
        parts = set_up(config)
        policy: Any = parts.policy
        policy.load_weights(run.checkpoints.model(newest))
        codec, engine = parts.codec, parts.engine
        engine.refresh()
        tasks, verifier, seed = tasks or config.tasks, verifier or config.verifier, config.seed
        max_new_tokens = config.max_new_tokens
    else:
        if not tasks:
            raise InputError(f"{path!r} is a model and brings no tasks: name some with --tasks.")
        policy = build_policy(path, device="cpu", dtype="float32", autocast=None, seed=seed)
        codec = policy.codec()
        engine = engine_for(policy)
    source = build_tasks(tasks[0] if len(tasks) == 1 else tasks, seed=seed)
    verifiers = {part.name: build_verifier(verifier or part.verifier) for part in parts_of(source)}
    return Opened(policy, codec, engine, source, verifiers, max_new_tokens)
