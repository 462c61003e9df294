"""How each stage of a method made its advantages, kept while a method runs inside :func:`recording`.

Stages leave what they made among the details of the work, so it takes the way of all details: put back in place where
episodes were left out, joined where groups are credited one by one. Outside :func:`recording` nothing is kept.

Suffix legend: N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from apportion.rollouts import Column
from apportion.rollouts.columns import split_name

if TYPE_CHECKING:
    from apportion.credit.assign import Credit

PREFIX = "stages/"

_RECORDING: ContextVar[bool] = ContextVar("recording", default=False)


@dataclass(frozen=True, eq=False)
class Trace:
    """What one stage made.

    Attributes:
        stage: the name of its function.
        kind: ``shaper``, ``estimator``, ``modifier``, ``filter``, or ``sum`` of the parts of a sum.
        component: of a shaper, the reward it made; else empty.
        values: ``[N]``, the advantages after it; of a shaper, the reward of the span, response or episode that a token
            lies in. Missing where the episode was left out.
    """

    stage: str
    kind: str
    component: str
    values: Column


@contextmanager
def recording() -> Iterator[None]:
    """Keep what every stage makes, in this thread, until the end of the block.

    Example:
        >>> from apportion import credit
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> halved = credit.chain(credit.METHODS["rloo"](), credit.scale(0.5))
        >>> with recording():
        ...     given = halved(group)
        >>> [(trace.kind, trace.values.tensor.tolist()) for trace in traces(given)]
        [('estimator', [1.0, 1.0, -1.0, -1.0]), ('modifier', [0.5, 0.5, -0.5, -0.5])]
    """
    before = _RECORDING.set(True)
    try:
        yield
    finally:
        _RECORDING.reset(before)


def is_recording() -> bool:
    """Whether stages keep what they make."""
    return _RECORDING.get()


def noted(
    details: Mapping[str, Tensor], stage: str, kind: str, values: Tensor, component: str = ""
) -> dict[str, Tensor]:
    """Details with what a stage made, after those of the stages before it.

    Args:
        details: so far.
        stage: name of the function.
        kind: of the stage.
        values: ``[N]``.
        component: of a shaper.
    """
    return {**details, " ".join([f"{PREFIX}{_count(details) + 1}", kind, stage, component]).rstrip(): values}


def beside(
    details: Mapping[str, Tensor], before: Mapping[str, Tensor], part: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Details of the parts of a sum so far and of the next one, whose stages count on.

    Args:
        details: of the parts so far.
        before: what all parts began with.
        part: of the next one.
    """
    shift, joined = _count(details) - _count(before), dict(details)
    for name, values in part.items():
        if name.startswith(PREFIX) and name not in before:
            number, _, rest = name.removeprefix(PREFIX).partition(" ")
            name = f"{PREFIX}{int(number) + shift} {rest}"
        joined[name] = values
    return joined


def traces(credit: Credit) -> list[Trace]:
    """What the stages of a method made, in their order; empty where nothing was recorded.

    Args:
        credit: made inside :func:`recording`.
    """
    found: list[tuple[int, Trace]] = []
    for name, column in credit.columns.items():
        if is_stage(name):
            number, kind, stage, *component = split_name(name)[1].removeprefix(f"credit/{PREFIX}").split(" ")
            found.append((int(number), Trace(stage, kind, " ".join(component), column)))
    return [trace for _, trace in sorted(found, key=lambda numbered: numbered[0])]


def own_details(credit: Credit) -> dict[str, Column]:
    """The method's own details, without what stages recorded.

    Args:
        credit: made inside :func:`recording` or outside it.
    """
    return {name: column for name, column in credit.columns.items() if not is_stage(name)}


def is_stage(column: str) -> bool:
    """Whether a column of credit is what a stage recorded.

    Args:
        column: its name, with or without its level.
    """
    return split_name(column)[1].startswith(f"credit/{PREFIX}")


def _count(details: Mapping[str, Tensor]) -> int:
    return sum(name.startswith(PREFIX) for name in details)
