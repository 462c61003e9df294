"""CALM: subgoals that a judge saw achieved end options, and every end pays.

Suffix legend: N tokens, T steps (decisions), G subgoals, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Result, Reward, Stage, Work, chain, shaper
from apportion.credit.decisions import step_rewards
from apportion.credit.recursions import count_before, next_in_row, states_before
from apportion.credit.reduce import Singleton
from apportion.credit.shaping import check_coefficient
from apportion.credit.step_returns import step_relative
from apportion.errors import InputError
from apportion.rollouts import steps

SHAPED = "shaped"
"""The reward that subgoals are added to."""


def calm(
    component: str = "step",
    verdicts: str = "subgoals",
    bonus: float = 0.1,
    gamma: float = 0.99,
    once: bool = True,
    ordered: bool = False,
    potential: bool = False,
    place: str = "turn",
    singleton: Singleton = "zero",
) -> Stage:
    """Returns of rewards with a bonus for every subgoal achieved, against those of other attempts.

        r'_t = r_t + bonus n_t                                             n_t: subgoals that end at decision t
        r'_t = r_t + gamma Phi_{t+1} - Phi_t,   Phi_t = bonus sum_{k < t} n_k        potential
        G_t  = r'_t + gamma G_{t+1}
        A_it = G_it - mean_{j != i} G_jt

    with Phi 0 after the last decision, so that the potential leaves every policy's task return as it is, provided that
    a verdict knows nothing of later decisions. The two stages are :func:`subgoals` and
    :func:`~apportion.credit.step_returns.step_relative`. The paper defines returns only: which subgoals are
    eligible, the potential, the bonus and the mean over the other attempts still acting at turn t are this library's.

    Args:
        component: the task's reward.
        verdicts: whether decisions achieved subgoals, ``[T, G]`` of 1 and 0; one without a verdict did not.
        bonus: what a subgoal pays; the default is a tenth of a task that pays 1.
        gamma: discount a decision.
        once: a subgoal pays at most once an episode.
        ordered: only the subgoal after the last achieved can be, one a decision; without ``once`` the first comes after
            the last.
        potential: shape with differences of a potential in place of bonuses, which can be farmed.
        place: what decisions are compared: ``turn`` or ``state``, see
            :data:`~apportion.credit.step_returns.PLACES`.
        singleton: a group of one attempt gets ``zero``, its ``raw`` returns, or is an ``error``.

    Details, of every decision: ``terminations`` ``[T, G]``, ``shaped_rewards``, ``step_returns``.

    Raises:
        InputError: a setting out of range; when run, verdicts that are not 0 or 1, or not of decisions.

    Source: arXiv 2409.12798; no code found.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> one = Rollouts.from_lists([[1]] * 4, groups=[0] * 4, rewards=[1.0], episodes=[0] * 4)
        >>> verdicts = torch.tensor([[0, 0], [1, 0], [1, 0], [0, 1]])
        >>> one = one.with_reward("subgoals", verdicts, level="response")
        >>> calm("outcome", bonus=0.5, gamma=0.5, singleton="raw")(one).advantages.tolist()
        [0.4375, 0.875, 0.75, 1.5]
    """
    shaped = subgoals(component, verdicts, bonus, gamma, once, ordered, potential)
    return chain(shaped, step_relative(SHAPED, gamma, place, singleton=singleton))


def subgoals(
    component: str = "step",
    verdicts: str = "subgoals",
    bonus: float = 0.1,
    gamma: float = 0.99,
    once: bool = True,
    ordered: bool = False,
    potential: bool = False,
) -> Stage:
    """A reward of decisions with what their subgoals pay, as component ``shaped``; see :func:`calm`.

    Args:
        component: the task's reward.
        verdicts: whether decisions achieved subgoals.
        bonus: what a subgoal pays.
        gamma: discount, of the potential.
        once: a subgoal pays at most once an episode.
        ordered: only one after the other.
        potential: differences of a potential in place of bonuses.
    """
    check_coefficient("bonus", bonus)
    check_coefficient("gamma", gamma, most=1)
    farmed = Bias(Claim.BIASED, "subgoals are paid beside the task's reward, whether or not they serve it")
    discounted = Bias(Claim.BIASED, f"the potential adds up to nothing under returns discounted by {gamma:g} alone")

    @shaper(
        needs=(f"reward/{component}", f"reward/{verdicts}"),
        bias=EXACT if not bonus or (potential and gamma == 1) else discounted if potential else farmed,
        sees_unknown=(verdicts,),
        makes=(f"reward/{SHAPED}",),
        by_group=True,
    )
    def paid(work: Work) -> Result:
        table = steps(work.rollouts)
        achieved_TG = _achieved(work.rewards[verdicts], verdicts, table.level)
        ends_TG = TERMINATIONS[once, ordered](achieved_TG, table.offsets)
        ends_T = ends_TG.long().sum(1)
        pay_T = bonus * ends_T.to(work.advantages.dtype)
        if potential:
            phi_T = bonus * count_before(ends_T, table.offsets).to(work.advantages.dtype)
            pay_T = gamma * next_in_row(phi_T, table.offsets) - phi_T
        shaped_T = step_rewards(work, component, table) + pay_T
        details = {"terminations": ends_TG, "shaped_rewards": shaped_T}
        known_T = torch.ones_like(shaped_T, dtype=torch.bool)
        return Result(
            {SHAPED: Reward(table.level, shaped_T, known_T)},
            {f"{table.level}:{name}": values for name, values in details.items()},
        )

    return paid


def _achieved(reward: Reward, name: str, level: str) -> Tensor:
    """Verdicts as bool ``[T, G]``; what has no verdict was not achieved."""
    if reward.level != level:
        raise InputError(
            f"verdicts {name!r} are one a {reward.level}, expected one row a {level}: ask about every decision."
        )
    values = reward.values if reward.values.dim() == 2 else reward.values[:, None]
    known = reward.scored.reshape(values.shape)
    if bool((known & (values != 0) & (values != 1)).any()):
        raise InputError(f"verdicts {name!r} hold other numbers than 1 (achieved) and 0 (not), expected those alone.")
    return known & (values == 1)


def _whenever(achieved_TG: Tensor, offsets: Tensor) -> Tensor:
    return achieved_TG


def _first(achieved_TG: Tensor, offsets: Tensor) -> Tensor:
    return achieved_TG & (count_before(achieved_TG.long(), offsets) == 0)


def _in_order(achieved_TG: Tensor, offsets: Tensor) -> Tensor:
    """The subgoal whose turn it is, where achieved; state g of the automaton waits for subgoal g, G for none."""
    return _automaton(achieved_TG, offsets, wraps=False)


def _round_and_round(achieved_TG: Tensor, offsets: Tensor) -> Tensor:
    return _automaton(achieved_TG, offsets, wraps=True)


def _automaton(achieved_TG: Tensor, offsets: Tensor, wraps: bool) -> Tensor:
    count = achieved_TG.shape[1]
    if not count:
        return achieved_TG
    waits_K = torch.arange(count if wraps else count + 1, device=achieved_TG.device)
    passed_TK = achieved_TG if wraps else torch.cat([achieved_TG, achieved_TG.new_zeros(len(achieved_TG), 1)], 1)
    active_T = states_before(torch.where(passed_TK, (waits_K + 1) % len(waits_K), waits_K), offsets)
    return achieved_TG & (active_T[:, None] == waits_K[:count])


TERMINATIONS: dict[tuple[bool, bool], Callable[[Tensor, Tensor], Tensor]] = {
    (False, False): _whenever,
    (True, False): _first,
    (True, True): _in_order,
    (False, True): _round_and_round,
}
"""Which achievements end an option ``[T, G]``, by ``once`` and ``ordered``."""
