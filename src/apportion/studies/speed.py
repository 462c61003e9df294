"""How many updates training takes to a level, and how many of them another way of training saves."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.errors import InputError


def updates_to(level: float, figures: Sequence[float]) -> float:
    """Updates until a figure first is at a level, on the straight line between measurements.

    Args:
        level: to be reached from below.
        figures: the figure before the first update and after each.

    Returns:
        the number of updates; all there were if the level was not reached.

    Raises:
        InputError: no figures.

    Example:
        >>> updates_to(0.5, [0.2, 0.4, 0.8]), updates_to(0.9, [0.2, 0.4, 0.8])
        (1.25, 2.0)
    """
    if not figures:
        raise InputError("got no figures of training, expected that before the first update at least.")
    if figures[0] >= level:
        return 0.0
    for step in range(1, len(figures)):
        before, after = figures[step - 1], figures[step]
        if after >= level:
            return step - 1 + (level - before) / (after - before)
    return float(len(figures) - 1)


def saved(level: float, slow: Sequence[float], fast: Sequence[float]) -> float:
    """The share of one training's updates that another saves on the way to a level; negative where it needs more.

    Args:
        level: above where ``slow`` begins.
        slow: figures of the first, see :func:`updates_to`.
        fast: of the other.

    Raises:
        InputError: the first begins at the level.

    Example:
        >>> saved(0.8, slow=[0.0, 0.2, 0.4, 0.6, 0.8], fast=[0.0, 0.4, 0.8])
        0.5
    """
    needed = updates_to(level, slow)
    if needed == 0:
        raise InputError(f"training begins at {slow[0]:g}, expected less than the level {level:g}.")
    return 1 - updates_to(level, fast) / needed
