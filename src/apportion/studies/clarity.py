"""How clear a gradient a batch gives: how much of its update is the exact gradient, and how much is not.

Suffix legend: R repeats, D logits.
"""

from __future__ import annotations

from torch import Tensor

from apportion.errors import InputError


def noise(updates: Tensor, exact: Tensor) -> float:
    """What is not along the exact gradient, in units of what is; so many more samples a method needs.

        noise = (E |u|^2 - s^2) / s^2,    s = E u . g / |g|

    Args:
        updates: u ``[R, D]``, of independent batches.
        exact: g ``[D]``.

    Raises:
        InputError: the updates do not go along the exact gradient on average.

    Example:
        >>> import torch
        >>> noise(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([2.0, 0.0]))
        1.0
    """
    along = float((updates @ exact / exact.norm()).mean())
    if along <= 0:
        raise InputError(f"the updates go {along:g} along the exact gradient, expected more than 0: draw more batches.")
    return float((updates**2).sum(1).mean()) / along**2 - 1


def samples_saved(updates: Tensor, control: Tensor, exact: Tensor) -> float:
    """The share of samples that a method spares over a control for an equally clear gradient; below 0 it needs more.

        1 - noise(u) / noise(control)

    Args:
        updates: of the method ``[R, D]``.
        control: of the other ``[R, D]``, from as many samples.
        exact: gradient ``[D]``.

    Example:
        >>> import torch
        >>> clear, noisy = torch.tensor([[1.0, 0.5], [1.0, -0.5]]), torch.tensor([[2.0, 2.0], [2.0, -2.0]])
        >>> samples_saved(clear, noisy, torch.tensor([1.0, 0.0]))
        0.75
    """
    return 1 - noise(updates, exact) / noise(control, exact)
