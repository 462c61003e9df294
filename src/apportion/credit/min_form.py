"""Scores of steps as rewards that sum to their minimum: what PURE makes of a process reward.

Suffix legend: S steps, s steps with trained tokens, E episodes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Result, Stage, Work, row_of_token, shaper
from apportion.credit.recursions import next_in_row, reverse_running_min, trained_tokens
from apportion.errors import InputError, unknown_name
from apportion.rollouts import ragged


def _soft_minimum(score_s: Tensor, offsets: Tensor, temperature: float) -> Tensor:
    row = ragged.row_of(offsets)
    low = score_s.new_full((len(offsets) - 1,), torch.inf).scatter_reduce(0, row, score_s, "amin")[row]
    weight = ((low - score_s) / temperature).exp()
    return score_s * weight / ragged.sum_rows(weight, offsets)[row]


def _minimum(score_s: Tensor, offsets: Tensor, temperature: float) -> Tensor:
    low = reverse_running_min(score_s, offsets)
    return low - next_in_row(low, offsets)


def _scores(score_s: Tensor, offsets: Tensor, temperature: float) -> Tensor:
    return score_s


TRANSFORMS = {"approx_min": _soft_minimum, "strict_min": _minimum, "sum": _scores}
"""From the scores of a row's steps to rewards whose sum from a step on is the step's return."""


def min_form(component: str = "prm", transform: str = "approx_min", temperature: float = 0.1) -> Stage:
    """Scores of an episode's steps as rewards that sum to their minimum.

        r*_j = softmax_j(-r_j / T) r_j                        approx_min: sums to min_j r_j as T goes to 0
        r*_j = m_j - m_{j+1},   m_j = min_{l >= j} r_l        strict_min: sums to m_j from j on
        r*_j = r_j                                            sum

    over the steps that have trained tokens; others get 0.

    Args:
        component: scores, one a span of some kind.
        transform: ``approx_min``, ``strict_min`` or ``sum``.
        temperature: T, of ``approx_min``.

    Details: ``transformed_reward`` of every span.

    Raises:
        InputError: an unknown transform, or a temperature that is not positive; when run, scores that are not one a
            span, or an episode with trained tokens and no step.

    Source: arXiv 2504.15275.
    """
    if transform not in TRANSFORMS:
        raise unknown_name("transform", transform, TRANSFORMS)
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}, expected more than 0.")

    bias = EXACT if transform == "sum" else Bias(Claim.BIASED, "the worst step stands in for the sum of scores")

    @shaper(needs=(f"reward/{component}",), bias=bias, by_group=True)
    def transformed(work: Work) -> Result:
        reward, lengths = work.rewards[component], ragged.lengths_of(trained_tokens(work.rollouts)[1])
        size_S, episode_S = step_sizes(work, component)
        own = size_S > 0
        steps_E = torch.bincount(episode_S[own], minlength=work.rollouts.n_episodes)
        if bool(((steps_E == 0) & (lengths > 0)).any()):
            raise InputError(
                f"an episode has no {reward.level} with trained tokens, expected at least one: segment it."
            )
        values = torch.zeros_like(reward.values)
        values[own] = TRANSFORMS[transform](reward.values[own], ragged.offsets_of(steps_E), temperature)
        return Result({component: replace(reward, values=values)}, {f"{reward.level}:transformed_reward": values})

    return transformed


def step_sizes(work: Work, component: str) -> tuple[Tensor, Tensor]:
    """How many trained tokens every span has ``[S]``, and its episode ``[S]``."""
    reward, rollouts = work.rewards[component], work.rollouts
    if reward.level not in rollouts.spans or reward.values.dim() > 1:
        raise InputError(f"reward {component!r} is not one number a span, expected scores of steps.")
    row_N = row_of_token(rollouts, reward.level)
    size_S = torch.bincount(row_N[(row_N >= 0) & rollouts.trained], minlength=len(reward.values))
    return size_S, rollouts.episode_of_response[rollouts.response_of_span[reward.level]]
