"""The gradient that credit implies, and how it stands to the exact one.

The estimate of a group of n responses is

    g = 1/n sum_i sum_t A_it grad log pi(y_t | s_t),    d log pi(a | s) / d theta[s, b] = [a = b] - pi(b | s)

over the tokens that train (by their weight, where responses branch), by the logits of a table: one an edge. No length
divides it: what an objective's normaliser adds is measured elsewhere.

Suffix legend: N tokens, G groups, R repeats (independent samples), K edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from apportion.credit import Clock, Stage
from apportion.evals.calibration.groups import Groups
from apportion.evals.calibration.tree import Tree
from apportion.evals.student import student
from apportion.rollouts import Rollouts, ragged

Fresh = Callable[[Rollouts, Tensor], Rollouts]
"""From groups as rollouts, and the leaf of every response, to the same with columns drawn anew."""

LEVEL = 0.999
"""Of all intervals: hundreds are looked at together."""

ZERO = 1e-9
"""What is smaller is rounding."""

AT = 4_000_000
"""Entries of a matrix of groups and edges that are held at a time."""

CLOCK = Clock(0, 100)
"""When methods that anneal are looked at: the beginning of a run."""


@dataclass(frozen=True)
class Interval:
    """A figure and its interval at :data:`LEVEL`; both ends are the figure where it is exact."""

    value: float
    low: float
    high: float

    def excludes(self, figure: float) -> bool:
        """Whether the interval leaves a figure out, by more than rounding."""
        return self.low > figure + ZERO or self.high < figure - ZERO


@dataclass(frozen=True)
class Measured:
    """How credit did in one world at one group size. What the world leaves undefined is None.

    Attributes:
        bias: length of the expected gradient's difference from the exact one, as a share of the exact one's length (in
            its own unit where that is 0). Where groups are sampled, along a direction found on other groups.
        turn: the part of it across the exact gradient: what no learning rate mends.
        scale: the expected gradient along the exact one, as a share of its length.
        cosine: of the expected with the exact gradient.
        variance: trace of the gradient's covariance from one response, as a multiple of the squared length of its
            expectation along the exact gradient: so many responses until noise is no longer than signal.
        correlation: of the credit of tokens that count with their exact advantage.
        sign_agreement: share of those with an exact advantage other than 0 whose credit has its sign.
        groups: how many were listed or sampled.
        listed: every group was, with its probability, so that figures are exact.
    """

    bias: Interval
    turn: Interval
    scale: Interval | None
    cosine: Interval | None
    variance: float | None
    correlation: float | None
    sign_agreement: float | None
    groups: int
    listed: bool


def group_gradients(tree: Tree, credit: Tensor, edge: Tensor, group: Tensor, groups: int, size: int) -> Tensor:
    """The gradient of every group ``[G, K]``.

    Args:
        tree: whose policy.
        credit: of every token ``[N]``, 0 where it does not train, as where the environment drew it.
        edge: of every token ``[N]``.
        group: of every token ``[N]``.
        groups: G.
        size: n.
    """
    taken = torch.zeros(groups * tree.n_edges, dtype=torch.float64)
    taken.index_add_(0, group * tree.n_edges + edge, credit / size)
    at_state = torch.zeros(groups * tree.n_states, dtype=torch.float64)
    at_state.index_add_(0, group * tree.n_states + tree.state[edge], credit / size)
    return taken.view(groups, -1) - tree.probability * at_state.view(groups, -1)[:, tree.state]


@dataclass
class _Agreement:
    """Sums over trained tokens, weighted: of credit x and exact advantage y."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    deciding: float = 0.0
    agreeing: float = 0.0

    def add(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        self.weight += float(weight.sum())
        self.x += float((weight * x).sum())
        self.y += float((weight * y).sum())
        self.xx += float((weight * x * x).sum())
        self.yy += float((weight * y * y).sum())
        self.xy += float((weight * x * y).sum())
        deciding = y.abs() > ZERO
        self.deciding += float(weight[deciding].sum())
        self.agreeing += float(weight[deciding & (x * y > 0) & (x.abs() > ZERO)].sum())

    @property
    def correlation(self) -> float | None:
        if self.weight <= 0:
            return None
        mx, my = self.x / self.weight, self.y / self.weight
        of_x, of_y = self.xx / self.weight - mx**2, self.yy / self.weight - my**2
        if of_x < ZERO**2 or of_y < ZERO**2:
            return None
        return (self.xy / self.weight - mx * my) / math.sqrt(of_x * of_y)

    @property
    def sign(self) -> float | None:
        return self.agreeing / self.deciding if self.deciding > 0 else None


def measure(
    stage: Stage,
    tree: Tree,
    leaves: Rollouts,
    groups: Groups,
    repeats: int,
    goal: Tensor | None = None,
    fresh: Fresh | None = None,
) -> Measured:
    """Credit groups and compare what comes of it with exact values.

    Args:
        stage: the method.
        tree: of the world.
        leaves: its responses, with every column the method needs.
        groups: what to credit. A method whose credit of a group depends on others is run on as many batches as there
            are repeats, and the gradient of a batch is the mean of its groups'.
        repeats: into how many independent parts sampled groups are divided.
        goal: rewards of edges ``[K]`` that the method is to maximise, where they are not the world's.
        fresh: adds columns that are drawn anew for every response.
    """
    exact = tree.values(goal)
    agreement = _Agreement()
    parts, squares = [], 0.0
    together = not stage.by_group
    step = len(groups) // repeats if together else max(1, AT // tree.n_edges)
    for start in range(0, len(groups) // step * step if together else len(groups), step):
        part = groups.part(start, min(start + step, len(groups)))
        rollouts = part.rollouts(leaves)
        if fresh is not None:
            rollouts = fresh(rollouts, part.leaf.flatten())
        credit = stage(rollouts, clock=CLOCK if stage.reads_clock else None)
        given = torch.where(credit.trained, credit.advantages.double(), 0.0)
        edge = _edges(tree, part.leaf.flatten())
        group = rollouts.group_of_episode[rollouts.episode_of_token]
        weight = part.weight[group] / part.size
        own = rollouts.trained & credit.counted
        agreement.add(given[own], exact.advantage[edge[own]], (weight * rollouts.weight)[own])
        gradients = group_gradients(tree, given * rollouts.weight, edge, group, len(part), part.divisor)
        if together:
            parts.append(gradients.mean(0, keepdim=True))
        else:
            squares += float((part.weight * (gradients**2).sum(1)).sum())
            parts.append((part.weight[:, None] * gradients).sum(0, keepdim=True) if groups.listed else gradients)
    found = torch.cat(parts)
    if together:
        members = step * groups.responses
        spread = float(found.var(0).sum())
        return _compared(found, exact.gradient, spread * members, agreement, len(groups), False)
    if groups.listed:
        mean = found.sum(0)
        spread = max(squares - float((mean**2).sum()), 0.0)
        return _compared(mean[None], exact.gradient, spread * groups.responses, agreement, len(groups), True)
    spread = max(squares - float((found.mean(0) ** 2).sum()), 0.0)
    usable = len(found) // repeats * repeats
    found = found[:usable].view(repeats, -1, tree.n_edges).mean(1)
    return _compared(found, exact.gradient, spread * groups.responses, agreement, len(groups), False)


def _edges(tree: Tree, leaf: Tensor) -> Tensor:
    return tree.path[ragged.ranges(tree.offsets[leaf], tree.offsets[leaf + 1])]


def _compared(
    found: Tensor, exact: Tensor, noise: float, agreement: _Agreement, groups: int, is_exact: bool
) -> Measured:
    """Figures from the gradients of repeats ``[R, K]``, one of them where it is exact."""
    length = float(exact.norm())
    defined = length > ZERO
    unit = length if defined else 1.0
    along = exact / unit
    error = (found - exact) / unit
    across = error - (error @ along)[:, None] * along if defined else error
    scale = cosine = variance = None
    if defined:
        share = found @ along / unit
        scale = _point(float(share)) if is_exact else mean_interval(share)
        cosine = _exact_cosine(found[0], along) if is_exact else cosine_interval(found, along)
        kept = scale.value * unit
        variance = noise / kept**2 if scale.low > ZERO else None
    return Measured(
        _point(float(error.norm())) if is_exact else crossed(error),
        _point(float(across.norm())) if is_exact else crossed(across),
        scale,
        cosine,
        variance,
        agreement.correlation,
        agreement.sign,
        groups,
        is_exact,
    )


def _point(value: float) -> Interval:
    value = 0.0 if abs(value) < ZERO else value
    return Interval(value, value, value)


def mean_interval(values: Tensor) -> Interval:
    """The mean of independent repeats ``[R]``."""
    mean = float(values.mean())
    half = student(LEVEL, len(values) - 1) * float(values.std()) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def crossed(errors: Tensor) -> Interval:
    """The length of a mean vector, from repeats ``[R, K]``, without the length that noise has.

    The first third of the repeats says where it points; the others are projected on that, so that the figure is 0 on
    average where the mean is 0, may be negative, and is never too long.
    """
    third = len(errors) // 3
    direction = errors[:third].mean(0)
    length = float(direction.norm())
    if length < ZERO:
        return _point(float(errors.mean(0).norm()))
    return mean_interval(errors[third:] @ (direction / length))


def _exact_cosine(vector: Tensor, along: Tensor) -> Interval | None:
    length = float(vector.norm())
    return _point(float(vector @ along) / length) if length > ZERO else None


def cosine_interval(found: Tensor, along: Tensor) -> Interval | None:
    """Cosine of a mean vector with a direction, from repeats ``[R, K]``.

        c = s / sqrt(s^2 + U),    U = |m|^2 - tr(C) / R

    with s the mean along the direction, m the mean across it and C the covariance of the latter, whose trace is what
    noise adds to the length of m. Where m is nothing but noise, U is a sum of squares less its mean, whose tail is that
    of a chi-square with tr(C)^2 / tr(C^2) degrees of freedom. None where the interval of s includes 0.
    """
    count = len(found)
    share = found @ along
    if not mean_interval(share).excludes(0.0):
        return None
    s = float(share.mean())
    across = found - share[:, None] * along
    mean = across.mean(0)
    rest = across - mean
    products = rest @ rest.T
    trace, squares = float(products.trace()) / (count - 1), float((products**2).sum()) / (count - 1) ** 2
    if trace < ZERO**2:
        return _point(math.copysign(1.0, s) / math.sqrt(1 + float((mean**2).sum()) / s**2))
    length = float(mean.norm())
    ratio = max((length**2 - trace / count) / s**2, 0.0)
    normal, tail = student(LEVEL, count - 1), _chi_square_tail(trace**2 / squares)
    # What the length of m itself may be wrong by, as a tangent; and what the sum of squares may, as its square.
    along_m = float(((rest @ mean) ** 2).sum()) / (count - 1) / count / length**2
    half = normal * math.sqrt(along_m + (length / s) ** 2 * float(share.var()) / count) / abs(s)
    loose = tail * math.sqrt(2 * squares) / count / s**2
    high, low = (math.sqrt(ratio) + half) ** 2 + loose, max(math.sqrt(ratio) - half, 0.0) ** 2 - loose
    ends = [math.copysign(1.0, s) / math.sqrt(1 + max(r, 0.0)) for r in (ratio, high, low)]
    return Interval(ends[0], min(ends), max(ends))


def _chi_square_tail(freedom: float) -> float:
    """Upper quantile of a chi-square at :data:`LEVEL`, in deviations from its mean, by Wilson and Hilferty."""
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    cube = 1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))
    return (freedom * cube**3 - freedom) / math.sqrt(2 * freedom)
