"""A row of cells: walk from one to the last. Small, deterministic, and states repeat."""

from __future__ import annotations

from dataclasses import dataclass, field

from apportion.environments.environment import Observation, Outcome
from apportion.errors import InputError
from apportion.tasks.source import Source
from apportion.tasks.task import Task, TaskSource

LEFT, RIGHT = "0", "1"


@dataclass
class Corridor:
    """Cells ``0 .. length - 1``; ``1`` steps right, ``0`` left, anything else is invalid and stays.

    The episode pays 1 on reaching the last cell and ends there, or is truncated after ``limit`` turns.

    Args:
        length: cells, 2 to 10.
        limit: turns.
        prompt: what the policy reads, with ``{position}`` and ``{goal}`` in it.
        starts: cells that episodes begin in; default: the first only.
    """

    length: int = 6
    limit: int = 12
    prompt: str = "{position}{goal}="
    starts: tuple[int, ...] = (0,)
    source: TaskSource = field(init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.length <= 10:
            raise InputError(f"a corridor of {self.length} cells was asked for, expected 2 to 10.")
        if self.limit < 1 or any(not 0 <= cell < self.length - 1 for cell in self.starts):
            raise InputError(
                f"limit={self.limit}, starts={self.starts}: expected a turn or more, and cells before the last."
            )
        tasks = tuple(Task(self.prompt_at(cell), None, "corridor", {"start": cell}) for cell in self.starts)
        # A corridor has few tasks and all of them are trained on: nothing is held out.
        self.source = Source("corridor", tasks, (), "none")

    def prompt_at(self, cell: int) -> str:
        """What the policy reads in a cell."""
        return self.prompt.replace("{position}", str(cell)).replace("{goal}", str(self.length - 1))

    def world(self, task: Task) -> CorridorWorld:
        return CorridorWorld(self, int(task.metadata["start"]))


class CorridorWorld:
    """One walk."""

    def __init__(self, corridor: Corridor, start: int) -> None:
        self.corridor, self.cell, self.turns = corridor, start, 0

    def begin(self) -> Observation:
        return self._observe()

    def act(self, action: str) -> Outcome:
        self.turns += 1
        move = {LEFT: -1, RIGHT: 1}.get(action.strip().rstrip("."))
        self.cell = max(self.cell + (move or 0), 0)
        if self.cell == self.corridor.length - 1:
            return Outcome(1.0, None, valid=True)
        if self.turns >= self.corridor.limit:
            return Outcome(0.0, None, valid=move is not None, truncated=True)
        return Outcome(0.0, self._observe(), valid=move is not None)

    def _observe(self) -> Observation:
        return Observation(self.corridor.prompt_at(self.cell), f"cell {self.cell}")
