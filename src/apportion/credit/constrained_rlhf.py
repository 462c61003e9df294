"""Constrained RLHF: several rewards, each held at its own threshold by a Lagrange multiplier that learns.

Suffix legend: N tokens, n trained tokens, E episodes, K constraints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.credit import lagrange
from apportion.credit.algebra import EXACT, Bias, Claim, Clock, Result, Reward, Stage, Work, estimator, shaper
from apportion.credit.divergence import check_estimator
from apportion.credit.gae import bias_of_gae, critic_values, generalised_advantages
from apportion.credit.lagrange import CONSTRAINTS
from apportion.credit.mixing import weighted_sum, weights_of
from apportion.credit.recursions import on_tokens, reverse_discounted_sum, trained_tokens
from apportion.credit.reduce import relative
from apportion.credit.shaping import KL_NEEDS, check_coefficient, kl_of_tokens
from apportion.errors import InputError, unknown_name
from apportion.rollouts import ragged

KL = "kl"
"""Name of the task's own reward, minus the divergence from the reference policy, and of its value head."""

_WHITEN_EPS = 1e-8


def constrained_rlhf(
    components: Sequence[str] = ("outcome",),
    thresholds: Sequence[float] = (0.5,),
    constraint: str = "lower_bound",
    gamma: float = 0.99,
    lam: float = 0.95,
    kl_coefficient: float = 0.2,
    kl_estimator: str = "k1",
    weights: Sequence[float] | None = None,
    lagrange_lr: float = 0.1,
    momentum: float = 0.1,
    max_grad_norm: float = 0.5,
    start: float = 0.0,
    squash: bool = True,
    whiten: bool = True,
    per_response: bool = False,
) -> Stage:
    """Stay close to the reference policy while every reward's value v_i reaches its threshold.

        max v_0   subject to   v_i >= theta_i  (lower_bound, mu-PPO)   or   v_i = theta_i  (equality, xi-PPO)
        A_t = (K - sum_i m_i) A_0t + sum_i m_i A_it,    m_i = sigmoid(raw_i)   or   tanh(raw_i)

    where A_0 is the generalised advantage of the reward ``-kl_coefficient kl_t``, and A_i that of component i, each
    with a critic of its own and each standardised over the batch. The multipliers then take one step down

        sum_i m_i (mean_t G_it - theta_i),    G_it = r_it + G_i,t+1 within the episode

    by :func:`~apportion.credit.lagrange.dual_step`, so a reward above its threshold loses weight, with ``equality``
    until it is pushed down. Advantages use the multipliers from before the step; there is one step a call.

    ``upper_bound`` (All-PPO) maximises the rewards themselves without exceeding thresholds and reads no divergence:
    ``A_t = (K - sum_i m_i) sum_i w_i A_it - sum_i m_i A_it``, multipliers rising with what is above. It is inferred
    from the paper's text; the authors' code has none.

    Args:
        components: the K rewards.
        thresholds: theta, in their order.
        constraint: ``lower_bound``, ``equality`` or ``upper_bound``.
        gamma: discount a token.
        lam: 0 trusts the critics, 1 the rewards.
        kl_coefficient: of the divergence from the reference policy, the task's reward. Advantages are standardised, so
            with ``whiten`` it scales what the critic of ``kl`` learns and nothing else.
        kl_estimator: how that divergence is estimated.
        weights: of the components with ``upper_bound``; None: 1 each.
        lagrange_lr: learning rate of the raw multipliers.
        momentum: of their SGD.
        max_grad_norm: largest norm of their gradient, all together.
        start: their first raw value. The authors draw one for all from a normal of deviation 0.01.
        squash: False: multipliers as they are, at least 0 for bounds, and ``A_0 + sum_i m_i A_i``.
        whiten: standardise A_0 and every A_i over the batch's trained tokens.
        per_response: G is one number an episode, its whole reward; otherwise one a token, so that long episodes weigh
            more, as in the authors' code.

    Needs ``values/<component>`` and ``values/kl`` of K + 1 critics, each of which regresses its own returns:
    ``critic(head='outcome', returns='returns/outcome')``.

    Details: ``returns/<head>``, ``raw_advantages/<head>`` before they are standardised, ``rewards_to_go/<component>``,
    and ``episode:multipliers`` ``[E, K]``, the same for all.

    The state is the raw multipliers and their momentum.

    Raises:
        InputError: settings that do not go together or are out of range; when run with ``whiten``, one trained token.

    Source: arXiv 2310.04373; tedmoskovitz/ConstrainedRL4LMs.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> one = Rollouts.from_lists([[1, 2]], groups=[0], rewards=[1.0])
        >>> for name, log_prob in {"log_probs/old": -0.5, "log_probs/reference": -1.0}.items():
        ...     one = one.with_column(name, torch.full((2,), log_prob))
        >>> for head in ("outcome", "kl"):
        ...     one = one.with_column(f"values/{head}", torch.zeros(2))
        >>> method = constrained_rlhf(gamma=1.0, lam=1.0, kl_coefficient=1.0, whiten=False)
        >>> credit = method(one)
        >>> credit.advantages.tolist()  # half the reward to go, half the divergence to go
        [0.0, 0.25]
        >>> method(one, credit.state).columns["episode:credit/multipliers"].tensor.item() < 0.5
        True
    """
    if constraint not in CONSTRAINTS:
        raise unknown_name("constraint", constraint, CONSTRAINTS)
    theta = _checked_thresholds(components, thresholds)
    bound = CONSTRAINTS[constraint]
    task_is_kl = bound.sign > 0
    if weights is not None and task_is_kl:
        raise InputError(
            f"weights are given with constraint {constraint!r}, whose task is the divergence alone: leave them out."
        )
    weight_of = weights_of(components, weights)
    if KL in components:
        raise InputError(f"a component is called {KL!r}, which is the name of the task's own reward: rename it.")
    check_estimator(kl_estimator)
    check_coefficient("gamma", gamma, most=1)
    check_coefficient("lam", lam, most=1)
    check_coefficient("momentum", momentum, most=1)
    check_coefficient("lagrange_lr", lagrange_lr)
    for name, value in (("kl_coefficient", kl_coefficient), ("max_grad_norm", max_grad_norm)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} is {value}, expected more than 0.")
    if not math.isfinite(start):
        raise InputError(f"start is {start}, expected a finite number.")
    squashing = bound.squashed if squash else bound.plain
    heads = (*components, KL) if task_is_kl else tuple(components)

    @estimator(
        needs=(
            *(f"reward/{name}" for name in components),
            *(f"values/{head}" for head in heads),
            *(KL_NEEDS if task_is_kl else ()),
        ),
        bias=_bias(gamma, lam, whiten, kl_estimator if task_is_kl else "k1"),
        init=lambda: lagrange.fresh(len(theta), start),
        makes=tuple(f"credit/returns/{head}" for head in heads),
    )
    def constrained(work: Work, state: lagrange.Multipliers, clock: Clock | None) -> Result:
        rollouts, dtype = work.rollouts, work.advantages.dtype
        tokens, offsets = trained_tokens(rollouts)
        rewards = {name: work.down(name)[tokens] for name in components}
        to_go = {name: reverse_discounted_sum(reward, offsets) for name, reward in rewards.items()}
        if task_is_kl:
            rewards[KL] = -kl_coefficient * kl_of_tokens(work, kl_estimator)[tokens]

        advantages: dict[str, Tensor] = {}
        details = {f"rewards_to_go/{name}": total for name, total in to_go.items()}
        for head, reward in rewards.items():
            value, end = critic_values(work, head, tokens, reader="constrained_rlhf")
            raw = generalised_advantages(reward, value, end, offsets, gamma, lam)
            details |= {f"returns/{head}": raw + value, f"raw_advantages/{head}": raw}
            advantages[head] = _standardised(raw) if whiten else raw

        multiplier_K = squashing.squash(state["raw"])
        by_name = {name: bound.sign * m for name, m in zip(components, multiplier_K.tolist(), strict=True)}
        task = advantages[KL] if task_is_kl else weighted_sum(advantages, weight_of)
        share = len(theta) - float(multiplier_K.sum()) if squashing.bounded else 1.0
        mixed = share * task + weighted_sum({name: advantages[name] for name in components}, by_name)

        if len(tokens):
            firsts = offsets[:-1][ragged.lengths_of(offsets) > 0]
            mean_K = torch.stack([(g[firsts] if per_response else g).mean() for g in to_go.values()]).cpu().double()
            slope_K = bound.sign * squashing.slope(multiplier_K) * (mean_K - theta)
            state = lagrange.dual_step(state, slope_K, lagrange_lr, momentum, max_grad_norm)
            state = {**state, "raw": squashing.feasible(state["raw"])}
        on = {name: on_tokens(values, tokens, rollouts.n_tokens) for name, values in details.items()}
        shown = multiplier_K.to(rollouts.device, dtype).expand(rollouts.n_episodes, -1)
        return Result(on_tokens(mixed, tokens, rollouts.n_tokens), {**on, "episode:multipliers": shown.clone()}, state)

    return constrained


