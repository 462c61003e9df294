"""Something that makes columns between sampling and credit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from apportion.errors import unknown_name
from apportion.rollouts import Rollouts

EVALUATORS = ("old", "reference")
"""The policies an annotator may look at."""


@dataclass(frozen=True, eq=False)
class Annotator:
    """A maker of columns.

    Attributes:
        apply: ``(rollouts, policy) -> rollouts`` with the new columns.
        makes: full names of the columns (and ``reward/<component>`` without a level), so that a run can tell before it
            begins whether a method will find what it needs.
        evaluator: the policy that is handed over: ``old``, as it is before the update, or the ``reference``.
        reads_policy: False where ``apply`` never looks at the policy, so that stored rollouts need none to be given.
    """

    apply: Callable[[Rollouts, Any], Rollouts]
    makes: tuple[str, ...]
    evaluator: Literal["old", "reference"] = "old"
    reads_policy: bool = True

    def __post_init__(self) -> None:
        if self.evaluator not in EVALUATORS:
            raise unknown_name("evaluator", self.evaluator, EVALUATORS)
