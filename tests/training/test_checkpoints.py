"""Checkpoints are whole or not there, whatever goes wrong while they are written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.errors import InputError, RunStopped
from apportion.models.tabular import TabularPolicy
from apportion.training.checkpoints import MANIFEST, MODEL, SCHEMA, TRAINER, Checkpoints, is_disk_full
from builders import small_llama


def policy(value: float = 0.0) -> TabularPolicy:
    table = TabularPolicy(vocabulary=3, depth=2)
    with torch.no_grad():
        table.logits.fill_(value)
    return table


def write(checkpoints: Checkpoints, step: int, **more: Any) -> Path:
    return checkpoints.write(step, {MODEL: policy(step), "learners/critic": policy(-step)}, {"step": step}, **more)


def logits(folder: Path) -> float:
    table = policy()
    table.load_weights(folder)
    return float(table.logits[0, 0].detach())


@pytest.fixture
def written(tmp_path: Path) -> Checkpoints:
    """Three of them."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=5)
    for step in (0, 2, 4):
        write(checkpoints, step)
    return checkpoints


def test_what_was_written_is_read(written: Checkpoints) -> None:
    assert written.steps() == [0, 2, 4]
    assert written.newest_good() == 4
    assert written.read(2) == {"step": 2}
    assert logits(written.model(2)) == 2
    assert logits(written.model(2, "learners/critic")) == -2
    manifest = json.loads((written.path(4) / MANIFEST).read_text())
    assert (manifest["schema"], manifest["step"]) == (SCHEMA, 4)
    assert set(manifest["files"]) == {
        TRAINER,
        f"{MODEL}/model.safetensors",
        "learners/critic/model.safetensors",
    }


def test_nothing_is_there_before_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none", keep=2)
    assert checkpoints.steps() == []
    assert checkpoints.newest_good() is None


def test_the_first_and_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(0, 12, 2):
        write(checkpoints, step)
        assert checkpoints.steps()[0] == 0
        assert step in checkpoints.steps()
    assert checkpoints.steps() == [0, 8, 10]
    checkpoints.keep = 1
    checkpoints.prune()
    assert checkpoints.steps() == [0, 10]


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


TORN: dict[str, Callable[[Path], object]] = {
    "half the weights": lambda folder: _half(folder / MODEL / "model.safetensors"),
    "a bit of the weights": lambda folder: _flip(folder / MODEL / "model.safetensors"),
    "half of another learner": lambda folder: _half(folder / "learners/critic/model.safetensors"),
    "no state": lambda folder: (folder / TRAINER).unlink(),
    "an empty state": lambda folder: (folder / TRAINER).write_bytes(b""),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half the manifest": lambda folder: _half(folder / MANIFEST),
    "a manifest that is a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "a folder in place of weights": lambda folder: (
        (folder / MODEL / "model.safetensors").unlink(),
        (folder / MODEL / "model.safetensors").mkdir(),
    ),
}


@pytest.mark.parametrize("name", TORN)
def test_a_torn_one_is_passed_over(name: str, written: Checkpoints) -> None:
    TORN[name](written.path(4))
    assert written.newest_good() == 2
    TORN[name](written.path(2))
    assert written.newest_good() == 0
    write(written, 4)  # what a resumed run does
    assert written.newest_good() == 4


def test_what_is_no_checkpoint_is_no_step(written: Checkpoints) -> None:
    for name in ("step_x", ".writing_000006", "step_000008.tmp", "notes"):
        (written.folder / name).mkdir()
    assert written.steps() == [0, 2, 4]


def test_another_schema_is_refused_by_name(written: Checkpoints) -> None:
    path = written.path(4) / MANIFEST
    path.write_text(path.read_text().replace(SCHEMA, "apportion.checkpoint/7"))
    with pytest.raises(InputError, match=r"has schema 'apportion.checkpoint/7', expected 'apportion.checkpoint/1'"):
        written.newest_good()


class Failing(TabularPolicy):
    """Cannot be saved."""

    def __init__(self, error: Exception) -> None:
        super().__init__(vocabulary=3, depth=2)
        self.error = error

    def save(self, folder: Path) -> None:
        super().save(folder)
        raise self.error


def _safetensors_error() -> Exception:
    from safetensors import SafetensorError

    return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


FULL = {
    "no space": OSError(errno.ENOSPC, "No space left on device"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "file size": OSError(errno.EFBIG, "File too large"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    "tokenizers": Exception("No space left on device (os error 28)"),
    "safetensors": _safetensors_error(),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_stops_the_run_and_leaves_the_others(name: str, written: Checkpoints) -> None:
    assert is_disk_full(FULL[name])
    with pytest.raises(RunStopped, match="the disk is full: the checkpoint of step 6 could not be written") as stop:
        written.write(6, {MODEL: Failing(FULL[name])}, {})
    assert "earlier checkpoints are intact. Free some space and resume." in str(stop.value)
    assert written.newest_good() == 4
    assert sorted(p.name for p in written.folder.iterdir()) == ["step_000000", "step_000002", "step_000004"]


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError(errno.EACCES, "Permission denied"), RuntimeError("x")])
def test_another_error_is_not_called_a_full_disk(error: Exception, written: Checkpoints) -> None:
    assert not is_disk_full(error)
    with pytest.raises(type(error)) as raised:
        written.write(6, {MODEL: Failing(error)}, {})
    assert raised.value is error
    assert written.newest_good() == 4
    assert len(list(written.folder.iterdir())) == 3


def test_a_crash_in_the_middle_leaves_a_folder_that_is_ignored_and_replaced(written: Checkpoints) -> None:
    class Killed(BaseException):
        pass

    def strike(event: str) -> None:
        if event == "writing":
            raise Killed

    with pytest.raises(Killed):
        write(written, 6, during=strike)
    assert (written.folder / ".writing_000006").is_dir()
    assert written.newest_good() == 4
    write(written, 6)
    assert written.newest_good() == 6
    assert not (written.folder / ".writing_000006").exists()


def test_it_counts_only_once_renamed(written: Checkpoints) -> None:
    said = []
    write(written, 6, during=lambda event: said.append((event, written.path(6).exists())))
    assert said == [("writing", False), ("renamed", True)]


def test_state_holds_tensors_and_plain_values_and_runs_no_code(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    state = {"tensor": torch.arange(3), "nested": {"a": [1, 2.5, None, "text"]}, "optimiser": {0: torch.ones(1)}}
    checkpoints.write(0, {MODEL: policy()}, state)
    read = checkpoints.read(0)
    assert torch.equal(read["tensor"], state["tensor"])
    assert read["nested"] == state["nested"]
    torch.save({"path": Path("x")}, checkpoints.path(0) / TRAINER)  # an object of a class: not loaded
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        checkpoints.read(0)


def test_a_transformer_is_stored_as_transformers_has_it(tmp_path: Path) -> None:
    checkpoints, llama = Checkpoints(tmp_path, keep=2), small_llama(tied=True)
    checkpoints.write(3, {MODEL: llama}, {})
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(checkpoints.model(3)).state_dict()
    for name, value in llama.model.state_dict().items():
        assert torch.equal(loaded[name], value), name
    assert AutoTokenizer.from_pretrained(checkpoints.model(3))("12=").input_ids == llama.tokenizer("12=").input_ids
    shutil.rmtree(checkpoints.path(3))
    assert checkpoints.newest_good() is None
