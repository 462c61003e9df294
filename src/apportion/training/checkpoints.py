"""Checkpoints that are whole or not there.

A checkpoint is written into a folder aside, every file's size and SHA-256 go into a manifest, and the folder is then
renamed into place. Whatever happens in between leaves the older checkpoints as they were. Reading checks the manifest
and falls back to the newest checkpoint that is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from apportion.errors import InputError, RunStopped
from apportion.models.policy import Model

SCHEMA = "apportion.checkpoint/1"
MODEL, TRAINER, MANIFEST = "model", "trainer.pt", "manifest.json"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie; made when first written.
        keep: how many to keep beside the first, the newest ones.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def path(self, step: int) -> Path:
        """Where the checkpoint after ``step`` steps lies."""
        return self.folder / f"step_{step:06d}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first; they may be torn."""
        names = [p.name for p in self.folder.glob("step_*")] if self.folder.exists() else []
        return sorted(int(name.removeprefix("step_")) for name in names if name.removeprefix("step_").isdigit())

    def write(
        self,
        step: int,
        models: Mapping[str, Model],
        state: Mapping[str, Any],
        during: Callable[[str], None] = lambda event: None,
    ) -> Path:
        """Write a checkpoint and delete the ones no longer kept.

        Args:
            step: steps done.
            models: whose weights, by the name of their folder; the policy's is ``model``.
            state: everything else; tensors and plain values.
            during: told ``writing`` when half the files are there and ``renamed`` when it counts.

        Raises:
            RunStopped: the disk is full; older checkpoints are as they were.
        """
        target, aside = self.path(step), self.folder / f".writing_{step:06d}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            for name, model in models.items():
                (aside / name).mkdir(parents=True)
                model.save(aside / name)
            during("writing")
            torch.save(dict(state), aside / TRAINER)
            files = {str(p.relative_to(aside)): _fingerprint(p) for p in sorted(aside.rglob("*")) if p.is_file()}
            (aside / MANIFEST).write_text(json.dumps({"schema": SCHEMA, "step": step, "files": files}, indent=1))
            for path in aside.rglob("*"):
                _sync(path)
            if target.exists():
                shutil.rmtree(target)
            os.replace(aside, target)
            _sync(self.folder)
        except Exception as error:  # safetensors and tokenizers have errors of their own for a full disk
            shutil.rmtree(aside, ignore_errors=True)
            if is_disk_full(error):
                raise RunStopped(
                    f"the disk is full: the checkpoint of step {step} could not be written to {self.folder}; earlier "
                    "checkpoints are intact. Free some space and resume."
                ) from None
            raise
        during("renamed")
        self.prune()
        return target

    def prune(self) -> None:
        """Delete the checkpoints no longer kept: all but the first and the newest ones."""
        later = self.steps()[1:]
        for step in later[: max(len(later) - self.keep, 0)]:
            shutil.rmtree(self.path(step))

    def newest_good(self) -> int | None:
        """The newest step whose checkpoint is whole; None if there is none.

        Raises:
            InputError: the newest whole checkpoint was written by another version of the format.
        """
        return next((step for step in reversed(self.steps()) if self.is_whole(step)), None)

    def is_whole(self, step: int) -> bool:
        """Whether the checkpoint of a step is there as it was written.

        Raises:
            InputError: it was written by another version of the format.
        """
        manifest = self._manifest(step)
        if manifest is None:
            return False
        if manifest.get("schema") != SCHEMA:
            raise InputError(
                f"{self.path(step)} has schema {manifest.get('schema')!r}, expected {SCHEMA!r}: "
                "resume it with the version of apportion that wrote it."
            )
        return all(
            (self.path(step) / name).is_file() and _fingerprint(self.path(step) / name) == expected
            for name, expected in manifest["files"].items()
        )

    def _manifest(self, step: int) -> dict[str, Any] | None:
        try:
            manifest = json.loads((self.path(step) / MANIFEST).read_text())
        except (OSError, ValueError):
            return None  # torn: the caller goes on to an older one
        return manifest if isinstance(manifest, dict) else None

    def read(self, step: int) -> dict[str, Any]:
        """The state written beside the weights."""
        return torch.load(self.path(step) / TRAINER, weights_only=True, map_location="cpu")

    def model(self, step: int, name: str = MODEL) -> Path:
        """The folder of a model's weights; the policy's is in Hugging Face format."""
        return self.path(step) / name


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, of Python's or from inside torch or safetensors, means that the disk is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error).lower()
    return "no space left" in text or "file too large" in text or "unexpected pos" in text


def _fingerprint(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
