"""How much of a batch's gradient is signal: measured at one place, on batches that teach nothing.

Suffix legend: B batches.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.training.loop import Event
from apportion.training.metrics import drawn_for
from apportion.training.run_folder import write_atomically
from apportion.training.setup import Parts

FILE = "gradients.json"


class Gradients:
    """Watches a run whose learning rate is 0 and keeps the products of its batches' gradients.

    Args:
        folder: of the run; :data:`FILE` is written there when it ends.
        parts: what the run is made of.
    """

    def __init__(self, folder: Path, parts: Parts) -> None:
        self.folder, self.parameters = folder, parts.learner.parameters
        self.gradients: list[Tensor] = []
        self.tokens: list[float] = []

    def __call__(self, event: Event) -> None:
        if event.name == "updated":
            flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            self.gradients.append(torch.cat([g.detach().flatten().double() for g in flat]))
        elif event.name == "stepped":
            self.tokens.append(drawn_for(event.values))
        elif event.name == "finished":
            every = torch.stack(self.gradients)
            found = {"tokens": self.tokens, "products": (every @ every.T).tolist()}
            write_atomically(self.folder / FILE, json.dumps(found))


@dataclass(frozen=True)
class Signal:
    """Signal and noise of a gradient.

    Attributes:
        signal: squared norm of the expected gradient of a batch.
        noise: variance of a batch's gradient, summed over parameters.
        tokens: sampled a batch, on average.
    """

    signal: float
    noise: float
    tokens: float

    @property
    def per_token(self) -> float:
        """Signal over noise of a thousand sampled tokens: batches of which this is the same number are as good."""
        return 1000 * self.signal / self.noise / self.tokens if self.noise else math.inf


def signal(products_BB: np.ndarray, tokens_B: np.ndarray) -> Signal:
    r"""Signal and noise from the products of independent batches' gradients.

    .. math::
        \hat S = \frac{1}{B (B - 1)} \sum_{i \ne j} g_i \cdot g_j, \qquad
        \hat N = \frac1B \sum_i |g_i|^2 - \hat S

    Both are unbiased; with much noise and few batches the signal may come out negative.

    Args:
        products_BB: inner products.
        tokens_B: sampled for each batch.

    Raises:
        InputError: fewer than two batches.

    Example:
        >>> signal(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([10.0, 10.0]))
        Signal(signal=1.0, noise=1.0, tokens=10.0)
    """
    count = len(products_BB)
    if count < 2:
        raise InputError(f"the gradients of {count} batches were given, expected at least 2 to compare.")
    own = float(np.trace(products_BB))
    shared = (float(products_BB.sum()) - own) / (count * (count - 1))
    return Signal(shared, own / count - shared, float(tokens_B.mean()))


def read_signal(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Products and tokens that :class:`Gradients` wrote."""
    found = json.loads((folder / FILE).read_text())
    return np.array(found["products"]), np.array(found["tokens"])


def jackknife(products: list[np.ndarray], tokens: list[np.ndarray]) -> tuple[float, float]:
    """Signal over noise a thousand tokens, averaged over warm starts, and its standard error.

    With several warm starts the error is that of their mean; with one it is the delete-one jackknife's over batches.

    Args:
        products: inner products of every warm start's batches.
        tokens: sampled for them.
    """
    values = [signal(p, t).per_token for p, t in zip(products, tokens, strict=True)]
    if len(values) > 1:
        return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
    count = len(tokens[0])
    kept = [np.delete(np.arange(count), i) for i in range(count)]
    left = np.array([signal(products[0][np.ix_(k, k)], tokens[0][k]).per_token for k in kept])
    return values[0], float(math.sqrt((count - 1) / count * np.square(left - left.mean()).sum()))
