"""Trackers of others are told the right things: modules that look like theirs write down what is called."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from apportion.cli.main import main
from apportion.errors import RunStopped
from apportion.training.run_folder import RunFolder
from apportion.training.trackers import TRACKERS, trackers
from runs import DIGITS, TABULAR, begin, metrics

TRACKIO = """
calls = []


def init(**given):
    calls.append(("init", given))


def log(values, step=None):
    calls.append(("log", step, values))


def finish():
    calls.append(("finish",))
"""
WANDB = """
calls = []


class Session:
    def log(self, values, step=None):
        calls.append(("log", step, values))

    def finish(self):
        calls.append(("finish",))


def init(**given):
    calls.append(("init", given))
    return Session()
"""
TENSORBOARD = """
from tensorboard import calls


class SummaryWriter:
    def __init__(self, folder):
        calls.append(("init", {"folder": folder}))

    def add_scalar(self, name, value, step):
        if calls[-1][0] != "log" or calls[-1][1] != step:
            calls.append(("log", step, {}))
        calls[-1][2][name] = value

    def close(self):
        calls.append(("finish",))
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Importable stand-ins; gives the calls of one by name."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    (folder / "trackio.py").write_text(TRACKIO)
    (folder / "wandb.py").write_text(WANDB)
    (folder / "tensorboard.py").write_text("calls = []\n")
    (folder / "fake_writer.py").write_text(TENSORBOARD)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("trackio", "wandb", "tensorboard", "fake_writer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import fake_writer

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake_writer)
    yield lambda name: sys.modules[name].calls
    for name in ("trackio", "wandb", "tensorboard", "fake_writer"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_gets_every_step_and_every_evaluation(name: str, fakes: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(DIGITS, trackers=(name,), steps=3, eval_prompts=8, eval_every=2)
    run = tmp_path / "run"
    observers = trackers(config, run)
    begin(run, config, observers)
    calls = fakes(name)
    assert calls[0][0] == "init"
    if name == "tensorboard":
        assert calls[0][1] == {"folder": str(run / "tensorboard")}
    else:
        assert calls[0][1]["project"] == "apportion"
        assert calls[0][1]["name"] == "run"
        assert calls[0][1]["config"]["steps"] == 3
    assert calls[-1] == ("finish",)
    assert [call[0] for call in calls].count("finish") == 1
    logged: dict[int, dict[str, float]] = {}
    for _, step, values in calls[1:-1]:
        logged.setdefault(step, {}).update(values)
    assert list(logged) == [0, 1, 2, 3]
    assert [step for step, values in logged.items() if "held_out_accuracy" in values] == [0, 2, 3]
    for line in metrics(run):
        for metric in ("reward", "loss", "entropy", "mismatch_max"):
            assert logged[line["step"]][metric] == line[metric]


def test_a_tracker_is_closed_when_a_run_stops(fakes: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(DIGITS, trackers=("trackio",), sampling_dtype="bfloat16", mismatch_tolerance=0.0)
    with pytest.raises(RunStopped):
        begin(tmp_path / "run", config, trackers(config, tmp_path / "run"))
    assert [call[0] for call in fakes("trackio")] == ["init", "finish"]


def test_several_trackers_from_the_command_line(fakes: Any, tmp_path: Path) -> None:
    command = ["train", "tabular", "--run", str(tmp_path / "run"), "--steps", "2", "--trackers", "trackio", "wandb"]
    assert main(command) == 0
    for name in ("trackio", "wandb"):
        assert [call[0] for call in fakes(name)] == ["init", "log", "log", "finish"]
    assert RunFolder(tmp_path / "run").checkpoints.newest_good() == 2


def test_no_tracker_is_asked_for_nothing() -> None:
    assert trackers(TABULAR, Path("run")) == []