def saturated(
    components: Sequence[str],
    thresholds: Sequence[float],
    weights: Sequence[float] | Mapping[str, float] | None = None,
    into: str = "saturated",
) -> Stage:
    """One reward that is best where every component is at its threshold (PPO-SAT).

        R = -sum_i w_i (r_i - theta_i)^2

    Args:
        components: rewards of episodes, or below them.
        thresholds: theta, in their order.
        weights: in their order or by component; None: 1 each.
        into: the component to make, for the stages that follow.

    Details, of every episode: ``reward/<into>``.

    Raises:
        InputError: thresholds or weights of others than the components.

    Source: arXiv 2310.04373.

    Example:
        >>> from apportion import credit
        >>> from apportion.rollouts import Rollouts
        >>> pair = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.5])
        >>> method = credit.chain(saturated(["outcome"], [0.5]), credit.METHODS["rloo"]("saturated"))
        >>> method(pair).advantages.tolist()
        [-0.25, 0.25]
    """
    theta = _checked_thresholds(components, thresholds).tolist()
    weight_of = weights_of(components, weights)
    bias = Bias(Claim.BIASED, "a squared distance from thresholds stands in for the rewards")

    @shaper(needs=tuple(f"reward/{name}" for name in components), bias=bias, makes=(f"reward/{into}",))
    def at_thresholds(work: Work) -> Result:
        missed = {name: -((work.up(name) - at) ** 2) for name, at in zip(components, theta, strict=True)}
        value_E = weighted_sum(missed, weight_of)
        reward = Reward("episode", value_E, torch.ones_like(value_E, dtype=torch.bool))
        return Result({into: reward}, {f"episode:reward/{into}": value_E})

    return at_thresholds


