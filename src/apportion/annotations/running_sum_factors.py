"""An evaluation function for the quickstart, as a judge might write one; it runs in the sandbox, not here.

Its inputs are those of the reading ``running_sum``, see :mod:`apportion.annotations.latent_inputs`.
"""

from __future__ import annotations

import numpy as np


def evaluation_func(observation: np.ndarray, action: np.ndarray) -> list[np.ndarray]:
    """Four factors of a written character, ``(B, 1)`` each.

    Whether a digit follows from the total before it, how far off it is around the circle of ten, whether the answer
    stops where it must, and how much of it was written before.
    """
    digits, written = observation[:, 2:], observation[:, 0].astype(int)
    length = (digits >= 0).sum(1)
    rows = np.arange(len(digits))
    total, due = observation[:, 1], digits[rows, np.clip(written, 0, digits.shape[1] - 1)]
    going, known = written < length, (total >= 0) & (action[:, 0] >= 0) & (action[:, 0] <= 9)
    off = np.mod(action[:, 0] - total - due, 10)
    follows = going & known & (off == 0)
    distance = np.where(going & known, np.minimum(off, 10 - off), 5) / 5
    stops = np.where(action[:, 0] == 10, np.where(written == length, 1, -1), 0)
    share = np.minimum(written / np.maximum(length, 1), 1)
    return [column.astype(float).reshape(-1, 1) for column in (follows, distance * going, stops, share)]
