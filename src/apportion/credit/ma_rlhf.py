"""MA-RLHF: generalised advantages of macro actions, so that a late reward has fewer decisions to go back over.

Suffix legend: N tokens, n trained tokens, S spans of kind ``macro``, m those with trained tokens, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from apportion.credit.algebra import (
    Bias,
    Claim,
    Result,
    Reward,
    Stage,
    Work,
    chain,
    estimator,
    row_of_token,
    shaper,
)
from apportion.credit.gae import critic_values, generalised_advantages
from apportion.credit.recursions import on_tokens, row_ends, trained_tokens
from apportion.credit.shaping import check_coefficient, kl_in_reward
from apportion.errors import InputError, unknown_name
from apportion.rollouts import Rollouts, ragged

KIND, SIZE = "macro", "macro:size"


def _equal(offsets: Tensor) -> Tensor:
    return 1 / ragged.lengths_of(offsets)[ragged.row_of(offsets)].double()


def _unit(offsets: Tensor) -> Tensor:
    return row_ends(offsets).double()


def _position(offsets: Tensor) -> Tensor:
    share = 1 / (1 + ragged.position_in_row(offsets)).double()
    return share / ragged.sum_rows(share, offsets)[ragged.row_of(offsets)]


VALUE_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"equal": _equal, "unit": _unit, "position": _position}
"""From offsets of the macro actions ``[m + 1]``, the share of every token ``[n]`` in the value of its macro action."""

REWARD_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sum": torch.ones_like, "mean": torch.clone}
"""From those shares ``[n]``, the share of every token's reward in the reward of its macro action."""


