"""PURE: a response is worth its worst step, so a step's return is the minimum of its score and those that follow.

Suffix legend: N tokens, n trained tokens, S steps, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from apportion.credit import recursions
from apportion.credit.algebra import Bias, Claim, Stage, Work, chain, estimator, last_of_row, row_of_token, token_filter
from apportion.credit.divergence import check_estimator
from apportion.credit.members import without_others
from apportion.credit.min_form import min_form, step_sizes
from apportion.credit.recursions import on_tokens, reverse_discounted_sum, trained_tokens
from apportion.credit.reduce import Singleton, check_options, statistics
from apportion.credit.shaping import KL_NEEDS, check_coefficient, kl_of_tokens
from apportion.errors import InputError, unknown_name
from apportion.rollouts import ragged

BASELINES = ("max_len", "tokens", "steps")


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
    """Returns of step scores that sum to their minimum, against those of the group's others.

    With r* the rewards that :func:`~apportion.credit.min_form.min_form` makes of the scores,

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
        zero_step_ends: no loss at the last token of a step, which still counts in normalisers.
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
    if max_response_length is not None and max_response_length < 1:
        raise InputError(f"max_response_length is {max_response_length}, expected 1 or more trained tokens.")
    rewards = [f"reward/{name}" for name in (component, verifiable) if name is not None]
    needs = (*rewards, *(KL_NEEDS if kl_coef else ()))
    bias = Bias(Claim.BIASED, "scores of steps, shaped so that the worst counts, stand in for the outcome")

    # Whitening looks at the whole batch, and so does the longest episode where no limit is given.
    by_group = not whiten and (baseline != "max_len" or max_response_length is not None)

    @estimator(needs=needs, bias=bias, compares_groups=True, by_group=by_group)
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
        return result_N

    filters = [_without_step_ends(component)] if zero_step_ends else []
    return chain(min_form(component, transform, temperature), against_others, *filters)


def _without_step_ends(component: str) -> Stage:
    """No loss at the last token of a step, a separator that any step ends with; it still counts in normalisers."""

    bias = Bias(Claim.BIASED, "the choice to end a step is not trained")

    @token_filter(needs=(f"reward/{component}",), bias=bias, by_group=True)
    def inside_steps(work: Work) -> tuple[Tensor, Tensor]:
        row_N = row_of_token(work.rollouts, work.rewards[component].level)
        return work.trained & ~last_of_row(row_N, (row_N >= 0) & work.rollouts.trained), work.counted

    return inside_steps


def _lowered(work: Work, component: str, baseline: str, length_E: Tensor, others: Callable[[Tensor], Tensor]) -> Work:
    """The work with every step's reward minus what other episodes of the group earn in such a step."""
    reward = work.rewards[component]
    size_S, episode_S = step_sizes(work, component)
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
