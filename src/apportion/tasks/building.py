"""From what a user writes to a task source: names, files, mixtures."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apportion import registry
from apportion.errors import InputError, unknown_name
from apportion.tasks.files import READERS, from_file
from apportion.tasks.gym import data_set_names, reasoning_gym
from apportion.tasks.mixture import mixture, parts_of
from apportion.tasks.running_sum import running_sum
from apportion.tasks.splitting import normalise
from apportion.tasks.task import TaskSource

TASKS: dict[str, Callable[..., TaskSource]] = {
    "file": from_file,
    "reasoning_gym": reasoning_gym,
    "running_sum": running_sum,
}
"""Builders by name. A new family of tasks is one file and one entry here."""

_WEIGHTED = re.compile(r"\s*([0-9][0-9.eE+-]*|\.[0-9][0-9eE+-]*)\s*\*\s*(.+)", re.DOTALL)


def build_tasks(spec: str | Path | Sequence[str], **defaults: Any) -> TaskSource:
    """The task source that a spec names.

    Args:
        spec: one of

            - a registered name: ``running_sum(digits=8)``, ``file(path='sums.csv', answer='total')``;
            - a reasoning-gym data set: ``chain_sum(min_terms=2)``, short for
              ``reasoning_gym(dataset='chain_sum', min_terms=2)``;
            - a file: ``sums.jsonl``, ``sums.csv(prompt='question')``;
            - ``package.module:name(...)``, a function that returns a task source;
            - a list of these for a mixture, each with a weight before it (1 if none):
              ``["0.7*running_sum", "0.3*sums.csv"]``.
        **defaults: arguments, such as ``seed``, for builders that take them, where the spec does not say.

    Raises:
        InputError: the spec cannot be read, names nothing known, or names something that cannot be built.

    Example:
        >>> build_tasks("running_sum(digits=3, train=8)", held_out=2).train[0].source
        'running_sum'
    """
    if isinstance(spec, Path):
        return registry.build("file", TASKS, "task", path=spec, **defaults)
    if isinstance(spec, str) and not _WEIGHTED.fullmatch(spec):
        return _checked(_build(spec.strip(), defaults), spec)
    members = [spec] if isinstance(spec, str) else spec
    return mixture([_weighted(member, defaults) for member in members])


def _weighted(member: str, defaults: Mapping[str, Any]) -> tuple[TaskSource, float]:
    match = _WEIGHTED.fullmatch(member)
    if match is None:
        return build_tasks(member, **defaults), 1.0
    try:
        weight = float(match[1])
    except ValueError:
        raise InputError(
            f"cannot read the weight {match[1]!r} in {member!r}: write a number, as in 0.7*name."
        ) from None
    return build_tasks(match[2], **defaults), weight


def _build(text: str, defaults: Mapping[str, Any]) -> TaskSource:
    name, bracket, rest = text.partition("(")
    name = name.strip()
    arguments = bracket + rest
    if _is_file(text):
        return registry.build("file", TASKS, "task", path=text, **defaults)
    if _is_file(name) or (":" not in name and any(mark in name for mark in ("/", "\\", "."))):
        return registry.build("file" + arguments, TASKS, "task", path=name, **defaults)
    if ":" in name or name in TASKS:
        return registry.build(text, TASKS, "task", **defaults)
    data_sets = data_set_names()
    if name in data_sets:
        return registry.build("reasoning_gym" + arguments, TASKS, "task", dataset=name, **defaults)
    also = f"; any reasoning-gym data set, a file ending in {', '.join(READERS)}, or package.module:name"
    if not data_sets:
        also += '; reasoning-gym is not installed, run pip install "apportion[train]"'
    raise unknown_name("task", name, [*TASKS, *difflib.get_close_matches(name, data_sets, n=3)], also)


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in READERS


def _checked(source: TaskSource, spec: str) -> TaskSource:
    """The source itself, when it keeps what ``TaskSource`` promises; builders from outside may not."""
    absent = [a for a in ("name", "train", "held_out", "verifier") if not hasattr(source, a)]
    if absent:
        raise InputError(
            f"{spec} gave a {type(source).__name__} without {', '.join(absent)}: expected a task source such as "
            "apportion.tasks.Source(name, train, held_out, verifier)."
        )
    if not source.train:
        raise InputError(f"{spec} gave no tasks to train on: expected at least one in its train part.")
    names = {part.name for part in parts_of(source)}
    stray = next((t.source for t in (*source.train, *source.held_out) if t.source not in names), None)
    if stray is not None:
        raise InputError(f"{spec} is called {source.name!r} but has tasks of the source {stray!r}: give both one name.")
    held_out = {normalise(task.text) for task in source.held_out}
    shared = next((task.text for task in source.train if normalise(task.text) in held_out), None)
    if shared is not None:
        raise InputError(
            f"{spec} has the prompt {shared!r} in both train and held-out: divide by prompt text, as "
            "apportion.tasks.split does."
        )
    return source
