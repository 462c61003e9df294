"""Train a policy, or go on with a run."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from apportion.cli.arguments import parse
from apportion.cli.progress import TrainingProgress
from apportion.errors import InputError, unknown_name
from apportion.recipes import RECIPES
from apportion.training.config import TrainConfig
from apportion.training.loop import train
from apportion.training.run_folder import RunFolder
from apportion.training.setup import set_up
from apportion.training.trackers import check_trackers, trackers


@dataclass(frozen=True)
class Arguments:
    """Train a policy: apportion train RECIPE [--run DIR] [--FIELD VALUE ...], or apportion train --resume DIR."""

    run: Path | None = None
    """Folder of the new run; default: runs/RECIPE-DATE-TIME."""
    resume: Path | None = None
    """Go on with the run in this folder instead; only --steps may be changed."""
    json: bool = False
    """Print the summary as JSON."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=TrainConfig, metadata={"flattened": TrainConfig}
    )


def main(argv: Sequence[str]) -> int:
    """``apportion train``"""
    words = list(argv)
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    if recipe is None and not any(word.split("=")[0] in ("--resume", "-h", "--help") for word in words):
        raise InputError(f"train needs a recipe, one of {', '.join(RECIPES)}, or --resume DIR.")
    if recipe is not None and recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    base = RECIPES[recipe]() if recipe else TrainConfig()
    arguments = parse(Arguments, words, "apportion train", Arguments(config=base))
    if arguments.resume is not None:
        run, config = _reopen(arguments, recipe, words)
    else:
        config = arguments.config
        path = arguments.run or Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
        RunFolder.check_new(path)
    check_trackers(config.trackers)
    begun = arguments.resume is not None and run.checkpoints.newest_good() is not None
    parts = set_up(config, begun)  # everything wrong with the settings shows before anything is written
    if arguments.resume is not None:
        run.write_config(config)
    else:
        run = RunFolder.create(path, config)

    console = Console(stderr=arguments.json)
    with TrainingProgress(console, parts, run.path) as progress:
        summary = train(run, parts, [progress, *trackers(config, run.path)])
    if summary is None:
        console.print(f"stopped and saved; go on with: apportion train --resume {run.path}", soft_wrap=True)
        return 130
    if arguments.json:
        print(json.dumps(summary))
    else:
        _report(console, summary, run.path)
    return 0


def _reopen(arguments: Arguments, recipe: str | None, words: list[str]) -> tuple[RunFolder, TrainConfig]:
    assert arguments.resume is not None
    if recipe is not None or arguments.run is not None:
        raise InputError("--resume goes on with a run as it was: leave the recipe and --run out.")
    run, stored = RunFolder.open(arguments.resume)
    asked = parse(Arguments, words, "apportion train", Arguments(config=stored)).config
    changed = [f.name for f in dataclasses.fields(stored) if getattr(asked, f.name) != getattr(stored, f.name)]
    if set(changed) - {"steps"}:
        raise InputError(
            f"a resumed run keeps its settings, and {', '.join(sorted(set(changed) - {'steps'}))} would change: only "
            "--steps may; start a new run for the rest."
        )
    if changed and stored.decay != "constant":
        raise InputError(
            f"the learning rate of this run falls to 0 at step {stored.steps}, so more steps would have changed the "
            "ones already done: begin a new run with that many steps."
        )
    done = run.checkpoints.newest_good() or 0
    if done > asked.steps or (done == asked.steps and (run.path / "summary.json").exists()):
        raise InputError(f"{run.path} has done all its {done} steps: give a larger --steps to go on.")
    return run, asked


def _report(console: Console, summary: dict, path: Path) -> None:
    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    say("")
    if "accuracy.before" in summary:
        say("held-out accuracy       before                    after")
        for kind, title in (("accuracy", "sampled"), ("greedy", "greedy")):
            cells = []
            for when in ("before", "after"):
                low, high = summary[f"{kind}.{when}.interval"]
                cells.append(f"{summary[f'{kind}.{when}']:.3f} [{low:.3f}, {high:.3f}]")
            say(f"  {title:22}{cells[0]:26}{cells[1]}")
    say(f"{summary['steps']} steps in {summary['seconds']:.0f} s")
    say("")
    say("where to look next:")
    if "accuracy.before" in summary:
        say(f"  apportion eval {path} --samples 16        accuracy and pass@k of the trained policy")
    last = sorted((path / "rollouts").glob("*.arrow"))
    if last:
        say(f"  apportion view {path}        which token earned the reward, on a local page")
        say(f"  apportion credit tempo {last[-1]}        the same rollouts under another credit")
    say(f"  {path / 'metrics.jsonl'}        a line a step; {path / 'summary.json'} has the outcome")