def ma_rlhf(
    gamma: float = 1.0,
    lam: float = 0.95,
    value_function: str = "equal",
    reward_reduce: str = "sum",
    component: str = "outcome",
    head: str = "critic",
    score_clamp: float | None = 2.5,
    kl_coefficient: float = 0.05,
    kl_estimator: str = "k1",
) -> Stage:
    """Generalised advantage estimation over macro actions: runs of trained tokens that count as one action.

        V_k     = sum_t w_kt v_t                  equal: w = 1/n_k; unit: 1 at the last; position: ~ 1/j for the j-th
        R_k     = sum_t r_t                       mean:  sum_t w_kt r_t
        delta_k = R_k + gamma V_{k+1} - V_k
        A_k     = delta_k + gamma lam A_{k+1}     of all tokens of k, which the critic is to value A_k + V_k

    over the macro actions k of an episode in order, across its responses. After the last, V is as for
    :func:`~apportion.credit.gae.gae`, and macro actions of one token each make this that method without whitening.

    Args:
        gamma: discount a macro action.
        lam: 0 trusts the critic, 1 the rewards.
        value_function: how the values of a macro action's tokens are averaged: ``equal``, ``unit`` or ``position``.
        reward_reduce: ``sum``, as the paper has it, or ``mean``: the same average as of the values, as the authors'
            code has it.
        component: the reward; one above the token stands on the last trained token of its row.
        head: which critic.
        score_clamp: the reward is cut off at plus and minus this before the divergence is subtracted; None: nowhere.
        kl_coefficient: of the divergence from the reference policy in the reward, see
            :func:`~apportion.credit.shaping.kl_in_reward`; 0: none.
        kl_estimator: how that divergence is estimated.

    Needs ``values/<head>``, and spans of kind ``macro`` that hold every trained token, with ``macro:size``, how many of
    them; annotator ``macro_actions`` marks them. ``segment_clip(unit="macro")`` is the objective of the paper, ``clip``
    that of the authors' code.

    Details: ``returns`` (what the critic regresses, ``credit/returns``), and of every macro action ``value``,
    ``reward``, ``advantage`` and ``return``.

    Raises:
        InputError: a setting out of range; when run, a trained token outside of macro actions, or other tokens
            trained than when they were marked.

    Source: arXiv 2410.02743; ernie-research/MA-RLHF, with boundaries for every response, and none twice.

    Example:
        >>> one = Rollouts.from_lists([[1, 2, 3]], groups=[0], rewards=[1.0])
        >>> one = one.with_column("values/critic", torch.tensor([0.0, 0.5, 0.5]))
        >>> one = one.with_spans("macro", torch.tensor([0, 2]), torch.tensor([2, 3]))
        >>> one = one.with_column("macro:size", torch.tensor([2, 1]))
        >>> ma_rlhf(lam=1.0, kl_coefficient=0.0)(one).advantages.tolist()
        [0.75, 0.75, 0.5]
    """
    check_coefficient("gamma", gamma, most=1)
    check_coefficient("lam", lam, most=1)
    check_coefficient("kl_coefficient", kl_coefficient)
    for name, value, known in (
        ("value_function", value_function, VALUE_FUNCTIONS),
        ("reward_reduce", reward_reduce, REWARD_REDUCTIONS),
    ):
        if value not in known:
            raise unknown_name(name, value, known)
    share_of, reduced = VALUE_FUNCTIONS[value_function], REWARD_REDUCTIONS[reward_reduce]
    bias = Bias(Claim.BIASED, "a macro action's value averages states that its own tokens led to")
    needs = (f"reward/{component}", f"values/{head}", SIZE)

    @estimator(needs=needs, bias=bias, makes=("credit/returns",), by_group=True)
    def generalised(work: Work) -> Result:
        rollouts, dtype = work.rollouts, work.advantages.dtype
        tokens, _ = trained_tokens(rollouts)
        spans, at = torch.unique_consecutive(_macro_of(rollouts, tokens), return_inverse=True)
        within = ragged.offsets_of(torch.bincount(at, minlength=len(spans)))
        share = share_of(within).to(dtype)
        value_n, end = critic_values(work, head, tokens, reader="ma_rlhf")
        value = ragged.sum_rows(share * value_n, within)
        reward = ragged.sum_rows(reduced(share) * work.down(component)[tokens], within)
        episode = rollouts.episode_of_response[rollouts.response_of_span[KIND][spans]]
        offsets = ragged.offsets_of(torch.bincount(episode, minlength=rollouts.n_episodes))
        advantage = generalised_advantages(reward, value, end, offsets, gamma, lam)
        of_macros = {"value": value, "reward": reward, "advantage": advantage, "return": advantage + value}
        rows = rollouts.rows(KIND)
        details = {f"{KIND}:{name}": on_tokens(values, spans, rows) for name, values in of_macros.items()}
        details["returns"] = on_tokens((advantage + value)[at], tokens, rollouts.n_tokens)
        return Result(on_tokens(advantage[at], tokens, rollouts.n_tokens), details)

    before = [] if score_clamp is None else [clamped(score_clamp, component)]
    before += [kl_in_reward(kl_coefficient, kl_estimator, component)] if kl_coefficient > 0 else []
    return chain(*before, generalised, bias=bias)


def clamped(most: float, component: str = "outcome") -> Stage:
    """A reward cut off at plus and minus ``most``, at the level where it lives.

    Args:
        most: 0 or more.
        component: the reward.
    """
    check_coefficient("the clamp of the score", most)
    bias = Bias(Claim.BIASED, f"rewards beyond {most:g} count as {most:g}")

    @shaper(needs=(f"reward/{component}",), bias=bias, by_group=True)
    def cut_off(work: Work) -> dict[str, Reward]:
        reward = work.rewards[component]
        return {component: Reward(reward.level, reward.values.clamp(-most, most), reward.scored)}

    return cut_off


def _macro_of(rollouts: Rollouts, tokens: Tensor) -> Tensor:
    """The macro action of every trained token ``[n]``."""
    size = rollouts.column(SIZE, reader="ma_rlhf")
    row = row_of_token(rollouts, KIND)[tokens]
    if bool((row < 0).any()) or not torch.equal(torch.bincount(row, minlength=len(size)), size.long()):
        raise InputError(
            f"macro actions hold {int(size.sum())} trained tokens by {SIZE!r}, and {int((row >= 0).sum())} of the "
            f"{len(tokens)} there are, expected every one: mark macro actions after it is known which tokens train."
        )
    return row
