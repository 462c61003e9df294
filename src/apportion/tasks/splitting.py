"""Dividing tasks into train and held-out by what their prompts say.

Seeds do not keep two sets apart: generators repeat prompts, files hold copies, and in reasoning-gym the data set
of seed s + 1 is that of seed s moved by one. So the text decides, after removing what does not change a question:
letter case, width, white space.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from apportion.errors import InputError
from apportion.tasks.task import Task


def normalise(text: str) -> str:
    """The text as splits and duplicates see it: NFKC, casefolded, white space collapsed. Idempotent.

    Example:
        >>> normalise("  What is\\n２ + 2? ")
        'what is 2 + 2?'
    """
    # Casefolding can undo NFKC for a few letters, hence twice.
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def split(
    tasks: Sequence[Task], held_out: int | float, seed: int, what: str = "the task source"
) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """Hold out some prompts, with all their copies, from training.

    Which prompts are held out follows from their own text and the seed, so it does not depend on the order of
    ``tasks``. Train keeps its order and its duplicates; of a held-out prompt one copy stays, in an order that
    depends on text and seed only, so that its first n are a random sample as well.

    Args:
        tasks: what to divide.
        held_out: how many distinct prompts to hold out (int, 0 for none), or which fraction of the distinct prompts
            (float in (0, 1), rounded, at least one).
        seed: chooses among the possible divisions.
        what: what the tasks are, to begin error messages with.

    Returns:
        Train and held-out; no normalised prompt text is in both.

    Raises:
        InputError: no tasks, ``held_out`` is neither of the two kinds, or it would leave nothing to train on.

    Example:
        >>> tasks = [Task(f"{a} + 1 =", str(a + 1), "sums") for a in (0, 1, 2, 2)]
        >>> train, held_out = split(tasks, held_out=1, seed=0)
        >>> len(held_out), {t.text for t in train} & {t.text for t in held_out}
        (1, set())
    """
    if not tasks:
        raise InputError(f"{what} has no tasks: at least two different prompts are needed.")
    keys = [normalise(task.text) for task in tasks]
    distinct = set(keys)
    count = _held_out_count(held_out, len(distinct))
    if count >= len(distinct):
        raise InputError(
            f"{what} has {len(distinct)} distinct prompts in {len(tasks)} tasks, so holding out {held_out} of them "
            f"leaves none to train on: ask for held_out below {len(distinct)}, or give more different prompts."
        )
    chosen = sorted(distinct, key=lambda key: _rank(key, seed))[:count]
    copies: dict[str, Task] = {}
    for key, task in zip(keys, tasks, strict=True):
        # Of differing copies the smallest, not the first, so that order does not matter here either.
        if key not in copies or _order(task) < _order(copies[key]):
            copies[key] = task
    chosen_set = set(chosen)
    train = tuple(task for key, task in zip(keys, tasks, strict=True) if key not in chosen_set)
    return train, tuple(copies[key] for key in chosen)


def _held_out_count(held_out: int | float, distinct: int) -> int:
    if isinstance(held_out, int) and not isinstance(held_out, bool) and held_out >= 0:
        return held_out
    if isinstance(held_out, float) and 0 < held_out < 1:
        return max(1, round(held_out * distinct))
    raise InputError(
        f"held_out is {held_out!r}, expected a number of prompts (int from 0) or a fraction of them (between 0.0 "
        "and 1.0, both excluded)."
    )


def _rank(key: str, seed: int) -> bytes:
    # Lone surrogates, which a JSON escape can smuggle in, have no UTF-8 form of their own.
    return hashlib.blake2b(f"{seed}\n{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _order(task: Task) -> tuple[str, str]:
    return task.text, task.answer or ""
