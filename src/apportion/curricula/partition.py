"""Which prompts to rehearse, which to explore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.errors import InputError


@dataclass(frozen=True)
class Partition:
    """Prompts by what is done with them, as ascending numbers."""

    rehearse: tuple[int, ...]
    explore: tuple[int, ...]
    dropped: tuple[int, ...]


def partition(
    n_correct: Sequence[int],
    extra_sample_correct: Sequence[bool],
    k: int = 8,
    threshold: int = 8,
    failed_check: str = "drop",
) -> Partition:
    """Split prompts by how often the initial policy solves them, as DPH-RL does before training.

    A prompt solved at least ``threshold`` times of ``k`` is a candidate; of every candidate one extra sample is drawn,
    which becomes its stored rehearsal response if it is right. All others are explored.

    Args:
        n_correct: right samples of every prompt, of k.
        extra_sample_correct: whether the extra sample is right; not read of prompts that are no candidates.
        k: samples a prompt.
        threshold: right ones that make a candidate: k for strong models, fewer for weak ones.
        failed_check: what becomes of a candidate whose extra sample is wrong: ``drop`` or ``explore``.

    Raises:
        InputError: lists of different lengths, counts outside 0..k, a threshold outside 1..k, or another
            ``failed_check``.

    Source: arXiv 2509.07430.

    Example:
        >>> partition([8, 3, 8], [True, True, False])
        Partition(rehearse=(0,), explore=(1,), dropped=(2,))
    """
    if failed_check not in ("drop", "explore"):
        raise InputError(f"failed_check is {failed_check!r}, expected 'drop' or 'explore'.")
    if not 1 <= threshold <= k:
        raise InputError(f"the threshold is {threshold}, expected 1 to k={k}.")
    if len(n_correct) != len(extra_sample_correct):
        raise InputError(f"got {len(extra_sample_correct)} extra samples for {len(n_correct)} prompts, expected equal.")
    outside = [count for count in n_correct if not 0 <= count <= k]
    if outside:
        raise InputError(f"a prompt was solved {outside[0]} times, expected 0 to k={k}.")
    parts: dict[str, list[int]] = {"rehearse": [], "explore": [], "drop": []}
    for prompt, (count, right) in enumerate(zip(n_correct, extra_sample_correct, strict=True)):
        parts["explore" if count < threshold else "rehearse" if right else failed_check].append(prompt)
    return Partition(tuple(parts["rehearse"]), tuple(parts["explore"]), tuple(parts["drop"]))
