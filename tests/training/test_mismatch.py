"""Sampler and trainer must agree on what a token's probability is, or the run stops."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.errors import RunStopped
from apportion.rollouts.store import RolloutStore, read
from apportion.sampling.local import LocalEngine
from apportion.training.run_folder import RunFolder
from builders import small_llama
from runs import DIGITS, TABULAR, begin, metrics, resume

HALF = dataclasses.replace(DIGITS, sampling_dtype="bfloat16", mismatch_tolerance=0.0)


def test_a_tolerance_of_nothing_refuses_a_copy_in_bfloat16(tmp_path: Path) -> None:
    with pytest.raises(RunStopped) as stop:
        begin(tmp_path / "run", HALF)
    said = str(stop.value)
    assert "sampler and trainer disagree at step 1" in said
    assert "expected a mean of at most 0.0: sample in a wider dtype or raise mismatch_tolerance." in said
    run = RunFolder(tmp_path / "run")
    assert run.checkpoints.newest_good() == 0
    assert run.rollouts.steps() == []
    assert not (tmp_path / "run/metrics.jsonl").exists()
    # What was drawn is there to be looked at.
    file = tmp_path / "run/failed_step_000001.arrow"
    assert f"The rollouts are in {file}." in said
    rollouts = read(file)
    difference = (rollouts.column("log_probs/old") - rollouts.column("log_probs/behaviour")).abs()
    assert f"{float(difference.double().mean()):.3g} on average" in said


def test_a_wider_tolerance_lets_it_train(tmp_path: Path) -> None:
    begin(tmp_path / "run", dataclasses.replace(HALF, mismatch_tolerance=0.05))
    assert all(0 < line["mismatch_mean"] < 0.05 for line in metrics(tmp_path / "run"))


def test_the_sampler_of_the_same_weights_agrees_to_rounding(tmp_path: Path) -> None:
    begin(tmp_path / "run", dataclasses.replace(DIGITS, mismatch_tolerance=1e-5, learning_rate=0.01))
    assert all(line["mismatch_max"] < 1e-5 for line in metrics(tmp_path / "run"))
    store = RolloutStore(tmp_path / "run/rollouts")
    assert store.steps() == [1, 2, 3, 4]


def test_a_sampler_that_is_left_behind_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(HALF, mismatch_tolerance=0.05, learning_rate=0.05, steps=8)
    begin(tmp_path / "fresh", config)
    monkeypatch.setattr(LocalEngine, "refresh", lambda self: None)
    with pytest.raises(RunStopped, match="sampler and trainer disagree at step"):
        begin(tmp_path / "stale", config)


def test_log_probs_that_are_not_numbers_are_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.training import loop

    measure = loop.batch_metrics
    monkeypatch.setattr(loop, "batch_metrics", lambda credit: measure(credit) | {"mismatch_mean": float("nan")})
    with pytest.raises(RunStopped, match="their log-probs differ by nan on average"):
        begin(tmp_path / "run", TABULAR)


def test_the_copy_keeps_what_is_no_weight_in_full_precision() -> None:
    """Rotary frequencies rounded to eight bits would turn far positions by whole circles."""
    llama = small_llama()
    engine = LocalEngine(llama.model, llama.context, torch.bfloat16)
    for (name, ours), (_, theirs) in zip(engine.model.named_buffers(), llama.model.named_buffers(), strict=True):
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name
    assert {p.dtype for p in engine.model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in engine.model.parameters())
    assert {p.dtype for p in llama.model.parameters()} == {torch.float32}


def test_the_copy_is_close_far_from_the_beginning() -> None:
    from apportion.rollouts import Rollouts
    from apportion.sampling import SamplingSettings
    from apportion.training.annotate import annotate

    llama: Any = small_llama()
    engine = LocalEngine(llama.model, llama.context, torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(1, 22, (110,), generator=generator).tolist()
    drawn = engine.generate([prompt], 16, SamplingSettings(16), generator)
    lengths = (drawn.offsets[1:] - drawn.offsets[:-1]).tolist()
    rows = [row.tolist() for row in drawn.ids.split(lengths)]
    rollouts = Rollouts.from_lists(rows, groups=[0] * 16, prompts=[prompt] * 16)
    rollouts = annotate(rollouts, {"old": llama}, {"old": ["log_probs"]}, max_tokens=1 << 14)
    assert float((rollouts.column("log_probs/old") - drawn.log_probs).abs().mean()) < 0.02


def test_tied_weights_stay_tied_in_the_copy() -> None:
    llama = small_llama(tied=True)
    engine = LocalEngine(llama.model, llama.context, torch.bfloat16)
    assert engine.model.lm_head.weight is engine.model.model.embed_tokens.weight
    with torch.no_grad():
        llama.model.lm_head.weight.mul_(3)
    engine.refresh()
    assert torch.equal(engine.model.lm_head.weight, llama.model.lm_head.weight.bfloat16())


def test_a_stopped_run_can_go_on_from_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunStopped):
        begin(tmp_path / "run", HALF)
    config = tmp_path / "run/config.json"
    config.write_text(config.read_text().replace('"mismatch_tolerance": 0.0', '"mismatch_tolerance": 0.05'))
    assert resume(tmp_path / "run") is not None
    assert len(metrics(tmp_path / "run")) == 4
