"""A process that trains one run of a study after another, as it is told.

It reads jobs from standard input, a JSON object a line, and writes what happens to standard output likewise. When
whoever started it is gone the input ends, and it leaves at once, wherever it is: runs are as resumable as ever.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apportion.errors import ApportionError, RunStopped

Tell = Callable[..., None]
_EVERY = 0.2
"""Seconds between two words on the progress of a run."""


def main() -> None:
    """Serve until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what verifiers print is no message of ours
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()

    def tell(**message: Any) -> None:
        out.write(json.dumps(message) + "\n")

    while True:
        job = json.loads(jobs.get())
        try:
            do(Path(job["folder"]), job["config"], job["kind"], tell)
        except ApportionError as error:
            tell(event="refused", message=str(error))


def _listen(jobs: queue.Queue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


def do(folder: Path, settings: str, kind: str, tell: Tell) -> None:
    """Begin or go on with a run, to its end.

    Args:
        folder: of the run.
        settings: of a new run, as JSON.
        kind: ``train`` or ``signal``.
        tell: given ``event="share"`` with the ``share`` that is done, and ``event="done"``.

    Raises:
        InputError: the settings cannot be used.
        RunStopped: the disk is full. A run that stops for what it computed has ended: that is a result.
    """
    from apportion.studies.curves import STOPPED
    from apportion.studies.signal import Gradients
    from apportion.training.config import TrainConfig
    from apportion.training.loop import Event, train
    from apportion.training.metrics import drawn_for
    from apportion.training.run_folder import RunFolder
    from apportion.training.setup import set_up

    if kind == "signal" or not (folder / "config.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # gradients are not kept from step to step; else, hardly begun
        config = TrainConfig.from_json(settings, folder / "config.json")
        parts = set_up(config)
        run = RunFolder.create(folder, config)
    else:
        run, config = RunFolder.open(folder)
        parts = set_up(config, begun=run.checkpoints.newest_good() is not None)
    tokens, said = sum(drawn_for(line) for line in run.lines("metrics.jsonl")), 0.0

    def watch(event: Event) -> None:
        nonlocal tokens, said
        if event.name != "stepped":
            return
        tokens += drawn_for(event.values)
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            spent = tokens / config.token_budget if config.token_budget else 0.0
            tell(event="share", share=min(max(event.step / config.steps, spent), 1.0))

    gradients = [Gradients(folder, parts)] if kind == "signal" else []
    try:
        train(run, parts, [watch, *gradients])
    except RunStopped as stop:
        if kind == "signal" or not any(folder.glob("failed_step_*")):
            raise
        run.write(STOPPED, {"message": str(stop)})
    tell(event="done")


if __name__ == "__main__":
    main()
