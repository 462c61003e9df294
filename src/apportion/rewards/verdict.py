"""What a verifier says: right, wrong, or unknown, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from apportion.tasks.task import Task


@dataclass(frozen=True)
class Verdict:
    """The outcome of checking one response.

    Attributes:
        score: reward in the verifier's own scale (1 right, 0 wrong, between for partial credit); None where
            the verifier could not decide (it crashed, timed out, had no reference). None is *unknown*, never 0.
        reason: one line for a person: what was compared, or what failed.
    """

    score: float | None
    reason: str = ""

    @property
    def known(self) -> bool:
        return self.score is not None


class Verifier(Protocol):
    """Checks responses; one verdict for each, in order. Must not raise: what cannot be decided is unknown."""

    def __call__(self, tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]: ...
