"""B-Coder trains by name: two stages, human programs, kills and adapters."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from apportion.cli.main import main
from apportion.rollouts import Rollouts
from apportion.rollouts.store import RolloutStore, write
from apportion.tasks.running_sum import running_sum, solve
from apportion.training.config import TrainConfig
from forked import begin, resume

BASE = TrainConfig(
    model="digits(hidden=16, layers=2, heads=2)",
    tasks=("running_sum(digits=3, train=200, held_out=20)",),
    verifier="execution",
    warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=30, decay=10, batch=32)",
    credit="none(component='outcome')",
    objective=("b_coder(value_steps=2)",),
    learners=("pretrained_value(value_steps=2)",),
    prompts_per_step=2,
    group_size=4,
    max_new_tokens=4,
    steps=5,
    eval_prompts=0,
    save_every=1,
    keep_checkpoints=9,
    epochs=2,
    threads=1,
    seed=11,
)


@pytest.fixture
def human(tmp_path: Path) -> Path:
    """Programs that people wrote, each with its outcome."""
    from apportion.models.digits import digit_llama

    tokenizer = digit_llama().tokenizer
    tasks = running_sum(digits=3, train=8, held_out=0).train
    ids = [tokenizer(solve(task.text)).input_ids for task in tasks]
    prompts = [tokenizer(task.text).input_ids for task in tasks]
    rollouts = Rollouts.from_lists(ids, groups=list(range(8)), prompts=prompts)
    rollouts = rollouts.with_reward("outcome", torch.ones(8, dtype=torch.float64), maker="verifier")
    rollouts = rollouts.with_column("response:origin", ["demonstration"] * 8)
    write(rollouts, tmp_path / "human.jsonl")
    return tmp_path / "human.jsonl"


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int) -> dict[str, bytes]:
    checkpoint = folder / f"checkpoints/step_{step:06d}"
    return {str(p.relative_to(checkpoint)): p.read_bytes() for p in checkpoint.rglob("*.safetensors")}


POLICY, HEADS, PRETRAINED = (
    "model/model.safetensors",
    "model/value_heads.safetensors",
    "learners/pretrained/model.safetensors",
)


def test_first_the_values_learn_and_then_the_policy(human: Path, tmp_path: Path) -> None:
    config = replace(BASE, rollouts=str(human), rollouts_per_step=3)
    folder = tmp_path / "run"
    assert begin(folder, config) == 0
    at = [weights(folder, step) for step in range(6)]
    for step in (1, 2):
        assert at[step][POLICY] == at[0][POLICY]
        assert at[step][HEADS] == at[0][HEADS]
        assert at[step][PRETRAINED] != at[step - 1][PRETRAINED]
    for step in (3, 4, 5):
        assert at[step][POLICY] != at[step - 1][POLICY]
        assert at[step][HEADS] != at[step - 1][HEADS]
        assert at[step][PRETRAINED] == at[2][PRETRAINED]
    lines = metrics(folder)
    assert [line["loss"] == 0 for line in lines] == [True, True, False, False, False]
    assert [line.get("pretrained/loss", 0) > 0 for line in lines] == [True, True, False, False, False]
    assert all(line["human_nll"] > 0 for line in lines)
    assert lines[0]["td_loss"] == pytest.approx(lines[0]["pretrained/td_loss"], rel=0.5)
    stored = RolloutStore(folder / "rollouts").read(3)
    assert stored.origin.count("demonstration") == 3
    assert stored.column("greedy/reference").dtype == torch.int64
    assert stored.columns["token:values/pretrained"].parameters["value_steps"] == 2
    assert set(stored.column("episode:reward/outcome").tolist()) <= {1.0, -0.3, -0.6, -1.0}


@pytest.mark.parametrize("kill_at", [("updated", 1), ("updated", 3), ("stored", 2)])
def test_a_run_that_was_killed_ends_as_one_that_was_not(kill_at: tuple[str, int], human: Path, tmp_path: Path) -> None:
    config = replace(BASE, rollouts=str(human), rollouts_per_step=3, save_every=2)
    assert begin(tmp_path / "whole", config) == 0
    assert begin(tmp_path / "broken", config, kill_at=kill_at) == -signal.SIGKILL
    assert resume(tmp_path / "broken") == 0
    assert weights(tmp_path / "broken", 5) == weights(tmp_path / "whole", 5)
    clock = {"seconds", "step_seconds", "tokens_per_second"}
    whole, broken = (
        [{k: v for k, v in line.items() if k not in clock} for line in metrics(tmp_path / name)]
        for name in ("whole", "broken")
    )
    assert broken == whole


def test_with_adapters_the_head_trains_too(tmp_path: Path) -> None:
    config = replace(BASE, lora_rank=2, objective=("b_coder(value_steps=0)",), steps=2)
    config = replace(config, learners=("pretrained_value(value_steps=0)",), warm_start=None)
    assert begin(tmp_path / "run", config) == 0
    first, last = (tmp_path / f"run/checkpoints/step_{step:06d}/model" for step in (0, 2))
    for name in ("value_heads.safetensors", "adapter_model.safetensors"):
        before, after = load_file(first / name), load_file(last / name)
        assert any(not torch.equal(before[key], after[key]) for key in before), name


def test_a_table_trains_too(tmp_path: Path) -> None:
    words = ["--objective", "b_coder(value_steps=1)", "--learners", "pretrained_value(value_steps=1)"]
    words += ["--credit", "none(component='outcome')", "--steps", "2", "--run", str(tmp_path / "run")]
    assert main(["train", "tabular", *words]) == 0
    tables = load_file(tmp_path / "run/checkpoints/step_000002/model/model.safetensors")
    assert sorted(tables) == ["logits", "values/residual"]
    assert tables["values/residual"].any()


def test_without_pretrained_values_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--objective", "b_coder", "--credit", "none(component='outcome')", "--run", str(tmp_path / "run")]
    assert main(["train", "quickstart", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "values/pretrained" in said
    assert "--learners pretrained_value" in said
    assert not (tmp_path / "run").exists()


def test_stages_of_different_length_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--objective", "b_coder(value_steps=3)", "--learners", "pretrained_value(value_steps=1)"]
    words += ["--credit", "none(component='outcome')", "--steps", "2", "--run", str(tmp_path / "run")]
    assert main(["train", "tabular", *words]) == 2
    assert "made with value_steps=3, but pretrained made it with value_steps=1" in capsys.readouterr().err
