"""Metrics to trackers people already use. The run's own metrics.jsonl is always written."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from apportion.errors import InputError, unknown_name
from apportion.training.config import TrainConfig
from apportion.training.loop import Event, Observer


def _trackio(config: TrainConfig, run: Path) -> Observer:
    import trackio

    trackio.init(project="apportion", name=run.name, config=dataclasses.asdict(config))
    return _on_step(lambda values, step: trackio.log(values, step=step), trackio.finish)


def _wandb(config: TrainConfig, run: Path) -> Observer:
    import wandb

    session = wandb.init(project="apportion", name=run.name, config=dataclasses.asdict(config), dir=str(run))
    return _on_step(lambda values, step: session.log(values, step=step), session.finish)


def _tensorboard(config: TrainConfig, run: Path) -> Observer:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return _on_step(log, writer.close)


def _on_step(log: Callable[[dict[str, float], int], Any], finish: Callable[[], Any]) -> Observer:
    def observe(event: Event) -> None:
        if event.name == "stepped":
            log(dict(event.values), event.step)
        elif event.name == "evaluated":
            log({"held_out_accuracy": event.values["sampled"]["pass@1"]["value"]}, event.step)
        elif event.name == "ended":
            finish()

    return observe


TRACKERS: dict[str, Callable[[TrainConfig, Path], Observer]] = {
    "trackio": _trackio,
    "wandb": _wandb,
    "tensorboard": _tensorboard,
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be used.

    Raises:
        InputError: an unknown tracker, or one that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise InputError(f'tracker {name!r} is not installed: run pip install "apportion[track]".')


def trackers(config: TrainConfig, run: Path) -> list[Observer]:
    """Observers for the trackers a run asks for.

    Raises:
        InputError: as :func:`check_trackers`.
    """
    check_trackers(config.trackers)
    return [TRACKERS[name](config, run) for name in config.trackers]
