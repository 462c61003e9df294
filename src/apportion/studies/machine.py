"""What made a table of figures: the code and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

import apportion


def commit() -> str:
    """Which code this is: the commit, ``+`` where files of the package differ from it, or else the version."""
    package = Path(apportion.__file__).parent
    try:
        head = _git(package, "rev-parse", "--short=10", "HEAD")
        changed = _git(package, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout
        return apportion.__version__
    return f"{head}+" if changed else head


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> str:
    """Processor, cores and versions, on one line."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {accelerator}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:  # not a Linux
        named = []
    return named[0] if named else platform.processor() or platform.machine()
