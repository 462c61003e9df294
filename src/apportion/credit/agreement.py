"""How far methods agree about the same tokens: correlations, signs, and where they differ most.

Every number is made of sums over groups, so a run is taken in step by step, and groups are what is drawn again for
intervals: tokens of a group share prompt, baseline and reward, and are no independent evidence.

Suffix legend: n tokens, M methods, G groups, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.errors import InputError

RESAMPLES = 1000
FEWEST = 10
"""Fewer groups than this say too little about how far other groups would differ."""
CHUNK = 1 << 22
"""Most weights of groups in resamples held at once."""
NEGLIGIBLE = 1e-12
"""A deviation below this share of the largest value is rounding of a constant."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What correlations are made of, by group.

    Attributes:
        count: tokens ``[G]``.
        mean: ``[G, M]``.
        scatter: sums of products of deviations from those means ``[G, M, M]``.
        largest: magnitude ``[M]``.
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor
    largest: Tensor


def moments(values: Tensor, group: Tensor) -> Moments:
    """Moments of values ``[n, M]``, by group ``[n]`` (0, 1, ..., none empty)."""
    n, m = values.shape
    size = int(group.max()) + 1 if n else 0
    count = torch.bincount(group, minlength=size).to(values)
    mean = values.new_zeros(size, m).index_add_(0, group, values) / count[:, None]
    apart = values - mean[group]
    scatter = values.new_zeros(size, m, m)
    for i in range(m):  # a product of methods at a time: all at once are M^2 as much as the values
        scatter[:, i].index_add_(0, group, apart * apart[:, i : i + 1])
    return Moments(count, mean, scatter, values.abs().amax(0) if n else values.new_zeros(m))


def correlations(of: Moments, weights: Tensor | None = None) -> Tensor:
    """Pearson's correlation of every two methods over all tokens.

        r_ij = S_ij / sqrt(S_ii S_jj),   S = sum_g w_g (S_g + n_g (m_g - m) (m_g - m)^T),   m = sum_g w_g n_g m_g / n

    Args:
        of: moments.
        weights: how often every group counts ``[R, G]``; None: once.

    Returns:
        ``[R, M, M]``, or ``[M, M]`` without weights; nan where one of the two does not vary.

    Example:
        >>> values = torch.tensor([[1.0, -2.0], [0.0, 0.0], [2.0, -4.0]], dtype=torch.float64)
        >>> correlations(moments(values, torch.tensor([0, 0, 1]))).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    once = weights is None
    w = of.count.new_ones(1, len(of.count)) if weights is None else weights.to(of.count)
    m = len(of.largest)
    overall = (of.count[:, None] * of.mean).sum(0) / of.count.sum()
    apart = of.mean - overall  # from near the mean of any resample, so that nothing cancels
    second = of.scatter + of.count[:, None, None] * apart[:, :, None] * apart[:, None, :]
    n = w @ of.count
    first = w @ (of.count[:, None] * apart)
    scatter = (w @ second.flatten(1)).view(len(w), m, m) - first[:, :, None] * first[:, None, :] / n[:, None, None]
    squares = scatter.diagonal(dim1=1, dim2=2).clamp(min=0)
    squares = torch.where(squares > n[:, None] * (NEGLIGIBLE * of.largest) ** 2, squares, torch.nan)
    result = (scatter / (squares[:, :, None] * squares[:, None, :]).sqrt()).clamp(-1, 1)
    return result[0] if once else result


def ranks(values: Tensor) -> Tensor:
    """Ranks of every column from 0 to 1, equal values at the middle of theirs ``[n, M]``.

    Example:
        >>> ranks(torch.tensor([[5.0], [7.0], [5.0], [9.0]])).tolist()
        [[0.25], [0.625], [0.25], [0.875]]
    """
    result = torch.empty_like(values)
    for i in range(values.shape[1]):
        _, place, count = torch.unique(values[:, i], return_inverse=True, return_counts=True)
        middle = count.cumsum(0) - count / 2
        result[:, i] = middle.to(values)[place] / len(values)
    return result


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number with its 95 % interval; nan where there is none, as there is none of fewer than ten groups.

    Attributes:
        value: ``[...]``.
        low: the 2.5th percentile of the same number over resampled groups.
        high: the 97.5th.
    """

    value: Tensor
    low: Tensor
    high: Tensor


