"""Tasks from reasoning-gym: about a hundred procedural families, checked by their own scorers."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

from apportion.errors import InputError, unknown_name
from apportion.tasks.source import Source
from apportion.tasks.task import Task


def reasoning_gym(
    dataset: str,
    size: int = 1000,
    held_out: int | float = 0.2,
    seed: int = 0,
    name: str | None = None,
    **config: Any,
) -> Source:
    """Tasks of one reasoning-gym data set.

    Both parts come from one data set and are divided by prompt text. Another seed is no other data set: in
    reasoning-gym the items of seed s + 1 are those of seed s moved by one, so a study over seeds keeps this one
    fixed. Small spaces repeat prompts (one-digit two-term ``chain_sum`` has 200): train keeps the repetitions.

    Making an item takes about a millisecond for most sets, and 50 to 300 for countdown, puzzle24, zebra_puzzles and
    sokoban.

    Args:
        dataset: name in reasoning-gym, such as ``chain_sum``.
        size: how many items to make before dividing.
        held_out: distinct prompts to hold out: a number, or a fraction of the distinct ones.
        seed: of the generator and the division.
        name: what metrics call the source; the data set's name unless given.
        **config: settings of the data set, such as ``min_terms=2``.

    Raises:
        InputError: reasoning-gym is not installed, an unknown data set or setting, a value the data set refuses, or
            too few distinct prompts for ``held_out``.

    Example:
        >>> source = reasoning_gym("chain_sum", size=50, held_out=10, min_terms=2, max_terms=2)
        >>> source.verifier, len(source.held_out), sorted(source.train[0].metadata)
        ('reasoning_gym', 10, ['config', 'dataset', 'entry'])
    """
    known = _data_sets()
    if dataset not in known:
        raise unknown_name("reasoning-gym data set", dataset, known)
    settings = [f.name for f in dataclasses.fields(known[dataset][1]) if f.name not in ("seed", "size")]
    for setting in config:
        if setting not in settings:
            raise unknown_name(f"setting of the reasoning-gym data set {dataset!r}", setting, settings)
    if isinstance(size, bool) or not isinstance(size, int) or size < 2:
        raise InputError(f"{dataset} has size={size!r}, expected a whole number of items from 2.")
    import reasoning_gym as gym

    try:
        generated = gym.create_dataset(dataset, size=size, seed=seed, **config)
        entries = [generated[index] for index in range(size)]
    except Exception as error:  # a hundred authors' generators: any of them may raise anything
        detail = str(error) or type(error).__name__
        given = ", ".join(f"{k}={v!r}" for k, v in config.items()) or "no settings"
        raise InputError(f"the reasoning-gym data set {dataset!r} cannot be made with {given}: {detail}.") from error
    source = dataset if name is None else name
    tasks = [
        Task(
            prompt=entry["question"],
            answer=None if entry["answer"] is None else str(entry["answer"]),
            source=source,
            metadata={"dataset": dataset, "config": config, "entry": entry},
        )
        for entry in entries
    ]
    return Source.divided(source, tasks, held_out, seed, "reasoning_gym", f"the reasoning-gym data set {dataset!r}")


def data_set_names() -> tuple[str, ...]:
    """Names of all reasoning-gym data sets; empty where reasoning-gym is not installed."""
    return tuple(sorted(_data_sets())) if importlib.util.find_spec("reasoning_gym") else ()


def _data_sets() -> dict[str, tuple[type, type]]:
    """Name to generator class and settings dataclass."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise InputError('reasoning-gym is not installed: run pip install "apportion[train]".') from None
    return dict(DATASETS)
