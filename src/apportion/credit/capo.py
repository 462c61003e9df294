"""CAPO: several critiques say which steps are wrong, they vote, and tokens of wrong steps lose a fixed penalty.

Suffix legend: N tokens, n trained tokens, S steps, k critiques, B responses, E episodes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Reward, Stage, Work, chain, estimator, shaper
from apportion.credit.recursions import on_tokens
from apportion.credit.reduce import check_options, relative
from apportion.credit.shaping import check_coefficient
from apportion.credit.verdicts import right_episodes
from apportion.errors import InputError, unknown_name


def _as_said(count: Tensor, known: Tensor) -> Tensor:
    return count


def _all(count: Tensor, known: Tensor) -> Tensor:
    return count == known


def _half(count: Tensor, known: Tensor) -> Tensor:
    return 2 * count >= known


def _any(count: Tensor, known: Tensor) -> Tensor:
    return count >= 1


def _share(count: Tensor, known: Tensor) -> Tensor:
    return count / known


VOTES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "greedy": _as_said,
    "intersection": _all,
    "majority": _half,
    "union": _any,
    "average": _share,
}
"""From how many critiques call a step wrong, and how many there are, to the weight of its penalty."""


def voted(critique: str = "critique", vote: str = "intersection") -> Stage:
    """Critiques of steps as one weight from 0 to 1 a step.

        w_s = [c_s = k] intersection,  [c_s >= k/2] majority,  [c_s >= 1] union,  c_s / k average

    with c_s of the k readable critiques calling step s wrong; ``greedy`` is a single critique taken at its word. A step
    without a readable critique has weight 0.

    Args:
        critique: reward component of spans, ``[S, k]`` (or ``[S]``): 1 where a critique calls the step wrong, else 0;
            not scored where it could not be read.
        vote: ``greedy``, ``intersection``, ``majority``, ``union`` or ``average``.

    Details: ``penalty_weight`` of every step, and ``response:uncritiqued``, the responses with steps and without any
    readable critique.

    Raises:
        InputError: an unknown vote; when run, critiques that are not of spans or are neither 0 nor 1, none at all
            (k = 0), or several with ``greedy``.

    Source: arXiv 2508.02298.
    """
    if vote not in VOTES:
        raise unknown_name("vote", vote, VOTES)

    bias = Bias(Claim.BIASED, "what critiques agree on stands in for what they say")

    @shaper(needs=(f"reward/{critique}",), bias=bias, sees_unknown=(critique,), by_group=True)
    def counted(work: Work) -> Result:
        reward, rollouts = work.rewards[critique], work.rollouts
        if reward.level not in rollouts.spans:
            raise InputError(
                f"reward {critique!r} has level {reward.level!r}, expected critiques of steps: one row a span."
            )
        wrong_Sk, scored_Sk = (t.unsqueeze(1) if t.dim() == 1 else t for t in (reward.values, reward.scored))
        wrong_Sk = torch.where(scored_Sk, wrong_Sk, 0.0)
        critiques = wrong_Sk.shape[1]
        if critiques == 0:
            raise InputError(f"reward {critique!r} has no critiques (k = 0), expected at least one a step.")
        if VOTES[vote] is _as_said and critiques > 1:
            raise InputError(f"vote 'greedy' got {critiques} critiques, expected one: ask for k=1 or choose a vote.")
        if bool(((wrong_Sk != 0) & (wrong_Sk != 1)).any()):
            raise InputError(f"reward {critique!r} has values other than 0 and 1, expected 1 where a step is wrong.")

        known_S = scored_Sk.sum(1).to(wrong_Sk.dtype)
        weight_S = VOTES[vote](wrong_Sk.sum(1), known_S).to(wrong_Sk.dtype)
        weight_S = torch.where(known_S > 0, weight_S, 0.0)

        response_S = rollouts.response_of_span[reward.level]
        steps_B = torch.bincount(response_S, minlength=rollouts.n_responses)
        known_B = known_S.new_zeros(rollouts.n_responses).index_add_(0, response_S, known_S)
        weights = Reward(reward.level, weight_S, torch.ones_like(weight_S, dtype=torch.bool))
        return Result(
            {critique: weights},
            {f"{reward.level}:penalty_weight": weight_S, "response:uncritiqued": (steps_B > 0) & (known_B == 0)},
        )

    return counted


def capo(
    vote: str = "intersection",
    w_whole: float = 2.0,
    w_process: float = 1.0,
    ddof: int = 0,
    eps: float = 1e-8,
    component: str = "outcome",
    critique: str = "critique",
) -> Stage:
    """Outcome less a penalty on the tokens of steps that critiques vote wrong, against all tokens of the group.

        R_it = w_whole r_i - w_process w_s(t)           w_s of step s by vote, 0 for tokens in no step
        A_it = (R_it - mean R) / (std R + eps)          over all trained tokens of the group: long responses weigh more

    With w_process below w_whole a right response beats a wrong one at every token. A group of one has the contrast
    within its response. A response without a readable critique counts as one without wrong steps.

    Args:
        vote: how critiques decide, see :func:`voted`: the paper finds ``intersection`` best for policies of about a
            billion parameters, ``majority`` or ``union`` for larger ones.
        w_whole: W_whole, more than 0.
        w_process: W_process, 0 or more; a warning where it is not below ``w_whole``.
        ddof: of the standard deviation.
        eps: added to it.
        component: the outcome, 0 or 1.
        critique: the critiques, see :func:`voted`.

    Details: ``token_rewards``, R; and those of :func:`voted`.

    Raises:
        InputError: a setting out of range; when run, an outcome other than 0 and 1, or critiques that cannot vote.

    Source: arXiv 2508.02298 (the authors' training code is not public).

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> two = Rollouts.from_lists([[1, 2, 3], [4]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> two = two.with_spans("step", torch.tensor([0, 1, 3]), torch.tensor([1, 3, 4]))
        >>> critiques = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
        >>> credit = capo()(two.with_reward("critique", critiques, level="step"))
        >>> credit.columns["token:credit/token_rewards"].tensor.tolist()
        [2.0, 1.0, 1.0, 0.0]
    """
    check_options(eps)
    check_coefficient("w_process", w_process)
    check_coefficient("w_whole", w_whole)
    if w_whole == 0:
        raise InputError("w_whole is 0, expected more than 0: the outcome must count.")
    if ddof not in (0, 1):
        raise InputError(f"ddof is {ddof}, expected 0 or 1.")
    if w_process >= w_whole:
        warnings.warn(
            f"w_process={w_process} is not below w_whole={w_whole}, so a wrong step of a right response is rewarded no "
            "more than a wrong response.",
            stacklevel=2,
        )
    bias = Bias(Claim.BIASED, "steps called wrong are penalised whatever came of them")

    @estimator(needs=(f"reward/{component}", f"reward/{critique}"), bias=bias, by_group=True)
    def against_tokens(work: Work) -> Result:
        rollouts = work.rollouts
        right_E = right_episodes(work, component).to(work.advantages.dtype)
        reward_N = w_whole * work.spread(right_E) - w_process * work.down(critique, where="over")
        tokens = rollouts.trained.nonzero().squeeze(1)
        group_n = rollouts.group_of_episode[rollouts.episode_of_token[tokens]]
        advantage_n = relative(reward_N[tokens], group_n, norm_by_std=True, ddof=ddof, eps=eps)
        return Result(on_tokens(advantage_n, tokens, rollouts.n_tokens), {"token_rewards": reward_N})

    return chain(voted(critique, vote), against_tokens)
