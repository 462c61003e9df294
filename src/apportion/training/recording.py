"""What a run stores beside the log-probs of its tokens: ``--record entropy,top5,after``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.errors import unknown_name
from apportion.models.statistics import STATISTICS
from apportion.sampling.engine import columns_of, is_recorded

AFTER = "after"
"""The log-probs that the tokens have after the update, as ``log_probs/after``."""


@dataclass(frozen=True)
class Recording:
    """What to store, by who makes it.

    Attributes:
        statistics: of the policy before the update.
        sampled: of the distributions that tokens were drawn from, as the sampler names them.
        after: whether to measure the log-probs again after the update.
    """

    statistics: tuple[str, ...]
    sampled: tuple[str, ...]
    after: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that sampling makes for it."""
        return tuple(f"{name}/behaviour" for name in columns_of(self.sampled))


def recording(names: Sequence[str]) -> Recording:
    """Read the setting ``record``.

    Args:
        names: statistics of the policy; ``top5`` or with another number, the likeliest tokens when a token was
            sampled; ``after``. Several may be joined with commas.

    Raises:
        InputError: one of them is unknown.

    Example:
        >>> recording(["entropy,top5", "after"])
        Recording(statistics=('entropy',), sampled=('top5',), after=True)
    """
    wanted = list(dict.fromkeys(name for given in names for name in given.split(",") if name))
    for name in wanted:
        if name not in STATISTICS and name != AFTER and not is_recorded(name):
            raise unknown_name("policy statistic", name, [*STATISTICS, "top5", AFTER])
    statistics = tuple(name for name in wanted if name in STATISTICS)
    sampled = tuple(name for name in wanted if name not in STATISTICS and name != AFTER)
    return Recording(statistics, sampled, AFTER in wanted)
