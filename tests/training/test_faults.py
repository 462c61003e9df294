"""Runs that must stop: a loss that is not a number, no verdicts, a full disk, a policy that fell apart.

Each stops with exit code 2 and one sentence, keeps its checkpoints, and can be resumed once what was wrong is mended;
it then ends as a run to which nothing happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import resource
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from apportion.cli import train as cli
from apportion.cli.main import main
from apportion.credit import METHODS
from apportion.errors import RunStopped
from apportion.rollouts.store import RolloutStore, read
from apportion.sampling.engine import SamplingSettings, draw
from apportion.training.config import TrainConfig
from apportion.training.loop import Event
from apportion.training.run_folder import RunFolder
from forked import in_child
from runs import DIGITS, TABULAR, begin, metrics, resume, weights

MINE = '''
import torch

from apportion.objectives import Loss, Objective


def fragile(bad_step: int = 2):
    """The loss of plain policy gradient, but at one step."""

    def evaluate(now, rollouts, credit, clock):
        used = credit.trained
        value = -(credit.advantages[used] * now["log_probs"][used]).mean()
        return Loss(value * BAD if clock.step == bad_step else value)

    return Objective("group", ("log_probs",), evaluate=evaluate)


def shy(prompt, response, answer):
    """No verdict on a digit of four or more."""
    if response >= "4":
        raise ValueError(f"cannot judge {response}")
    return 1.0


BAD = float("nan")
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    (tmp_path / "faulty.py").write_text(MINE)
    return tmp_path


def stopped(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a run that stops."""
    capsys.readouterr()
    assert main(shlex.split(line)) == 2
    said = capsys.readouterr().err
    assert said.startswith("apportion: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_loss_that_is_not_a_number(bad: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "faulty.py").write_text(MINE.replace("nan", bad))
    run = place / "run"
    line = "train tabular --run run --objective faulty:fragile --steps 5 --save-every 2 --seed 3 --json"
    said = stopped_with_progress(line, capsys)
    assert f"the loss of the policy is {bad}" in said or f"the loss of the policy is -{bad}" in said
    assert "at step 3, on the rollouts of groups 8 to 11" in said
    assert "checkpoints are as before this step" in said
    assert "The rollouts are in run/failed_step_000003.arrow." in said

    assert RunFolder(run).checkpoints.newest_good() == 2
    assert [line["step"] for line in metrics(run)] == [1, 2]
    assert RolloutStore(run / "rollouts").steps() == [1, 2]
    failed = read(run / "failed_step_000003.arrow")
    assert sorted(set(failed.group_ids.tolist())) == [8, 9, 10, 11]
    stored = failed.column("credit/advantages").tolist()
    assert METHODS["grpo"]()(failed).advantages.tolist() == stored

    (place / "faulty.py").write_text(MINE.replace('float("nan")', "1.0"))
    del sys.modules["faulty"]
    assert main(["train", "--resume", "run", "--json"]) == 0
    assert main([*shlex.split(line.replace("--run run", "--run whole"))]) == 0
    assert weights(run, 5) == weights(place / "whole", 5)
    again = RolloutStore(run / "rollouts").read(3)
    assert again.ids.tolist() == failed.ids.tolist()


def stopped_with_progress(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """With --json the progress goes to standard error too; the sentence is its last line."""
    capsys.readouterr()
    assert main(shlex.split(line)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    last = said.err.splitlines()[-1]
    assert last.startswith("apportion: ")
    return last


def test_too_many_without_a_verdict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "train tabular --run run --verifier faulty:shy --steps 3"
    said = stopped(line, capsys)
    assert (
        "of the responses of step 1 have an unknown reward (for example: shy raised ValueError: cannot judge " in said
    )
    assert "expected at most 20%: mend what gives the reward or raise max_unscored." in said
    assert RunFolder(place / "run").checkpoints.newest_good() == 0
    failed = read(place / "run/failed_step_000001.arrow")
    reasons = failed.columns["episode:reason"].text
    unknown = (~failed.column("episode:scored/outcome").bool()).tolist()
    assert sum(unknown) > 0.2 * len(unknown)
    for reason, lost in zip(reasons, unknown, strict=True):
        assert ("cannot judge" in str(reason)) == lost


def test_some_without_a_verdict_are_left_out(place: Path) -> None:
    begin(place / "run", dataclasses.replace(TABULAR, verifier="faulty:shy", max_unscored=1.0))
    assert max(line["unknown"] for line in metrics(place / "run")) > 0.2
    for _, rollouts in RolloutStore(place / "run/rollouts"):
        known = rollouts.column("episode:scored/outcome").bool()[rollouts.episode_of_token]
        assert not rollouts.column("credit/trained")[~known].any()
        assert not rollouts.column("credit/advantages")[~known].any()
        assert rollouts.column("credit/trained")[known].all()


def test_a_policy_that_fell_apart(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = "--tasks 'running_sum(digits=3, train=50, held_out=10)' --model 'digits(hidden=16, layers=1, heads=2)'"
    settings = "--steps 4 --learning-rate 1e30 --verifier runs:evenness --eval-prompts 0 --mismatch-tolerance inf"
    line = f"train instruct --run run {broken} {settings} --autocast None --sampling-dtype None --max-new-tokens 4"
    capsys.readouterr()
    assert main(shlex.split(line)) == 2
    said = capsys.readouterr().err
    assert said.startswith("apportion: ")
    assert said.count("\n") == 1
    assert "not finite" in said
    assert "go back to an earlier checkpoint, with a lower learning rate" in said
    assert RunFolder(place / "run").checkpoints.newest_good() == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_nothing_is_drawn_from_what_is_no_distribution(wrong: float) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, wrong, 2.0]])
    for temperature in (0.0, 1.0):
        with pytest.raises(RunStopped, match="the policy's probabilities are not finite"):
            draw(logits, SamplingSettings(4, temperature), torch.Generator())
    masked = torch.tensor([[0.0, -math.inf, 2.0]])  # a token that cannot come is no fault
    assert int(draw(masked, SamplingSettings(4), torch.Generator())[0]) in (0, 2)


# A disk that is full for one process: no file may grow beyond a limit, set when the run reaches a point.

POINTS: dict[str, tuple[str, int, str]] = {
    "storing rollouts": ("sampled", 2, "writing run/rollouts/step_000003.arrow failed (File too large)"),
    "a line of metrics": (
        "stored",
        2,
        "the disk is full: run could not be written. The checkpoints in run/checkpoints are intact",
    ),
    "the first checkpoint": ("begun", 0, "the disk is full: the checkpoint of step 0 could not be written"),
    "a later checkpoint": ("stepped", 4, "the disk is full: the checkpoint of step 4 could not be written"),
    "half a checkpoint": ("writing", 4, "the disk is full: the checkpoint of step 4 could not be written"),
    "the summary": ("renamed", 4, "the disk is full"),
}


def _full_from(name: str, step: int, limit: int) -> Callable[[Event], None]:
    def observe(event: Event) -> None:
        if (event.name, event.step) == (name, step):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return observe


def _run_in_child(config: TrainConfig, observer: Callable[[Event], None], said: Path) -> int:
    """A run through the command line in a child process; what it says goes to a file opened beforehand."""

    def work() -> None:
        cli.RECIPES["faulty"] = lambda: config
        cli.trackers = lambda config, run: [observer]
        error = io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            code = main(["train", "faulty", "--run", "run"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        said.write_text(f"{code}\n{error.getvalue()}")

    return in_child(work)


@pytest.fixture(scope="module", params=["table", "transformer"])
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    """A run to which nothing happens, and its settings."""
    config = TABULAR if request.param == "table" else DIGITS
    config = dataclasses.replace(config, objective=("clip", "kl(coefficient=0.01)"), seed=5)
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    begin(folder, config)
    return config, folder


@pytest.mark.parametrize("name", POINTS)
def test_a_full_disk(name: str, unbroken: tuple[TrainConfig, Path], place: Path) -> None:
    config, whole = unbroken
    event, step, expected = POINTS[name]
    # An append fails only beyond the limit, which must lie below what is there already.
    assert _run_in_child(config, _full_from(event, step, 16), place / "said") == 0
    code, error = (place / "said").read_text().split("\n", 1)
    assert code == "2", error
    assert error.startswith("apportion: ")
    assert error.count("\n") == 1, error
    assert expected in error

    run = place / "run"
    good = RunFolder(run).checkpoints.newest_good()
    assert good == {"begun": None, "renamed": 4}.get(event, 2)
    resume(run)
    assert weights(run, 4) == weights(whole, 4)
    assert [line["reward"] for line in metrics(run)] == [line["reward"] for line in metrics(whole)]
    assert [step for step, _ in RolloutStore(run / "rollouts")] == [1, 2, 3, 4]
    assert (run / "summary.json").is_file()
    leftovers = [p.name for p in run.rglob("*") if p.name.startswith(".")]
    assert leftovers == []


def test_a_full_disk_before_there_is_a_folder(place: Path) -> None:
    def work() -> None:
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))
            code = main(["train", "tabular", "--run", "run"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (place / "said").write_text(f"{code}\n{error.getvalue()}")

    assert in_child(work) == 0
    code, error = (place / "said").read_text().split("\n", 1)
    assert code == "2", error
    assert error.count("\n") == 1
    assert "cannot write to run (File too large): make room on the disk" in error
    begin(place / "run", TABULAR)  # nothing is in the way


def test_an_observer_is_told_that_the_run_ended_whatever_happened(place: Path) -> None:
    for settings, last in (({}, "finished"), ({"verifier": "faulty:shy"}, "sampled")):
        said: list[str] = []
        with contextlib.suppress(RunStopped):
            begin(
                place / last,
                dataclasses.replace(TABULAR, **settings),
                [lambda event, said=said: said.append(event.name)],
            )
        assert said[-1] == "ended"
        assert said.count("ended") == 1
        assert said[-2] == last
    assert os.getcwd() == str(place)
