"""EduAlign: helpfulness, personalization and creativity as one reward, compared within groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apportion.credit.algebra import Stage, chain
from apportion.credit.baselines import grpo
from apportion.credit.mixing import mix, weights_of
from apportion.credit.reduce import Singleton
from apportion.errors import InputError

COMPONENTS = ("helpfulness", "personalization", "creativity")
"""What the paper's reward model scores of a tutor's answer."""


def edu_align(
    components: Sequence[str] = COMPONENTS,
    weights: Sequence[float] | Mapping[str, float] | None = None,
    low: float | Mapping[str, float] = 0.0,
    high: float | Mapping[str, float] = 1.0,
    scale_within_group: bool = False,
    norm_by_std: bool = True,
    eps: float = 1e-4,
    singleton: Singleton = "zero",
) -> Stage:
    """Group-relative advantage of a weighted mean of several rewards.

        R_i = sum_d w_d (x_id - low) / (high - low) / sum_d w_d
        A_i = (R_i - mean_g R) / (std_g R + eps)

    The two stages are :func:`~apportion.credit.mixing.mix` and :func:`~apportion.credit.baselines.grpo`. How the paper
    puts its three scores together is not known: scale, weights and mean are this library's.

    Args:
        components: the rewards.
        weights: in the order of the components or by component; None: 1 each.
        low: the worst score, of all components or by component.
        high: the best.
        scale_within_group: standardise every component in its group before the mean, so that one that varies widely
            does not dominate; the same advantages where all vary alike.
        norm_by_std: divide by the group's standard deviation.
        eps: added to it, and to those of components.
        singleton: a group of one gets ``zero``, its ``raw`` reward, or is an ``error``.

    Details, of every episode: ``scaled/<component>`` and ``reward/mixed``.

    Raises:
        InputError: components, weights or a range that cannot be used, or ``raw`` with ``scale_within_group``; when
            run, a score outside of its range.

    Source: arXiv 2507.20335, from its abstract; no code found.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> pair = Rollouts.from_lists([[1], [2]], groups=[0, 0])
        >>> for name, scores in {"helpfulness": [4.0, 5.0], "creativity": [3.0, 1.0]}.items():
        ...     pair = pair.with_reward(name, torch.tensor(scores))
        >>> method = edu_align(("helpfulness", "creativity"), weights=(3, 1), low=1, high=5, norm_by_std=False)
        >>> method(pair).advantages.tolist()
        [-0.03125, 0.03125]
    """
    if scale_within_group and singleton == "raw":
        raise InputError(
            "singleton='raw' keeps the reward of a group of one, which scale_within_group has nothing to scale by: "
            "give one of the two."
        )
    mixed = mix(weights_of(components, weights), low, high, within_group=scale_within_group, eps=eps)
    return chain(mixed, grpo("mixed", norm_by_std, eps, singleton))
