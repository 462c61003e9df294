"""What a policy is asked to do: a prompt and how an answer to it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = Mapping[str, str]
"""One chat message: ``{"role": "user", "content": ...}``."""


@dataclass(frozen=True)
class Task:
    """One prompt with a checkable answer.

    Attributes:
        prompt: text, or chat messages to be rendered by the model's chat template.
        answer: the reference answer the verifier compares with; None where the verifier needs none.
        source: name of the task source; mixtures keep it, metrics are split by it.
        metadata: whatever the source's verifier needs beside the answer.
    """

    prompt: str | tuple[Message, ...]
    answer: str | None
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The prompt as plain text: what splits and duplicates are decided by."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(m["content"] for m in self.prompt)


class TaskSource(Protocol):
    """A family of tasks, already divided into train and held-out.

    Attributes:
        name: short and stable; used in metrics.
        train: tasks to learn from; no normalised prompt text is in ``held_out`` too.
        held_out: tasks to evaluate on, distinct by normalised prompt text.
        verifier: spec of the verifier these tasks are meant for; a run may name another.
    """

    name: str
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    verifier: str
