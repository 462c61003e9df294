"""pass@k and accuracy with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from apportion.errors import InputError

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts and its interval.

    Attributes:
        value: the mean.
        low: lower end of the interval.
        high: upper end.
        prompts: prompts in the mean.
        samples: known samples of these prompts.
        unknown: samples without a verdict, over all prompts; they enter neither n nor c.
        left_out: prompts with fewer than k known samples; they are no failures and not in the mean.

    Example:
        >>> print(Estimate(0.672, 0.631, 0.711, prompts=512, samples=512, unknown=0))
        0.672 [0.631, 0.711]
    """

    value: float
    low: float
    high: float
    prompts: int
    samples: int
    unknown: int
    left_out: int = 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dictionary that JSON can hold."""
        return asdict(self)


def pass_at_k(n: Sequence[int] | np.ndarray, c: Sequence[int] | np.ndarray, k: int) -> np.ndarray:
    r"""Unbiased estimate, for each prompt, of the chance that one of k samples is right.

    .. math:: \text{pass@}k = 1 - \binom{n-c}{k} \Big/ \binom{n}{k} = 1 - \prod_{j=0}^{k-1} \frac{n-c-j}{n-j}

    The product is taken factor by factor, so no factorial overflows. Substituting the frequency c/n into
    :math:`1 - (1 - p)^k` instead would be biased downwards.

    Args:
        n: samples drawn for each prompt.
        c: how many of them are right.
        k: how many a user would draw.

    Returns:
        One value for each prompt.

    Raises:
        InputError: k below 1 or above some n, c outside 0 ... n, or shapes that differ.

    Example:
        >>> pass_at_k([4, 4, 4], [0, 1, 3], k=2).tolist()
        [0.0, 0.5, 1.0]

    Reference: Chen et al. 2021, Evaluating Large Language Models Trained on Code, arXiv 2107.03374, equation 1.
    """
    drawn, right = _counts(n, "n"), _counts(c, "c")
    _check_k(k)
    if drawn.shape != right.shape:
        raise InputError(f"n has {drawn.size} prompts and c has {right.size}: give both for every prompt.")
    if np.any(right < 0) or np.any(right > drawn):
        raise InputError("c must lie between 0 and n for every prompt: it counts the right ones among n samples.")
    if np.any(drawn < k):
        raise InputError(f"pass@{k} needs at least {k} samples of every prompt; the fewest here is {drawn.min()}.")
    missed = np.ones(drawn.shape, dtype=np.float64)
    for j in range(k):
        missed *= np.maximum(drawn - right - j, 0) / (drawn - j)
    return 1.0 - missed


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Wilson's score interval for a proportion.

    .. math:: \frac{\hat p + z^2/2m \pm z \sqrt{\hat p (1 - \hat p)/m + z^2/4m^2}}{1 + z^2/m}

    with m trials and z the normal quantile. It stays inside [0, 1] and keeps a width where all trials agree, which the
    textbook interval does not.

    Args:
        successes: trials that succeeded.
        trials: independent trials.
        confidence: probability that the interval covers the proportion.

    Raises:
        InputError: no trials, successes outside 0 ... trials, or a confidence outside (0, 1).

    Example:
        >>> [round(end, 4) for end in wilson(8, 10)]
        [0.4902, 0.9433]

    Reference: Wilson 1927, Probable inference, the law of succession, and statistical inference, JASA 22, 209-212.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"{successes} successes in {trials} trials: expected at least one trial and 0 to all of them.")
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    p, spread = successes / trials, z * z / trials
    middle = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / trials + spread / (4 * trials)) / (1 + spread)
    # At the ends the exact values are 0 and 1; rounding must not cut them off.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == trials else middle + half)


def bootstrap(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval for the mean, prompts drawn with replacement.

    Prompts are the independent unit: samples of one prompt share its difficulty, so resampling samples would make the
    interval too narrow. Where all values agree the interval has no width; read it with the number of prompts.

    Args:
        values: one value for each prompt.
        confidence: probability that the interval covers the mean.
        resamples: bootstrap samples.
        seed: of the generator; the same seed gives the same interval.

    Raises:
        InputError: no values, values that are not finite, no resamples, or a confidence outside (0, 1).

    Example:
        >>> low, high = bootstrap([0.0, 0.5, 1.0, 1.0])
        >>> low <= 0.625 <= high
        True

    Reference: Efron 1979, Bootstrap methods: another look at the jackknife, Annals of Statistics 7, 1-26.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0 or not np.isfinite(given).all():
        raise InputError("a bootstrap needs one finite value for each of at least one prompt.")
    if resamples < 1:
        raise InputError(f"resamples={resamples} must be at least 1.")
    tail = (1 - _checked(confidence)) / 2
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // given.size)
    means = [
        given[generator.integers(given.size, size=(min(rows, resamples - start), given.size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def estimate_pass_at_k(
    scores: Sequence[Sequence[float | None]],
    k: int = 1,
    *,
    threshold: float = 1.0,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean pass@k over prompts, with an interval and what was left out.

    With one known sample of each prompt and k = 1 this is accuracy, and the interval is Wilson's; otherwise prompts are
    bootstrapped.

    Args:
        scores: for each prompt the scores of its samples; None is unknown and never counts as wrong.
        k: how many samples a user would draw.
        threshold: a sample is right if its score is at least this.
        confidence: probability that the interval covers the mean.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        InputError: k below 1, a score that is not finite, or no prompt with k known samples.

    Example:
        >>> result = estimate_pass_at_k([[1, 0, None, 0], [1, 1, 1, 0], [None, 1, None, None]], k=2)
        >>> round(result.value, 4), result.prompts, result.samples, result.unknown, result.left_out
        (0.8333, 2, 7, 4, 1)
    """
    _check_k(k)
    known = [[score for score in prompt if score is not None] for prompt in scores]
    if any(not math.isfinite(score) for prompt in known for score in prompt):
        raise InputError("scores must be finite; an unknown score is None.")
    counted = [prompt for prompt in known if len(prompt) >= k]
    unknown = sum(map(len, scores)) - sum(map(len, known))
    if not counted:
        raise InputError(
            f"none of {len(scores)} prompts has {k} known samples ({unknown} are unknown), so pass@{k} has no value: "
            "draw more samples, lower k, or see why the verifier could not decide."
        )
    n = np.array([len(prompt) for prompt in counted])
    c = np.array([sum(score >= threshold for score in prompt) for prompt in counted])
    values = pass_at_k(n, c, k)
    if k == 1 and np.all(n == 1):
        low, high = wilson(int(c.sum()), len(counted), confidence)
    else:
        low, high = bootstrap(values, confidence, resamples, seed)
    return Estimate(
        value=float(values.mean()),
        low=low,
        high=high,
        prompts=len(counted),
        samples=int(n.sum()),
        unknown=unknown,
        left_out=len(scores) - len(counted),
    )


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k={k!r} must be a whole number of samples, at least 1.")


def _counts(given: Sequence[int] | np.ndarray, name: str) -> np.ndarray:
    counts = np.asarray(given)
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"{name} must hold one whole number for each prompt, got {given!r}.")
    return counts.astype(np.int64)


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence} must lie between 0 and 1, such as 0.95.")
    return confidence
