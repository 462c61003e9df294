"""A study killed at any instant and started again ends in the same bytes: real processes, really killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def begin(folder: Path, point: str = "never", count: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "struck_study.py"), str(folder), point, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(folder: Path) -> None:
    process = begin(folder)
    _, error = process.communicate(timeout=1800)
    assert process.returncode == 0, error


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "study"
    finish(folder)
    return folder


POINTS = {
    "in the first warm start": ("warm starts", 1),
    "in the middle of a tuning run": ("tuning learning rates", 3),
    "in the middle of a run": ("runs", 4),
    "in the middle of measuring gradients": ("gradients", 2),
    "before the report is in place": ("report", 1),
}
QUICK = ("in the middle of a run",)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in POINTS])
def test_killed_and_started_again(name: str, unbroken: Path, tmp_path: Path) -> None:
    process = begin(tmp_path / "study", *POINTS[name])
    process.communicate(timeout=1800)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "study/study.json").exists()
    finish(tmp_path / "study")
    assert (tmp_path / "study/study.json").read_bytes() == (unbroken / "study.json").read_bytes()


def test_a_worker_that_dies_ends_the_study_with_a_sentence(unbroken: Path, tmp_path: Path) -> None:
    process = begin(tmp_path / "study", "worker", 6)
    _, error = process.communicate(timeout=1800)
    assert process.returncode == 2
    assert "died" in error.splitlines()[-1]
    assert "start the study again to go on" in error.splitlines()[-1]
    assert "Traceback" not in error
    finish(tmp_path / "study")
    assert (tmp_path / "study/study.json").read_bytes() == (unbroken / "study.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_instants(seed: int, unbroken: Path, tmp_path: Path) -> None:
    instants, folder = random.Random(seed), tmp_path / "study"
    for _ in range(3):
        process = begin(folder)
        while not (folder / "plan.json").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(instants.uniform(0.0, 12.0))
        process.kill()
        process.communicate()
    finish(folder)
    assert (folder / "study.json").read_bytes() == (unbroken / "study.json").read_bytes()


def test_a_finished_study_says_the_same_again(unbroken: Path) -> None:
    before, ran = (unbroken / "study.json").read_bytes(), (unbroken / "runs/0-grpo/3/summary.json").stat().st_mtime_ns
    finish(unbroken)
    assert (unbroken / "study.json").read_bytes() == before
    assert (unbroken / "runs/0-grpo/3/summary.json").stat().st_mtime_ns == ran


def test_what_the_clock_says_is_in_a_file_of_its_own(unbroken: Path) -> None:
    found = json.loads((unbroken / "study.json").read_text())
    assert "seconds" not in json.dumps(found)
    assert str(unbroken) not in json.dumps(found)
    times = json.loads((unbroken / "times.json").read_text())
    assert times["runs"]["runs/0-grpo/3"] > 0


def test_runs_are_paired(unbroken: Path) -> None:
    def first(arm: str, seed: int) -> dict:
        return json.loads((unbroken / f"runs/{arm}/{seed}/evaluations.jsonl").read_text().splitlines()[0])

    for seed in (3, 4):
        assert first("0-grpo", seed) == first("1-tree", seed) == first("2-twice", seed)
    # The same weights, asked with other random numbers.
    assert first("0-grpo", 3)["greedy"] == first("0-grpo", 4)["greedy"]
    assert first("0-grpo", 3)["scores"]["sampled"] != first("0-grpo", 4)["scores"]["sampled"]

    from apportion.rollouts.store import RolloutStore

    def prompts(arm: str, seed: int, step: int) -> list[str]:
        rollouts = RolloutStore(unbroken / f"runs/{arm}/{seed}/rollouts").read(step)
        return list(dict.fromkeys(rollouts.columns["response:prompt_text"].text))

    for step in (1, 6):
        assert prompts("0-grpo", 3, step) == prompts("1-tree", 3, step) == prompts("2-twice", 3, step)
        assert prompts("0-grpo", 3, step) != prompts("0-grpo", 4, step)
    one, other = (RolloutStore(unbroken / f"runs/{arm}/3/rollouts").read(1) for arm in ("0-grpo", "2-twice"))
    assert one.ids.tolist() == other.ids.tolist()


def test_tuning_uses_other_seeds_and_other_weights(unbroken: Path) -> None:
    found = json.loads((unbroken / "study.json").read_text())
    assert found["run_seeds"] == [3, 4]
    assert found["tuned_on"] == [1_000_003]
    assert sorted(p.name for p in (unbroken / "warm-starts").iterdir()) == ["study-0", "tuning-0"]
    weights = {
        (unbroken / f"warm-starts/{name}/checkpoints/step_000000/model/model.safetensors").read_bytes()
        for name in ("study-0", "tuning-0")
    }
    assert len(weights) == 2
    for path in unbroken.glob("tuning/*/*/*/config.json"):
        config = json.loads(path.read_text())
        assert config["seed"] == 1_000_003
        assert "tuning-0" in config["warm_start"]
        assert config["tasks_seed"] == 3  # the same division into train and held-out


def test_the_report_has_the_rates_that_were_chosen(unbroken: Path) -> None:
    found = json.loads((unbroken / "study.json").read_text())
    chosen = {line["arm"]: line["learning_rate"] for line in found["tuning"] if line["chosen"]}
    for arm in ("grpo", "tree"):
        lines = [line for line in found["tuning"] if line["arm"] == arm]
        assert [line["factor"] for line in lines] == [0.5, 1.0]
        assert max(lines, key=lambda line: (line["accuracy"], -line["learning_rate"]))["chosen"]
        assert all(line["at_the_edge"] == line["chosen"] for line in lines)
    used = {arm["arm"]: arm["learning_rate"] for arm in found["compared"]}
    assert used == chosen | {"twice": 2 * chosen["grpo"]}
    for number, name in enumerate(used):
        config = json.loads((unbroken / f"runs/{number}-{name}/3/config.json").read_text())
        assert config["learning_rate"] == used[name]


def test_arms_are_compared_after_equal_tokens(unbroken: Path) -> None:
    found = json.loads((unbroken / "study.json").read_text())
    tokens = {}
    for number, arm in enumerate(found["compared"]):
        for seed in (3, 4):
            lines = (unbroken / f"runs/{number}-{arm['arm']}/{seed}/metrics.jsonl").read_text().splitlines()
            tokens[arm["arm"], seed] = sum(json.loads(line)["tokens_sampled"] for line in lines)
    assert found["budget"] == min(tokens.values()) < max(tokens.values())  # trees draw fewer a step
    for arm in found["compared"]:
        assert arm["curve"]["tokens"][-1] == found["budget"]
        at_the_end = arm["sampled"]["at_the_end"]
        assert at_the_end["value"] == pytest.approx(sum(at_the_end["runs"]) / 2, abs=1e-5)
        assert at_the_end["low"] <= at_the_end["value"] <= at_the_end["high"]
    for line in found["differences"]:
        runs = {arm["arm"]: arm["sampled"]["on_the_way"]["runs"] for arm in found["compared"]}
        pairs = zip(runs[line["arm"]], runs[line["against"]], strict=True)
        assert line["sampled"]["on_the_way"]["runs"] == pytest.approx([a - b for a, b in pairs], abs=2e-6)
