"""Something that makes columns between sampling and credit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apportion.rollouts import Rollouts


@dataclass(frozen=True, eq=False)
class Annotator:
    """A maker of columns.

    Attributes:
        apply: ``(rollouts, policy) -> rollouts`` with the new columns; the policy as it is before the update.
        makes: full names of the columns (and ``reward/<component>`` without a level), so that a run can tell before it
            begins whether a method will find what it needs.
    """

    apply: Callable[[Rollouts, Any], Rollouts]
    makes: tuple[str, ...]
