"""What a run leaves behind, and where.

config.json        resolved settings
environment.json   versions, machine, command
metrics.jsonl      a line a step
evaluations.jsonl  a line an evaluation
rollouts/          one immutable Arrow file a step, with credit
checkpoints/       in Hugging Face format, with everything a resume needs
summary.json       written at the end
failed_step_*.arrow  the rollouts of a step at which the run had to stop
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from apportion import __version__
from apportion.errors import InputError
from apportion.rollouts.store import RolloutStore
from apportion.training.checkpoints import Checkpoints
from apportion.training.config import TrainConfig


class RunFolder:
    """One run's folder.

    Args:
        path: the folder.
        keep_checkpoints: how many checkpoints to keep beside the first.
    """

    def __init__(self, path: Path, keep_checkpoints: int = 2) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints", keep_checkpoints)
        self.rollouts = RolloutStore(path / "rollouts")

    @staticmethod
    def create(path: Path, config: TrainConfig) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            InputError: something is there already, or the folder cannot be made.
        """
        RunFolder.check_new(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path} ({error.strerror}): choose another for the run.") from None
        run = RunFolder(path, config.keep_checkpoints)
        try:
            run.write("environment.json", environment())
            run.write_config(config)
        except OSError as error:
            for file in path.iterdir():  # the folder was empty, so it holds what was just begun
                file.unlink()
            raise InputError(
                f"cannot write to {path} ({error.strerror}): make room on the disk, or choose another for the run."
            ) from None
        return run

    @staticmethod
    def check_new(path: Path) -> None:
        """Refuse a folder that holds something.

        Raises:
            InputError: it does.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            hint = f"go on with --resume {path}, or " if (path / "environment.json").exists() else ""
            raise InputError(f"{path} exists already and is not empty: {hint}choose another folder for the run.")

    @staticmethod
    def open(path: Path) -> tuple[RunFolder, TrainConfig]:
        """A run that was begun before, and its settings.

        Raises:
            InputError: there is none.
        """
        config = path / "config.json"
        if not config.is_file():
            raise InputError(f"{path} is not the folder of a run (it has no config.json): give the folder of a run.")
        settings = TrainConfig.from_json(config.read_text(), config)
        return RunFolder(path, settings.keep_checkpoints), settings

    def write_config(self, config: TrainConfig) -> None:
        """Write the settings."""
        write_atomically(self.path / "config.json", config.to_json())

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        write_atomically(self.path / name, json.dumps(content, indent=2))

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a line to a JSON-lines file; a number that does not exist (NaN) is null."""
        whole = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        with (self.path / name).open("a") as file:
            file.write(json.dumps(whole, allow_nan=False) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a JSON-lines file; a last line torn by a crash is left out."""
        path = self.path / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def rewind(self, step: int) -> None:
        """Forget what came after a step: a resumed run makes it again."""
        self.rollouts.drop_after(step)
        for name in ("metrics.jsonl", "evaluations.jsonl"):
            if not (self.path / name).exists():
                continue
            kept = [json.dumps(record) for record in self.lines(name) if record["step"] <= step]
            write_atomically(self.path / name, "".join(line + "\n" for line in kept))


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a whole new one."""
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def environment() -> dict[str, Any]:
    """Versions and machine, for whoever reads the run later."""
    names = ("torch", "numpy", "transformers", "tokenizers", "peft", "pyarrow", "reasoning-gym", "math-verify")
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "apportion": __version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
        "command": sys.argv,
    }
