"""A study from beginning to end: warm starts, tuning, runs, report. Killed anywhere and started again it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion.errors import InputError
from apportion.studies.plan import Folder, Job, Study, check_runnable, rates
from apportion.studies.report import best, report, tuned
from apportion.studies.workers import Workers, is_done, locked
from apportion.training.run_folder import environment, write_atomically

PLAN, FOUND, TIMES = "plan.json", "study.json", "times.json"


@dataclass(frozen=True)
class Stand:
    """Where a study stands.

    Attributes:
        phase: what it is doing.
        done: runs done, with the shares of those under way.
        total: runs in all.
        begun: how many were done when this process began.
    """

    phase: str
    done: float
    total: int
    begun: int


def check_folder(path: Path, study: Study) -> None:
    """Refuse a folder of something else.

    Raises:
        InputError: it holds another study, or something that is none.
    """
    if not path.exists() or (path.is_dir() and not any(p.name != ".lock" for p in path.iterdir())):
        return
    plan = path / PLAN
    if not path.is_dir() or not plan.is_file():
        raise InputError(f"{path} exists already and is not the folder of a study: choose another with --out.")
    if plan.read_text() != _plan(study):
        raise InputError(
            f"{path} belongs to another study: choose another folder with --out, or give the settings in {plan}."
        )


def run_study(
    study: Study, path: Path, processes: int = 1, progress: Callable[[Stand], None] = lambda stand: None
) -> dict[str, Any]:
    """Do everything of a study that is not done yet, and write ``study.json``.

    Args:
        study: what to compare.
        path: its folder; begun before or new.
        processes: runs side by side, each on one thread of its own; does not change the result.
        progress: told where the study stands.

    Returns:
        what was found, see :func:`apportion.studies.report.report`.

    Raises:
        InputError: the folder belongs to another study, or an arm cannot run.
        RunStopped: a process died, or the disk is full; start the study again.
    """
    if processes < 1:
        raise InputError(f"processes is {processes}, expected at least 1.")
    check_folder(path, study)
    if not (path / FOUND).exists():
        check_runnable(study)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path) as lock:
        if not (path / PLAN).exists():
            write_atomically(path / "environment.json", json.dumps(environment(), indent=2))
            write_atomically(path / PLAN, _plan(study))
        folder, began = Folder(path, study), time.monotonic()
        own = {arm.name: arm.settings(study.base).learning_rate for arm in study.arms if arm.rate_of is None}
        with Workers(processes, path, lock) as workers:
            going = _Going(folder, workers, progress)
            going.do("warm starts", folder.warm_starts())
            tuning = [job for arm in study.arms for jobs in _tuning(folder, arm.name).values() for job in jobs]
            going.do("tuning learning rates", tuning)
            choices = tuned(folder)
            chosen = rates(study, own | {name: best(lines).rate for name, lines in choices.items()})
            # One seed of every arm after another, so that a study looked at before its end is one of fewer seeds.
            runs = zip(*(folder.runs(arm, chosen[arm.name]) for arm in study.arms), strict=True)
            going.do("runs", [job for seed in runs for job in seed])
            going.do("gradients", _signals(folder))
        found = report(folder, chosen, choices)
        write_atomically(path / FOUND, json.dumps(found, indent=1) + "\n")
        _write_times(path, folder, time.monotonic() - began)
        return found


def _plan(study: Study) -> str:
    return json.dumps({"schema": "apportion.study/1", **study.as_dict()}, indent=1)


def _tuning(folder: Folder, name: str) -> dict[float, list[Job]]:
    arm = next(arm for arm in folder.study.arms if arm.name == name)
    return folder.tuning(arm) if arm.rate_of is None else {}


def _signals(folder: Folder) -> list[Job]:
    """Measurements of gradients, each once."""
    return list({job.folder: job for arm in folder.study.arms for job in folder.signals(arm)}.values())


class _Going:
    """Phases one after another, and how far they are."""

    def __init__(self, folder: Folder, workers: Workers, progress: Callable[[Stand], None]) -> None:
        self.workers, self.progress = workers, progress
        study = folder.study
        jobs = [*folder.warm_starts(), *_signals(folder)]
        jobs += [job for arm in study.arms for by in _tuning(folder, arm.name).values() for job in by]
        jobs += [job for arm in study.arms for job in folder.runs(arm, 0.0)]
        self.shares = {job.folder: float(is_done(job)) for job in jobs}
        self.begun = round(sum(self.shares.values()))

    def do(self, phase: str, jobs: Sequence[Job]) -> None:
        def tell(job: Job, share: float) -> None:
            self.shares[job.folder] = share
            self.progress(Stand(phase, sum(self.shares.values()), len(self.shares), self.begun))

        self.workers.run([job for job in jobs if not is_done(job)], tell)


def _write_times(path: Path, folder: Folder, seconds: float) -> None:
    """Wall-clock times, beside the report because they are never the same twice."""
    runs = {str(s.parent.relative_to(path)): json.loads(s.read_text())["seconds"] for s in path.rglob("summary.json")}
    found = {"seconds_of_this_sitting": round(seconds, 1), "runs": dict(sorted(runs.items()))}
    write_atomically(path / TIMES, json.dumps(found, indent=1) + "\n")
