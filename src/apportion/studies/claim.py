"""A paper's claim as an experiment: what is measured on a seed, what would speak against it, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from apportion.errors import InputError
from apportion.evals.student import student

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"

LOOKS = (6, 20)
"""After how many seeds a verdict may be given; at the last one it must."""

LEVEL = 0.95
"""Of the verdict, shared evenly by the looks."""


@dataclass(frozen=True)
class Claim:
    """What a card's method is said to do, as a figure that is above a threshold if it does.

    Attributes:
        method: the registered name the claim is about, or the card's name where the method is a strategy.
        title: a few words that tell the claims of a card apart.
        says: the paper's claim, in one sentence.
        how: what is run and compared, in a sentence or two: the world, the control, the unit of the effect.
        against: what would count against it.
        smallest: the smallest effect that counts, in the effect's unit; stated before anything is run.
        measure: from a seed the figures of one independent repeat. ``effect`` is the one that decides, and above
            ``smallest`` speaks for the claim; the others are reported beside it. Seeds from 0 on.

    Raises:
        InputError: an empty sentence or a threshold that is not finite.

    Example:
        >>> coin = Claim("grpo", "a coin", "Heads.", "A fair coin.", "Tails.", 0.1, lambda seed: {"effect": 1.0})
        >>> coin.key
        'grpo: a coin'
    """

    method: str
    title: str
    says: str
    how: str
    against: str
    smallest: float
    measure: Callable[[int], Mapping[str, float]]

    def __post_init__(self) -> None:
        for name in ("method", "title", "says", "how", "against"):
            if not getattr(self, name).strip():
                raise InputError(f"the claim {self.method!r} has an empty {name!r}, expected a sentence.")
        if not math.isfinite(self.smallest):
            raise InputError(f"{self.key}: the smallest effect is {self.smallest}, expected a finite number.")

    @property
    def key(self) -> str:
        return f"{self.method}: {self.title}"


@dataclass(frozen=True)
class Judged:
    """A verdict and the interval it rests on, of the mean effect over ``seeds`` repeats.

    Attributes:
        verdict: one of :data:`REPRODUCED`, :data:`NOT_REPRODUCED`, :data:`INCONCLUSIVE`; None where more seeds are due.
        effect: mean over the seeds.
        low, high: of the interval.
        seeds: how many repeats.
    """

    verdict: str | None
    effect: float
    low: float
    high: float
    seeds: int


def judge(effects: Sequence[float], smallest: float) -> Judged:
    """The verdict on a claim from the effects of independent repeats.

        mean +- t_{n-1} s / sqrt(n),    at level 1 - (1 - LEVEL) / len(LOOKS)

    Reproduced if the interval lies above the smallest effect that counts, not reproduced if it lies below it, else
    open until the last of :data:`LOOKS`, where it is inconclusive. Each look spends its share of the error, so that
    looking twice does not make a false verdict likelier.

    Args:
        effects: one a seed; their number must be one of :data:`LOOKS`.
        smallest: the threshold.

    Raises:
        InputError: another number of effects, or one that is not finite.

    Example:
        >>> judge([0.5, 0.6, 0.4, 0.5, 0.6, 0.4], smallest=0.1).verdict
        'reproduced'
    """
    if len(effects) not in LOOKS:
        raise InputError(f"{len(effects)} effects were given, expected one of {LOOKS}: run the claim on more seeds.")
    if not all(math.isfinite(effect) for effect in effects):
        raise InputError(f"an effect is not finite in {list(effects)}: the claim's measure is at fault.")
    mean, count = fmean(effects), len(effects)
    half = student(1 - (1 - LEVEL) / len(LOOKS), count - 1) * stdev(effects) / math.sqrt(count)
    low, high = mean - half, mean + half
    verdict = None if count < LOOKS[-1] else INCONCLUSIVE
    if low > smallest:
        verdict = REPRODUCED
    elif high < smallest:
        verdict = NOT_REPRODUCED
    return Judged(verdict, mean, low, high, count)
