"""The plain task source: tasks already divided, with the verifier they are meant for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.tasks.splitting import split
from apportion.tasks.task import Task


@dataclass
class Source:
    """A ``TaskSource`` as plain data.

    Attributes:
        name: short and stable; used in metrics.
        train: tasks to learn from.
        held_out: tasks to evaluate on.
        verifier: spec of the verifier these tasks are meant for.
    """

    name: str
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    verifier: str

    @classmethod
    def divided(
        cls, name: str, tasks: Sequence[Task], held_out: int | float, seed: int, verifier: str, what: str
    ) -> Source:
        """A source whose held-out part is split off ``tasks``; arguments and errors as of ``split``."""
        train, apart = split(tasks, held_out, seed, what)
        return cls(name, train, apart, verifier)