def _checked_thresholds(components: Sequence[str], thresholds: Any) -> Tensor:
    given = list(thresholds) if isinstance(thresholds, Sequence) else [thresholds]
    if isinstance(components, str) or len(given) != len(components):
        count = 1 if isinstance(components, str) else len(components)
        raise InputError(
            f"got {len(given)} thresholds for {count} components, expected lists of one each, as in "
            "components=('outcome', 'prm'), thresholds=(0.5, 0.9)."
        )
    if not all(math.isfinite(threshold) for threshold in given):
        raise InputError(f"thresholds are {given}, expected finite numbers.")
    return torch.tensor(given, dtype=torch.float64)


def _standardised(values: Tensor) -> Tensor:
    """Minus the batch's mean, divided by its sample standard deviation; a constant gives 0."""
    if len(values) == 1:
        raise InputError("got 1 trained token to standardise over, expected at least 2: pass whiten=False.")
    return relative(values, torch.zeros_like(values, dtype=torch.int64), norm_by_std=True, eps=_WHITEN_EPS)


def _bias(gamma: float, lam: float, whiten: bool, kl_estimator: str) -> Bias:
    if gamma == lam == 1 and whiten:
        return Bias(Claim.BIASED, "every reward is divided by its own deviation, so multipliers are not its weight")
    if gamma == lam == 1 and kl_estimator != "k1":
        return Bias(Claim.BIASED, f"{kl_estimator} in the reward does not have the gradient of the divergence")
    return EXACT if gamma == lam == 1 else bias_of_gae(gamma, lam, whiten)
