"""PURE: a response is worth its worst step, so a step's return is the minimum of its score and those that follow.

Suffix legend: N tokens, n trained tokens, S steps, s steps with trained tokens, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from apportion.credit import recursions
from apportion.credit.algebra import (
    Bias,
    Claim,
    Result,
    Stage,
    Work,
    chain,
    estimator,
    last_of_row,
    row_of_token,
    shaper,
)
from apportion.credit.divergence import check_estimator
from apportion.credit.members import without_others
from apportion.credit.recursions import on_tokens, reverse_discounted_sum, trained_tokens
from apportion.credit.reduce import Singleton, check_options, statistics
from apportion.credit.shaping import KL_NEEDS, check_coefficient, kl_of_tokens
from apportion.errors import InputError, unknown_name
from apportion.rollouts import ragged


def _soft_minimum(score_s: Tensor, offsets: Tensor, temperature: float) -> Tensor:
    row = ragged.row_of(offsets)
    low = score_s.new_full((len(offsets) - 1,), torch.inf).scatter_reduce(0, row, score_s, "amin")[row]
    weight = ((low - score_s) / temperature).exp()
    return score_s * weight / ragged.sum_rows(weight, offsets)[row]


def _minimum(score_s: Tensor, offsets: Tensor, temperature: float) -> Tensor:
    low = recursions.reverse_running_min(score_s, offsets)
    return low - recursions.next_in_row(low, offsets)


def _scores(score_s: Tensor, offsets: Tensor, temperature: float) -> Tensor:
    return score_s


TRANSFORMS = {"approx_min": _soft_minimum, "strict_min": _minimum, "sum": _scores}
"""From the scores of a row's steps to rewards whose sum from a step on is the step's return."""

BASELINES = ("max_len", "tokens", "steps")


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

    @shaper(needs=(f"reward/{component}",))
    def transformed(work: Work) -> Result:
        reward, lengths = work.rewards[component], ragged.lengths_of(trained_tokens(work.rollouts)[1])
        size_S, episode_S = _steps(work, component)
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


def _steps(work: Work, component: str) -> tuple[Tensor, Tensor]:
    """How many trained tokens every span has ``[S]``, and its episode ``[S]``."""
    reward, rollouts = work.rewards[component], work.rollouts
    if reward.level not in rollouts.spans or reward.values.dim() > 1:
        raise InputError(f"reward {component!r} is not one number a span, expected scores of steps.")
    row_N = row_of_token(rollouts, reward.level)
    size_S = torch.bincount(row_N[(row_N >= 0) & rollouts.trained], minlength=len(reward.values))
    return size_S, rollouts.episode_of_response[rollouts.response_of_span[reward.level]]


def pure(
    component: str = "prm",
    verifiable: str | None = "outcome",
    transform: str = "approx_min",
    temperature: float = 0.1,
    baseline: str = "max_len",
    max_response_length: int | None = None,
    vr_coef: float = 1.0,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    whiten: bool = True,
    zero_step_ends: bool = False,
    singleton: Singleton = "zero",
) -> Stage:
    """Min-form credit: returns of transformed step scores r*, see :func:`min_form`, against the rest of the group.

        u_t = [t ends step j] r*_j + [t is the last token] vr_coef v - kl_coef kl_t
        G_t = u_t + G_{t+1}
        A_t = G_t - mean_{k != i} (sum_t G_kt) / N            max_len: over other episodes k, N the longest allowed

    over the trained tokens of the episode. The other baselines are subtracted from u, with R_k = sum_j r*_kj: at the
    end of every step ``tokens`` (tokens of the step - 1) * mean R_k / mean length_k, or ``steps`` mean
    (R_k / number of steps_k), which is hacked towards few steps; and from vr_coef v its mean.

    Args:
        component: scores, one a span of some kind.
        verifiable: the reward v; None: scores alone.
        transform: how scores become rewards (the card's ``credit``).
        temperature: of ``approx_min``.
        baseline: ``max_len``, ``tokens`` or ``steps``.
        max_response_length: N, in trained tokens; None: the longest episode of the batch.
        vr_coef: of the verifiable reward.
        kl_coef: of the divergence from the reference policy; 0: log-probs are not read.
        kl_estimator: how that is estimated.
        whiten: over the batch's trained tokens.
        zero_step_ends: no advantage at the last token of a step.
        singleton: a group of one gets ``zero``, its ``raw`` returns, or is an ``error``.

    Details: ``transformed_reward`` of every step.

    Raises:
        InputError: a setting out of range; when run, an episode longer than ``max_response_length``.

    Source: arXiv 2504.15275; CJReinforce/PURE, branches verl (``max_len``) and main (``tokens``, ``steps``).
    """
    check_options(singleton=singleton)
    check_estimator(kl_estimator)
    check_coefficient("vr_coef", vr_coef)
    check_coefficient("kl_coef", kl_coef)
    if baseline not in BASELINES:
        raise unknown_name("baseline", baseline, BASELINES)
    rewards = [f"reward/{name}" for name in (component, verifiable) if name is not None]
    needs = (*rewards, *(KL_NEEDS if kl_coef else ()))
    bias = Bias(Claim.BIASED, "scores of steps, shaped so that the worst counts, stand in for the outcome")

    @estimator(needs=needs, bias=bias, compares_groups=True)
    def against_others(work: Work) -> Tensor:
        rollouts, group = work.rollouts, work.rollouts.group_of_episode
        tokens, offsets = trained_tokens(rollouts)
        length_E = ragged.lengths_of(offsets).to(work.advantages.dtype)
        longest = int(length_E.max()) if len(length_E) else 0
        limit = longest if max_response_length is None else max_response_length
        if longest > limit:
            raise InputError(f"an episode has {longest} trained tokens, expected at most max_response_length={limit}.")

        def others(values_E: Tensor) -> Tensor:
            return statistics(values_E, group, leave_one_out=True).mean

        outcome_E = torch.zeros_like(length_E) if verifiable is None else vr_coef * work.up(verifiable)
        if baseline != "max_len":
            work = _lowered(work, component, baseline, length_E, others)
        reward_n = work.down(component)[tokens]
        if kl_coef:
            reward_n = reward_n - kl_coef * kl_of_tokens(work, kl_estimator)[tokens]
        episode_n = ragged.row_of(offsets)
        return_n = reverse_discounted_sum(reward_n, offsets) + outcome_E[episode_n]
        expected_E = others(outcome_E)
        if baseline == "max_len":
            expected_E = others(ragged.sum_rows(return_n, offsets)) / max(limit, 1)

        live = ~without_others(work, singleton)[episode_n]
        result_n = torch.where(live, return_n - expected_E[episode_n], 0.0)
        if whiten and bool(live.any()):
            result_n[live] = recursions.whiten(result_n[live])
        result_N = on_tokens(result_n, tokens, rollouts.n_tokens)
        if zero_step_ends:
            row_N = row_of_token(rollouts, work.rewards[component].level)
            result_N[last_of_row(row_N, (row_N >= 0) & rollouts.trained)] = 0.0
        return result_N

    return chain(min_form(component, transform, temperature), against_others)


def _lowered(work: Work, component: str, baseline: str, length_E: Tensor, others: Callable[[Tensor], Tensor]) -> Work:
    """The work with every step's reward minus what other episodes of the group earn in such a step."""
    reward = work.rewards[component]
    size_S, episode_S = _steps(work, component)
    total_E = torch.zeros_like(length_E).index_add_(0, episode_S, reward.values)
    if baseline == "tokens":
        length = others(length_E)
        a_token = others(total_E) / torch.where(length > 0, length, 1.0)
        expected_S = a_token[episode_S] * (size_S - 1).clamp(min=0)
    else:
        steps_E = torch.bincount(episode_S[size_S > 0], minlength=len(length_E))
        expected_S = others(total_E / steps_E.clamp(min=1))[episode_S]
    lowered = replace(reward, values=reward.values - expected_S)
    return replace(work, rewards={**work.rewards, component: lowered})
