"""Adapters: only they train, the reference is the model without them, and they are stored as peft stores them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from apportion.credit import METHODS, Clock
from apportion.training.annotate import annotate
from apportion.training.gradient import measure, micro_batches
from apportion.training.loop import Event, train
from apportion.training.run_folder import RunFolder
from apportion.training.setup import set_up
from builders import random_rollouts
from runs import DIGITS, begin, metrics, resume

CONFIG = dataclasses.replace(
    DIGITS, lora_rank=4, lora_alpha=16.0, learning_rate=0.02, objective=("clip", "kl(coefficient=0.05)"), seed=2
)


def adapters(folder: Path, step: int) -> bytes:
    return (folder / f"checkpoints/step_{step:06d}/model/adapter_model.safetensors").read_bytes()


def test_only_adapters_train() -> None:
    parts = set_up(CONFIG)
    policy: Any = parts.policy
    names = [name for name, _ in policy.named_parameters()]
    assert names
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert not any("lm_head" in name for name in names)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    rollouts = random_rollouts(dtype="float32")
    rollouts = dataclasses.replace(rollouts, ids=rollouts.ids % 13, prompt_ids=rollouts.prompt_ids % 13)
    rollouts = annotate(rollouts, {"old": policy}, {"old": ["log_probs"]}, 1 << 14)
    for step in range(2):  # B begins at 0, so A has no gradient at first
        parts.learner.update(METHODS["grpo"]()(rollouts), Clock(step, 4))
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("lora_" not in name), name


def test_the_reference_is_the_model_without_its_adapters() -> None:
    base, with_adapters = set_up(dataclasses.replace(CONFIG, lora_rank=0, lora_alpha=32.0)), set_up(CONFIG)
    policy: Any = with_adapters.policy
    with torch.no_grad():
        for _, parameter in policy.named_parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    rollouts = random_rollouts(dtype="float32")
    rollouts = dataclasses.replace(rollouts, ids=rollouts.ids % 13, prompt_ids=rollouts.prompt_ids % 13)
    parts = micro_batches(rollouts, 64)
    expected = measure(base.policy, rollouts, ["log_probs"], parts)["log_probs"]
    reference = measure(policy.frozen_copy(), rollouts, ["log_probs"], parts)["log_probs"]
    adapted = measure(policy, rollouts, ["log_probs"], parts)["log_probs"]
    assert torch.allclose(reference, expected, atol=1e-6)
    assert (adapted - expected).abs().max() > 0.1
    # Asking the reference switches nothing off for good.
    assert torch.equal(measure(policy, rollouts, ["log_probs"], parts)["log_probs"], adapted)


def test_adapters_begin_as_nothing_and_move_away(tmp_path: Path) -> None:
    said: list[Event] = []
    begin(tmp_path / "run", CONFIG, [said.append])
    values = [event.values["kl_reference"] for event in said if event.name == "stepped"]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert max(values[2:]) > 1e-5


def test_a_checkpoint_is_what_peft_reads(tmp_path: Path) -> None:
    from peft import PeftModel

    config = CONFIG
    begin(tmp_path / "run", config)
    folder = tmp_path / "run/checkpoints/step_000004/model"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert not (folder / "model.safetensors").exists()
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    base: Any = set_up(dataclasses.replace(config, lora_rank=0, lora_alpha=32.0)).policy
    loaded = PeftModel.from_pretrained(base.model, str(folder)).eval()

    ours: Any = set_up(config).policy
    ours.load_weights(folder)
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        theirs, mine = loaded(input_ids=ids).logits, ours.model(input_ids=ids).logits
        plain = set_up(dataclasses.replace(config, lora_rank=0, lora_alpha=32.0)).policy.model(input_ids=ids).logits
    assert torch.allclose(theirs, mine, atol=1e-6)
    assert not torch.allclose(plain, mine, atol=1e-4)


@pytest.mark.parametrize("sampling_dtype", [None, "bfloat16"])
def test_a_stopped_run_goes_on_to_the_same_adapters(sampling_dtype: str | None, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, sampling_dtype=sampling_dtype, mismatch_tolerance=0.1)
    begin(tmp_path / "whole", config)

    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if (event.name, event.step) == ("updated", 3):
            raise Stop

    with pytest.raises(Stop):
        train(RunFolder.create(tmp_path / "cut", config), set_up(config), [stop])
    assert RunFolder(tmp_path / "cut").checkpoints.newest_good() == 2
    resume(tmp_path / "cut")
    assert adapters(tmp_path / "cut", 4) == adapters(tmp_path / "whole", 4)
    assert adapters(tmp_path / "whole", 4) != adapters(tmp_path / "whole", 2)
    ours, theirs = metrics(tmp_path / "cut"), metrics(tmp_path / "whole")
    for name in ("loss", "kl_reference", "grad_norm", "reward"):
        assert [line[name] for line in ours] == [line[name] for line in theirs], name


@pytest.mark.parametrize(("targets", "message"), [("q_prox", "lora_targets is 'q_prox'"), ("q_proj,nothing", None)])
def test_targets(targets: str, message: str | None) -> None:
    from apportion.errors import InputError

    config = dataclasses.replace(CONFIG, lora_targets=targets)
    if message is None:
        assert all("q_proj" in name for name, _ in set_up(config).policy.named_parameters())
    else:
        with pytest.raises(InputError, match=message):
            set_up(config)
