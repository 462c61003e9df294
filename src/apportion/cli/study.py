"""Compare ways to train, in paired runs."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from apportion import registry
from apportion.cli.arguments import parse
from apportion.cli.output import print_table
from apportion.errors import InputError, unknown_name
from apportion.recipes import RECIPES
from apportion.studies.arms import Arm, crossed
from apportion.studies.picture import check_drawable, draw
from apportion.studies.plan import Study
from apportion.studies.run import FOUND, Stand, run_study
from apportion.training.config import TrainConfig

PICTURE = "study.svg"
WHOLE = {"trees": "apportion.cli.study_trees"}
"""Studies of several recipes with arms of their own, by name."""


@dataclass(frozen=True)
class Arguments:
    """Compare ways to train: apportion study RECIPE --vary credit=grpo,tempo [--seeds N] [--FIELD VALUE ...].
    Runs are paired and compared after equally many sampled tokens. A study that was interrupted goes on when the same
    command is given again."""

    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, as credit=grpo,tempo; again for another: every combination is an arm."""
    arm: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """One more arm, as "twice: credit=grpo; learning_rate=2*grpo", which takes twice the rate of the arm grpo."""
    seeds: int = 5
    """Runs of every arm for each warm start."""
    warm_starts: int = 1
    """Warm starts, from different seeds."""
    tune_learning_rate: tuple[float, ...] = ()
    """Factors of every arm's learning rate to choose the best of, on seeds that the study does not use."""
    tuning_seeds: int = 2
    """Runs for every factor."""
    reach: tuple[float, ...] = ()
    """Accuracies to count the tokens to; default: half and four fifths of what the best arm gains."""
    signal: int = 0
    """Batches to measure the signal and noise of every arm's gradient on, for each warm start; 0: do not."""
    out: Path | None = None
    """Folder of the study; default: studies/RECIPE- and eight letters that stand for everything asked."""
    processes: int = 0
    """Runs side by side, one thread each; 0: as many as there are cores."""
    json: bool = False
    """Print what was found as JSON."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=TrainConfig, metadata={"flattened": TrainConfig}
    )


def main(argv: Sequence[str]) -> int:
    """``apportion study``"""
    words = list(argv)
    if words and words[0] in WHOLE:
        return int(importlib.import_module(WHOLE[words[0]]).main(words[1:]))
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    if recipe is None and not any(word in ("-h", "--help") for word in words):
        raise InputError(f"study needs a recipe, one of {', '.join(RECIPES)}, and --vary or --arm.")
    if recipe is not None and recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    base = RECIPES[recipe]() if recipe else TrainConfig()
    arguments = parse(Arguments, words, "apportion study", Arguments(config=base))
    study = _study(arguments)
    if len(study.arms) < 2:
        raise InputError(
            f"the study has the one arm {study.arms[0].name!r}, expected at least two to compare: give --vary another "
            "value, or add an --arm."
        )
    check_drawable()
    path = arguments.out or Path("studies") / f"{recipe}-{study.fingerprint()}"
    found = carry_out(study, path, arguments.processes)
    draw(found, path / PICTURE)
    if arguments.json:
        print(json.dumps(found))
    else:
        print_found(found)
        print(f"\n{path / FOUND}, {path / PICTURE}")
    return 0


def carry_out(study: Study, path: Path, processes: int, name: str = "") -> dict[str, Any]:
    """Run a study, showing how far it is; ``name`` tells it from others of the same command."""
    with _Shown(Console(stderr=True), f"{name}: " if name else "") as progress:
        return run_study(study, path, processes or os.cpu_count() or 1, progress)


def _study(arguments: Arguments) -> Study:
    base = arguments.config
    base = dataclasses.replace(base, threads=base.threads or 1)
    if not base.eval_every:
        base = dataclasses.replace(base, eval_every=max(base.steps // 10, 1))
    varied: dict[str, list[Any]] = {}
    for text in arguments.vary:
        name, values = _varied(text)
        if name in varied:
            raise InputError(f"--vary names {name} twice: give all its values at once.")
        varied[name] = [_read({name: value}, base)[name] for value in values]
    arms = (*crossed(varied), *(_arm(text, base) for text in arguments.arm))
    return Study(
        base,
        arms,
        arguments.seeds,
        arguments.warm_starts,
        arguments.tune_learning_rate,
        arguments.tuning_seeds,
        arguments.reach,
        arguments.signal,
    )


def _varied(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise InputError(f"--vary was given {text!r}, expected a setting and values, as in credit=grpo,tempo.")
    return _setting(name), registry.split(values)


_MULTIPLE = re.compile(r"\s*([0-9.eE+-]+)\s*\*\s*(\S.*?)\s*")


def _arm(text: str, base: TrainConfig) -> Arm:
    """Read NAME: SETTING=VALUE; SETTING=VALUE."""
    name, colon, rest = text.partition(":")
    changes: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in rest.split(";"))):
        setting, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"--arm was given {part!r} in {text!r}, expected SETTING=VALUE.")
        changes[_setting(setting)] = value.strip()
    if not colon or not name.strip() or not changes:
        raise InputError(f'--arm was given {text!r}, expected "NAME: SETTING=VALUE; SETTING=VALUE".')
    multiple = _MULTIPLE.fullmatch(changes.get("learning_rate", ""))
    if multiple is None:
        return Arm(name.strip(), _read(changes, base))
    del changes["learning_rate"]
    try:
        factor = float(multiple[1])
    except ValueError:
        raise InputError(f"--arm takes {multiple[1]!r} times a rate in {text!r}, expected a number.") from None
    return Arm(name.strip(), _read(changes, base), multiple[2], factor)


def _setting(name: str) -> str:
    known = [f.name for f in dataclasses.fields(TrainConfig)]
    name = name.strip().replace("-", "_")
    if name not in known:
        raise unknown_name("setting", name, known)
    return name


def _read(texts: Mapping[str, str], base: TrainConfig) -> dict[str, Any]:
    """Values of settings from their texts; several of one setting are joined by " + "."""
    words: list[str] = []
    for name, text in texts.items():
        several = isinstance(getattr(base, name), tuple)
        words += ["--" + name.replace("_", "-"), *(text.split(" + ") if several else [text])]
    config = parse(TrainConfig, words, "apportion study", base) if words else base
    return {name: getattr(config, name) for name in texts}


def print_found(found: Mapping[str, Any]) -> None:
    """The summary on standard output."""
    console = Console(soft_wrap=True)
    if found["tuning"]:
        print("learning rates, by mean accuracy on the way on seeds of their own:")
        lines = [
            [
                line["arm"],
                f"{line['learning_rate']:.3g}",
                f"{line['accuracy']:.3f}",
                ("chosen, at the edge" if line["at_the_edge"] else "chosen") if line["chosen"] else "",
                f"{line['stopped']} stopped" if line["stopped"] else "",
            ]
            for line in found["tuning"]
        ]
        print_table(console, ["arm", "rate", "accuracy", "", ""], lines)
        print()
    goals = [f"tokens to {goal:.2f}" for goal in found["goals"]]
    head = ["arm", "rate", "tokens a step", "on the way", "at the end", "greedy at the end", *goals]
    lines = [
        [
            arm["arm"],
            f"{arm['learning_rate']:.3g}",
            f"{arm['tokens_a_step']:.0f}",
            _interval(arm["sampled"]["on_the_way"]),
            _interval(arm["sampled"]["at_the_end"]),
            _interval(arm["greedy"]["at_the_end"]),
            *("never" if goal["median"] is None else f"{goal['median']}" for goal in arm["tokens_to"]),
        ]
        for arm in found["compared"]
    ]
    print_table(console, head, lines)
    first = found["compared"][0]["arm"]
    lines = [
        [
            line["arm"],
            _interval(line["sampled"]["on_the_way"], sign=True),
            _interval(line["sampled"]["at_the_end"], sign=True),
            *("-" if g["median_ratio"] is None else f"x{g['median_ratio']:.2f}" for g in line["tokens_to"]),
        ]
        for line in found["differences"]
        if line["against"] == first
    ]
    if lines:
        print(f"\nless {first}, paired:")
        print_table(console, ["arm", "on the way", "at the end", *goals], lines)
    if found["signal"]:
        print("\nsignal over noise of a thousand sampled tokens, before training:")
        lines = [[s["arm"], f"{s['per_1000_tokens']:.3f}", f"{s['standard_error']:.3f}"] for s in found["signal"]]
        print_table(console, ["arm", "signal/noise", "standard error"], lines)
    stopped = sum(arm["stopped"] for arm in found["compared"])
    runs, questions = len(found["run_seeds"]), found["questions"]
    print(
        f"\n{runs} runs an arm, {found['budget']:.0f} sampled tokens each, {questions} held-out questions; accuracy of "
        f"sampled answers, 95 % intervals over runs and questions{f'; {stopped} runs had to stop' if stopped else ''}"
    )


def _interval(line: Mapping[str, float], sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{line['value']:{form}} [{line['low']:{form}}, {line['high']:{form}}]"


class _Shown:
    """Progress: a bar with the time left on a terminal, else a line every five seconds."""

    def __init__(self, console: Console, before: str = "") -> None:
        self.console, self.before, self._began, self._said = console, before, time.monotonic(), 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.1f}/{task.total:.0f} runs"),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, left="")

    def __enter__(self) -> _Shown:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def __call__(self, stand: Stand) -> None:
        now = time.monotonic()
        left = _left(now - self._began, stand)
        if self.console.is_terminal:
            what = self.before + stand.phase
            self._bar.update(self._task, description=what, completed=stand.done, total=stand.total, left=left)
        elif now - self._said > 5:
            self._said = now
            where = f"{self.before}{stand.phase}: {stand.done:.1f}/{stand.total} runs"
            print(f"{where}, {left}", file=sys.stderr, flush=True)


def _left(seconds: float, stand: Stand) -> str:
    """The time left, if what is to come takes as long as what was done.

    Example:
        >>> _left(60.0, Stand("runs", 5.0, 10, 0))
        '1:00 left'
    """
    done = stand.done - stand.begun
    if done <= 0:
        return "time left unknown"
    rest = round(seconds / done * (stand.total - stand.done))
    hours, minutes = divmod(rest // 60, 60)
    return f"{hours}:{minutes:02}:{rest % 60:02} left" if hours else f"{minutes}:{rest % 60:02} left"
