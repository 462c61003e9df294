"""A run killed at any instant and resumed ends like one that was not: real processes, really killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from apportion.rollouts.store import RolloutStore

HERE = Path(__file__).parent
TIMES = {"seconds", "step_seconds", "tokens_per_second"}


def begin(folder: Path, point: str, count: int = 1, strike: int = signal.SIGKILL) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "struck_run.py"), str(folder), point, str(count), str(int(strike))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def resume(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apportion.cli.main", "train", "--resume", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    process = begin(folder, "never")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """Everything a run says that does not depend on the clock."""
    summary = json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = {
        step: (rollouts.ids.tolist(), rollouts.column("credit/advantages").tolist())
        for step, rollouts in RolloutStore(folder / "rollouts")
    }
    return {
        "summary": {k: v for k, v in summary.items() if k not in ("seconds", "checkpoint")},
        "metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "evaluations": (folder / "evaluations.jsonl").read_text(),
        "rollouts": steps,
        "weights": (folder / "checkpoints/step_000006/model/model.safetensors").read_bytes(),
        "checkpoints": sorted(p.name for p in (folder / "checkpoints").iterdir()),
    }


def assert_same(folder: Path, unbroken: Path) -> None:
    ours, theirs = outcome(folder), outcome(unbroken)
    for part in theirs:
        assert ours[part] == theirs[part], part


# Checkpoints are written after steps 0, 2, 4 and 6; a draw happens up to four times a sampling and in evaluations.
POINTS = {
    "before the first checkpoint": ("begun", 1),
    "in the warm start": ("warming", 5),
    "in the middle of writing the first checkpoint": ("writing", 1),
    "in the middle of sampling": ("draw", 22),
    "between optimiser and store": ("updated", 4),
    "between store and checkpoint": ("stored", 4),
    "in the middle of writing a later checkpoint": ("writing", 3),
    "right after a checkpoint": ("renamed", 2),
    "before the summary": ("renamed", 4),
}


@pytest.mark.parametrize("name", POINTS)
def test_killed_at_a_named_point_and_resumed(name: str, unbroken: Path, tmp_path: Path) -> None:
    process = begin(tmp_path / "run", *POINTS[name])
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    done = resume(tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_instant_and_resumed(seed: int, unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder, "never")
    while not (folder / "config.json").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0.0, 4.0))
    process.kill()
    process.communicate()
    done = resume(folder)
    assert done.returncode == 0 or "has done all its 6 steps" in done.stderr, done.stderr
    assert_same(folder, unbroken)


def test_a_torn_checkpoint_is_passed_over(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    (folder / "summary.json").unlink()
    weights = folder / "checkpoints/step_000006/model/model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    (folder / "checkpoints/step_000004/trainer.pt").write_bytes(b"")
    done = resume(folder)
    assert done.returncode == 0, done.stderr
    ours, theirs = outcome(folder), outcome(unbroken)
    assert ours["weights"] == theirs["weights"]
    assert ours["metrics"] == theirs["metrics"]


def test_a_checkpoint_of_another_schema_is_refused(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    for manifest in folder.glob("checkpoints/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace("apportion.checkpoint/1", "apportion.checkpoint/99"))
    before = sorted(str(p) for p in folder.rglob("*"))
    done = resume(folder)
    assert done.returncode == 2
    assert "schema 'apportion.checkpoint/99', expected 'apportion.checkpoint/1'" in done.stderr
    assert sorted(str(p) for p in folder.rglob("*")) == before


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder, "sampled", 3, signal.SIGINT)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert f"apportion train --resume {folder}" in output
    assert "Traceback" not in error
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3  # the step under way was finished
    assert (folder / "checkpoints/step_000003").is_dir()
    done = resume(folder)
    assert done.returncode == 0, done.stderr
    ours, theirs = outcome(folder), outcome(unbroken)
    for part in ("weights", "metrics", "rollouts", "evaluations"):
        assert ours[part] == theirs[part], part


def test_a_finished_run_is_left_alone(unbroken: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in unbroken.rglob("*")}
    done = resume(unbroken)
    assert done.returncode == 2
    assert "has done all its 6 steps: give a larger --steps" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in unbroken.rglob("*")} == before


def test_only_steps_may_change_at_a_resume(unbroken: Path) -> None:
    command = [sys.executable, "-m", "apportion.cli.main", "train", "--resume", str(unbroken), "--learning-rate", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "learning_rate would change" in done.stderr