class Agreement:
    """Takes in the credit of several methods part by part, and says how far they agree.

    Spearman's correlation is Pearson's of ranks among the tokens of a part, since an advantage is large or small beside
    others of its batch; of a single part it is the usual one, but that its intervals do not rank again.

    Args:
        methods: M.

    Example:
        >>> both = Agreement(2)
        >>> both.add(torch.tensor([[1.0, 3.0], [-1.0, 0.0]]), torch.tensor([0, 0]))
        >>> both.pearson().value[0, 1].item(), both.earning().value.tolist(), both.same_sign().value[0, 1].item()
        (1.0, [1.0, 0.5], 1.0)
    """

    def __init__(self, methods: int) -> None:
        if methods < 2:
            raise InputError(f"got {methods} methods, expected at least two to compare.")
        self.methods = methods
        self._values: list[Moments] = []
        self._ranks: list[Moments] = []
        self._squares = torch.zeros(methods, dtype=torch.float64)
        self._earning: list[Tensor] = []
        self._both: list[Tensor] = []
        self._same: list[Tensor] = []

    def add(self, values: Tensor, group: Tensor) -> None:
        """Take in a part.

        Args:
            values: the credit of tokens ``[n, M]``.
            group: of every token ``[n]``, any integers; those of other parts are other groups.
        """
        if not len(values):
            return
        values = values.double()
        group = torch.unique(group, return_inverse=True)[1]
        self._values.append(moments(values, group))
        self._ranks.append(moments(ranks(values), group))
        self._squares += (values**2).sum(0)
        sign = values.sign()
        earns = sign != 0
        both = earns[:, :, None] & earns[:, None, :]
        same = both & (sign[:, :, None] == sign[:, None, :])
        size = len(self._values[-1].count)
        for kept, flags in ((self._earning, earns), (self._both, both), (self._same, same)):
            kept.append(torch.zeros(size, *flags.shape[1:], dtype=torch.float64).index_add_(0, group, flags.double()))

    @property
    def tokens(self) -> int:
        """How many were taken in."""
        return int(sum(part.count.sum() for part in self._values))

    @property
    def groups(self) -> int:
        """How many they were of."""
        return sum(len(part.count) for part in self._values)

    def rms(self) -> Tensor:
        """Root mean square of every method's credit ``[M]``."""
        return (self._squares / max(self.tokens, 1)).sqrt()

    def pearson(self) -> Estimate:
        """Correlation of credit ``[M, M]``."""
        return self._correlated(_joined(self._values))

    def spearman(self) -> Estimate:
        """Correlation of ranks of credit within parts ``[M, M]``."""
        return self._correlated(_joined(self._ranks))

    def earning(self) -> Estimate:
        """Share of tokens with credit other than 0 ``[M]``."""
        count = torch.cat([part.count for part in self._values])[:, None].expand(-1, self.methods)
        return self._share(torch.cat(self._earning), count)

    def same_sign(self) -> Estimate:
        """Share of equal signs ``[M, M]`` among tokens to which both methods give credit; nan where there are none."""
        return self._share(torch.cat(self._same), torch.cat(self._both))

    def both(self) -> Tensor:
        """How many tokens both methods give credit to ``[M, M]``."""
        return torch.cat(self._both).sum(0)

    def _correlated(self, of: Moments) -> Estimate:
        return self._estimate(correlations(of), lambda weights: correlations(of, weights))

    def _share(self, part: Tensor, whole: Tensor) -> Estimate:
        def share(weights: Tensor) -> Tensor:
            above, below = (torch.tensordot(weights, x, dims=1) for x in (part, whole))
            return torch.where(below > 0, above / below, torch.nan)

        return self._estimate(share(part.new_ones(1, len(part)))[0], share)

    def _estimate(self, value: Tensor, of: Callable[[Tensor], Tensor]) -> Estimate:
        """A number with its interval: percentiles over resamples, none where a resample does not have the number."""
        none = torch.full_like(value, torch.nan)
        if self.groups < FEWEST:
            return Estimate(value, none, none)
        generator = torch.Generator().manual_seed(0)
        at_once = max(1, CHUNK // (self.groups * self.methods**2))
        drawn = []
        for start in range(0, RESAMPLES, at_once):
            rows = min(at_once, RESAMPLES - start)
            chosen = torch.randint(self.groups, (rows, self.groups), generator=generator)
            weights = torch.zeros(rows, self.groups, dtype=torch.float64)
            drawn.append(of(weights.scatter_add_(1, chosen, torch.ones_like(weights))))
        low, high = torch.quantile(torch.cat(drawn), torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        return Estimate(value, low, high)


def _joined(parts: list[Moments]) -> Moments:
    return Moments(
        torch.cat([part.count for part in parts]),
        torch.cat([part.mean for part in parts]),
        torch.cat([part.scatter for part in parts]),
        torch.stack([part.largest for part in parts]).amax(0),
    )


def disagreement(values: Tensor, rms: Tensor) -> Tensor:
    """How far methods are apart about every token ``[n]``: the range of what they give it, each in units of its RMS.

    A method whose credit is 0 throughout stays at 0.

    Args:
        values: ``[n, M]``.
        rms: ``[M]``.

    Example:
        >>> disagreement(torch.tensor([[2.0, -0.5, 0.0]]), torch.tensor([2.0, 0.5, 0.0])).tolist()
        [2.0]
    """
    units = standardised(values, rms)
    return units.amax(1) - units.amin(1)


def standardised(values: Tensor, rms: Tensor) -> Tensor:
    """Values ``[n, M]`` in units of ``rms`` ``[M]``; 0 where that is 0."""
    return torch.where(rms > 0, values / torch.where(rms > 0, rms, 1.0), 0.0)
