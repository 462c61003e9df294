"""Several rewards made one, by a stage of its own: what was mixed stays in the record, component by component.

Suffix legend: n rows, E episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Result, Reward, Stage, Work, shaper
from apportion.credit.reduce import check_options, relative
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError

_ROUNDING = 1e-9
"""How far beyond its range, as a share of it, a sum of scores may come to lie."""


def mix(
    weights: Mapping[str, float],
    low: float | Mapping[str, float] = 0.0,
    high: float | Mapping[str, float] = 1.0,
    into: str = "mixed",
    within_group: bool = False,
    eps: float = 1e-6,
) -> Stage:
    """A weighted mean of several rewards of episodes, each brought to one scale first.

        s_d = (x_d - low_d) / (high_d - low_d)
        s_d = (s_d - mean_g s_d) / (std_g s_d + eps)          within_group
        R   = sum_d w_d s_d / sum_d w_d

    An episode of which one reward is unknown has an unknown mixture. Within groups every reward spreads alike, so that
    one of wide range does not dominate; a reward on which the group agrees adds nothing then.

    Args:
        weights: by component, 0 or more and not all 0.
        low: what the worst score is, of all components or by component.
        high: what the best is.
        into: the component to make, for the stages that follow.
        within_group: standardise every reward among the episodes of its group.
        eps: added to that standard deviation (ddof 1).

    Details, of every episode: ``scaled/<component>``, s_d as it is mixed, and ``reward/<into>``.

    Raises:
        InputError: weights or a range that cannot be used; when run, a score outside of its range.

    Source: none for the stage itself; the mean is EduAlign's as this library has it, arXiv 2507.20335.

    Example:
        >>> import torch
        >>> from apportion import credit
        >>> from apportion.rollouts import Rollouts
        >>> pair = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> pair = pair.with_reward("style", torch.tensor([1.0, 5.0]))
        >>> method = credit.chain(
        ...     mix({"outcome": 3, "style": 1}, low={"outcome": 0, "style": 1}, high={"outcome": 1, "style": 5}),
        ...     credit.METHODS["rloo"]("mixed"),
        ... )
        >>> method(pair).advantages.tolist()
        [0.5, -0.5]
    """
    check_weights(weights)
    check_options(eps)
    ranges = {name: (_of(low, name, "low"), _of(high, name, "high")) for name in weights}
    for name, (least, most) in ranges.items():
        if not -math.inf < least < most < math.inf:
            raise InputError(f"scores of {name!r} range from {least} to {most}, expected low below high.")
    total = math.fsum(weights.values())
    bias = Bias(Claim.BIASED, "each reward is divided by its group's std, which depends on the episode itself")

    @shaper(
        needs=tuple(f"reward/{name}" for name in weights),
        bias=bias if within_group else EXACT,
        compares_groups=within_group,
        makes=(f"reward/{into}",),
        by_group=True,
    )
    def mixed(work: Work) -> Result:
        scaled = {name: _scaled(work, name, *ranges[name]) for name in weights}
        if within_group:
            group = work.rollouts.group_of_episode
            scaled = {name: relative(s, group, norm_by_std=True, eps=eps) for name, s in scaled.items()}
        value_E = weighted_sum(scaled, weights) / total
        details = {f"episode:scaled/{name}": s for name, s in scaled.items()} | {f"episode:reward/{into}": value_E}
        return Result({into: Reward("episode", value_E, torch.ones_like(value_E, dtype=torch.bool))}, details)

    return mixed


def weighted_sum(values: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """``sum_d w_d x_d`` of tensors ``[n]``."""
    return torch.stack([weights[name] * part for name, part in values.items()]).sum(0)


def min_max(values: Tensor) -> Tensor:
    """Values ``[n]`` brought to 0..1 by the smallest and the largest of them; 0 where they are all equal.

    Example:
        >>> min_max(torch.tensor([2.0, 6.0, 4.0])).tolist()
        [0.0, 1.0, 0.5]
    """
    if not len(values):
        return values
    spread = values.max() - values.min()
    return torch.where(spread > 0, (values - values.min()) / torch.where(spread > 0, spread, 1.0), 0.0)


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights of rewards that make no mean.

    Raises:
        InputError: none, a negative or infinite one, or all 0.
    """
    for name, weight in weights.items():
        check_coefficient(f"the weight of {name!r}", weight)
    if not any(weights.values()):
        raise InputError(f"got weights {dict(weights)}, expected at least one above 0.")


def weights_of(components: Sequence[str], weights: Sequence[float] | Mapping[str, float] | None) -> dict[str, float]:
    """Weights by component, from a list in the components' order, from a mapping, or 1 each.

    Raises:
        InputError: components that are not different names, or weights of others than those.

    Example:
        >>> weights_of(("goal", "knowledge"), (2, 1))
        {'goal': 2, 'knowledge': 1}
    """
    if isinstance(components, str) or not components or len(set(components)) < len(components):
        raise InputError(f"got components {components!r}, expected a list of different names of rewards.")
    if weights is None:
        weights = [1.0] * len(components)
    if not isinstance(weights, Mapping):
        if len(weights) != len(components):
            raise InputError(f"got {len(weights)} weights for {len(components)} components, expected one each.")
        weights = dict(zip(components, weights, strict=True))
    for name, weight in weights.items():
        if math.isnan(weight):
            raise InputError(f"the weight of {name!r} is {weight}, expected a number.")
    if set(weights) != set(components):
        raise InputError(f"got weights of {sorted(weights)} but components {sorted(components)}, expected the same.")
    return {name: weights[name] for name in components}


def _of(setting: float | Mapping[str, float], name: str, what: str) -> float:
    if not isinstance(setting, Mapping):
        return setting
    if name not in setting:
        raise InputError(f"{what} has no entry for {name!r}, expected one a component, or one number for all.")
    return setting[name]


def _scaled(work: Work, component: str, low: float, high: float) -> Tensor:
    """A component's score of every episode ``[E]``, as its place between the worst and the best."""
    value_E = work.up(component)
    beyond = (high - low) * _ROUNDING
    outside = (value_E < low - beyond) | (value_E > high + beyond)
    if bool(outside.any()):
        raise InputError(
            f"{int(outside.sum())} episodes have a reward {component!r} outside of {low} to {high}, such as "
            f"{float(value_E[outside][0])}: expected scores in that range; give low and high as they are."
        )
    return (value_E - low) / (high - low)
