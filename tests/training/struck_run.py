"""Begin a small run in this process and strike it with a signal where asked.

    python struck_run.py DIR POINT COUNT SIGNAL

POINT is the name of an event of the training loop, or ``draw`` for the middle of sampling; the process sends itself
SIGNAL at the COUNT-th time it is reached. With POINT ``never`` the run goes to its end.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from apportion.cli import train as cli
from apportion.cli.main import main as command_line
from apportion.sampling.engine import Collector
from apportion.training.config import TrainConfig

CONFIG = TrainConfig(
    model="digits(hidden=16, layers=1, heads=2)",
    tasks=("running_sum(digits=3, train=200, held_out=40)",),
    warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=8, decay=4, batch=16)",
    credit="tempo",
    objective=("clip(high=0.28)", "kl(coefficient=0.01)"),
    prompts_per_step=2,
    group_size=4,
    max_new_tokens=4,
    steps=6,
    epochs=2,
    minibatches=2,
    warmup_steps=2,
    decay="linear",
    eval_prompts=32,
    eval_every=3,
    save_every=2,
    keep_checkpoints=2,
    threads=1,
    seed=7,
)


def main(folder: str, point: str, count: str, number: str) -> None:
    """Run through the command line and be struck on the way."""
    left = int(count)

    def reached(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), int(number))

    add = Collector.add

    def adding(*arguments: Any) -> Any:
        reached("draw")
        return add(*arguments)

    Collector.add = adding  # type: ignore[method-assign]
    cli.RECIPES["struck"] = lambda: CONFIG
    cli.trackers = lambda config, run: [lambda event: reached(event.name)]
    sys.exit(command_line(["train", "struck", "--run", folder]))


if __name__ == "__main__":
    main(*sys.argv[1:])
