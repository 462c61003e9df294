"""Runs and rollouts to look at, written by the parts that write real ones."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from apportion import credit
from apportion.rollouts import Rollouts, RolloutStore

Tokens = Sequence[Sequence[int]]


def batch(groups: int, size: int, length: int, seed: int = 0, first_group: int = 0, vocabulary: int = 50) -> Rollouts:
    """Rollouts with what a run stores: responses that share beginnings, rewards, statistics, credit of TEMPO."""
    generator = torch.Generator().manual_seed(seed)
    count = groups * size
    ids = torch.randint(vocabulary, (count, length), generator=generator)
    forks = torch.randint(1, length, (count,), generator=generator)
    for b in range(count):
        ids[b, : forks[b]] = ids[b - b % size, : forks[b]]
    rewards = (torch.rand(count, generator=generator) < 0.4).double()
    offsets = torch.arange(count + 1) * length
    rollouts = Rollouts(
        ids=ids.flatten(),
        token_offsets=offsets,
        response_offsets=torch.arange(count + 1),
        group_ids=torch.arange(count) // size + first_group,
        prompt_ids=torch.arange(groups * 3) % vocabulary,
        prompt_offsets=torch.arange(groups + 1) * 3,
        prompts=torch.arange(count) // size,
    )
    log_probs = -torch.rand(count * length, generator=generator)
    rollouts = (
        rollouts.with_statistic("log_probs/behaviour", log_probs, "sampling")
        .with_statistic("log_probs/old", log_probs, "trainer")
        .with_statistic("entropy/old", torch.rand(count * length, generator=generator), "trainer")
        .with_column("response:prompt_text", [f"question {b // size + first_group}" for b in range(count)])
        .with_column("response:task_source", ["sums" if b % 2 else "words" for b in range(count)])
        .with_reward("outcome", rewards, maker="verifier")
        .with_column("episode:reason", ["right" if r else "wrong" for r in rewards.tolist()])
    )
    return credit.METHODS["tempo"]()(rollouts).record()


def write_run(folder: Path, steps: int, groups: int = 2, size: int = 4, length: int = 8) -> Path:
    """A run's folder as :class:`apportion.training.run_folder.RunFolder` leaves it, as far as it is looked at."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"credit": "tempo", "model": "tabular(vocabulary=50, depth=1, prompts=4)", "steps": steps})
    )
    store = RolloutStore(folder / "rollouts")
    with (folder / "metrics.jsonl").open("w") as metrics:
        for step in range(1, steps + 1):
            store.write(step, batch(groups, size, length, seed=step, first_group=step * groups))
            record = {
                "step": step,
                "reward": step / steps,
                "entropy": 1 / step,
                "groups_mixed": 1.0,
                "step_seconds": 0.5,
            }
            metrics.write(json.dumps(record) + "\n")
    return folder


def halved() -> credit.Stage:
    """A method of two stages."""
    return credit.chain(credit.METHODS["rloo"](), credit.scale(0.5))


def broken() -> credit.Stage:
    """A method with a mistake in it."""

    @credit.estimator()
    def with_a_mistake(work: Any) -> Any:
        return work.no_such_thing

    return with_a_mistake


def unmakeable() -> credit.Stage:
    """A method that cannot even be made."""
    raise KeyError("lost")


def tear(run: Path, *steps: int) -> None:
    """Cut the files of steps short, as a crash of the machine may."""
    for step in steps:
        os.truncate(run / "rollouts" / f"step_{step:06d}.arrow", 2000)


def write_jsonl(path: Path, records: Sequence[dict[str, object]]) -> Path:
    """A file of rollouts."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
