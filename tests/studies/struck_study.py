"""Begin a small study in this process and strike it where asked.

    python struck_study.py DIR POINT COUNT

POINT is a phase of the study, at whose COUNT-th word of progress the process kills itself; ``report``, right before
``study.json`` is in place; ``worker``, which kills the process that trains instead, at the COUNT-th word; or ``never``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from apportion.cli import study as cli
from apportion.cli.main import main as command_line
from apportion.studies import run
from apportion.training.config import TrainConfig

CONFIG = TrainConfig(
    model="digits(hidden=16, layers=1, heads=2)",
    tasks=("running_sum(digits=2, train=50, held_out=40)",),
    warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=50, decay=20, batch=32)",
    prompts_per_step=4,
    group_size=4,
    max_new_tokens=2,
    steps=6,
    learning_rate=3e-3,
    eval_prompts=40,
    save_every=2,
    seed=3,
)
ARGUMENTS = (
    *("--arm", "grpo: credit=grpo", "--arm", "tree: credit=tree; sampling=branching", "--arm"),
    *("twice: credit=grpo; learning_rate=2*grpo", "--seeds", "2", "--tune-learning-rate", "0.5", "1"),
    *("--tuning-seeds", "1", "--signal", "3", "--eval-every", "2", "--processes", "1"),
)


def main(folder: str, point: str, count: str) -> None:
    """Run through the command line and be struck on the way."""
    left = int(count)
    started: list[Any] = []
    popen, write = subprocess.Popen, run.write_atomically

    def reached(name: str) -> None:
        nonlocal left
        if name == point or point == "worker":
            left -= 1
            if left == 0 and point == "worker":
                started[-1].kill()
            elif left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    class Watched(popen):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            started.append(self)

    def writing(path: Any, text: str) -> None:
        if path.name == run.FOUND:
            reached("report")
        write(path, text)

    class Shown(cli._Shown):
        def __call__(self, stand: Any) -> None:
            super().__call__(stand)
            reached(stand.phase)

    subprocess.Popen = Watched  # type: ignore[misc]
    run.write_atomically = writing
    cli._Shown = Shown  # type: ignore[misc]
    cli.RECIPES["struck"] = lambda: CONFIG
    sys.exit(command_line(["study", "struck", "--out", folder, *ARGUMENTS]))


if __name__ == "__main__":
    main(*sys.argv[1:])
