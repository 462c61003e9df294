"""What an agent acts in, over several turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from apportion.tasks.task import Task, TaskSource


@dataclass(frozen=True)
class Observation:
    """What the policy reads before a turn.

    Attributes:
        prompt: text of the whole prompt of this turn.
        state_key: equal for equal states, whatever led there; what anchor-state credit compares by.
    """

    prompt: str
    state_key: str


@dataclass(frozen=True)
class Outcome:
    """What an action led to.

    Attributes:
        reward: of this turn; None where it could not be decided (unknown, not 0).
        observation: what comes next; None when the episode is over.
        valid: whether the action meant anything in this environment.
        truncated: over because of a limit, not because the task ended.
    """

    reward: float | None
    observation: Observation | None
    valid: bool = True
    truncated: bool = False


class World(Protocol):
    """One episode under way."""

    def begin(self) -> Observation:
        """The first observation."""
        ...

    def act(self, action: str) -> Outcome:
        """Take an action."""
        ...


class Environment(Protocol):
    """A family of worlds, one a task.

    Attributes:
        source: the tasks, divided into train and held-out.
    """

    source: TaskSource

    def world(self, task: Task) -> World:
        """A fresh world for one attempt at a task."""
        ...
