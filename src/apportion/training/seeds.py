"""Random numbers that depend on where a run stands and on nothing else.

Every use derives its own generator from the run's seed, a purpose and a step, so that a resumed run draws what an
unbroken one would have drawn, without any generator's state being carried along.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose.

    Example:
        >>> derive(1, "sampling", 3) == derive(1, "sampling", 3) != derive(1, "sampling", 4)
        True
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(device: torch.device | str, seed: int, *purpose: object) -> torch.Generator:
    """A torch generator for one purpose."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


def numpy_generator(seed: int, *purpose: object) -> np.random.Generator:
    """A numpy generator for one purpose."""
    return np.random.default_rng(derive(seed, *purpose))
