"""The same run wherever there is a device for it, in every combination of dtypes that settings allow."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.cli.main import main
from apportion.rollouts.store import RolloutStore
from apportion.training.checks import check_device
from apportion.training.setup import set_up
from runs import DIGITS, begin, metrics, resume, weights

# Without a GPU these run on the CPU alone: nothing is skipped, there is one case less.
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES: list[tuple[str, str | None, str | None]] = [
    ("float32", None, None),
    ("float64", None, None),
    ("bfloat16", None, None),
    ("float32", "bfloat16", None),
    ("float32", None, "bfloat16"),
    ("float32", "bfloat16", "bfloat16"),
    ("bfloat16", None, "float32"),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "autocast", "sampling"), DTYPES)
def test_a_run(device: str, dtype: str, autocast: str | None, sampling: str | None, tmp_path: Path) -> None:
    config = dataclasses.replace(
        DIGITS,
        device=device,
        dtype=dtype,
        autocast=autocast,
        sampling_dtype=sampling,
        mismatch_tolerance=0.2,
        objective=("clip", "kl(coefficient=0.01)"),
        steps=2,
        eval_prompts=8,
    )
    begin(tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    assert all(math.isfinite(line[name]) for line in lines for name in ("loss", "grad_norm", "entropy"))
    if (autocast or dtype) != (sampling or dtype):  # the two passes really run in different dtypes
        assert lines[0]["mismatch_mean"] > 1e-5
    elif dtype != "bfloat16" and autocast is None:
        assert lines[0]["mismatch_mean"] < 1e-5
    parts = set_up(config)
    assert parts.policy.device.type == device
    assert {p.dtype for _, p in parts.policy.named_parameters()} == {getattr(torch, dtype)}
    engine: Any = parts.engine.engine
    assert {p.dtype for p in engine.model.parameters()} == {getattr(torch, sampling or dtype)}
    stored = RolloutStore(tmp_path / "run/rollouts").read(1)
    assert stored.ids.device.type == "cpu"


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_goes_on_where_it_began(device: str, tmp_path: Path) -> None:
    config = dataclasses.replace(DIGITS, device=device, steps=2, save_every=1)
    begin(tmp_path / "run", config)
    resume(tmp_path / "run", steps=4)
    begin(tmp_path / "whole", dataclasses.replace(config, steps=4))
    if device == "cpu":
        assert weights(tmp_path / "run", 4) == weights(tmp_path / "whole", 4)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4]


@pytest.mark.parametrize("device", DEVICES)
def test_the_other_verbs_follow_the_run(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path / "run", dataclasses.replace(DIGITS, device=device, steps=1))
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--prompts", "8", "--samples", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 8
    assert main(["rollout", str(tmp_path / "run"), "--prompts", "4", "--out", str(tmp_path / "x.jsonl")]) == 0


def test_auto_is_a_device_that_is_there() -> None:
    assert check_device("auto") == DEVICES[-1]
    assert check_device("cpu") == "cpu"


def test_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    for name in ("one", "two"):
        begin(tmp_path / name, DIGITS)
    assert weights(tmp_path / "one", 4) == weights(tmp_path / "two", 4)
    begin(tmp_path / "other", dataclasses.replace(DIGITS, seed=1))
    assert weights(tmp_path / "other", 4) != weights(tmp_path / "one", 4)
