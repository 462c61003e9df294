"""Returns of decisions against those of the group's other attempts at the same place.

Suffix legend: N tokens, T steps (decisions).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.algebra import EXACT, Bias, Claim, Result, Stage, Work, estimator
from apportion.credit.decisions import on_tokens_of, step_rewards
from apportion.credit.gigpo import states
from apportion.credit.members import against_members, without_others
from apportion.credit.recursions import reverse_discounted_sum
from apportion.credit.reduce import Singleton, check_options, group_by
from apportion.credit.shaping import check_coefficient
from apportion.errors import unknown_name
from apportion.rollouts import Steps, steps


@dataclass(frozen=True)
class Place:
    """What makes decisions of a group comparable.

    Attributes:
        number: ``(decisions, their groups [T]) -> [T]``, equal where they are compared.
        needs: columns it reads.
        repeats: whether one attempt may be at a place twice.
    """

    number: Callable[[Steps, Tensor], Tensor]
    needs: tuple[str, ...] = ()
    repeats: bool = False


def _turn(table: Steps, group_T: Tensor) -> Tensor:
    return group_by(group_T, table.index)[0]


def _state(table: Steps, group_T: Tensor) -> Tensor:
    return states(table, group_T, reader="a comparison of decisions by state")


PLACES = {"turn": Place(_turn), "state": Place(_state, ("steps:state_key",), repeats=True)}
"""``turn``: how many decisions came before; ``state``: the state they were taken in, whenever."""


def check_place(name: str) -> None:
    """Refuse a place that is not one of :data:`PLACES`."""
    if name not in PLACES:
        raise unknown_name("place", name, PLACES)


def step_relative(
    component: str = "step",
    gamma: float = 1.0,
    place: str = "turn",
    norm_by_std: bool = False,
    eps: float = 1e-6,
    singleton: Singleton = "zero",
    level: str | None = None,
) -> Stage:
    """Returns G of decisions t of attempts i, against those of the group at the same place p(i, t).

        G_it = sum_{k >= t} gamma^(k - t) r_ik
        A_it = G_it - mean_{(j, k) != (i, t), p(j, k) = p(i, t)} G_jk
        A_it = (G_it - mean_{p(j, k) = p(i, t)} G_jk) / (std G_jk + eps)          norm_by_std

    A decision that is alone at its place, in a group of several attempts, has nothing to be compared with: it gets its
    return, less an empty mean, or 0 with ``norm_by_std``. By turns that is exact, since whether others
    act at turn t does not depend on what the attempt does there. Every trained token of a decision gets its
    advantage.

    Args:
        component: the reward of decisions; one above them is the last one's, one below is summed.
        gamma: discount a decision. With 0 decisions are compared by their own rewards.
        place: ``turn``, how many decisions came before, or ``state``, the same state whenever it was met.
        norm_by_std: divide by the sample standard deviation, as GRPO does.
        eps: added to it.
        singleton: a group of one attempt gets ``zero``, its ``raw`` returns, or is an ``error``. With ``norm_by_std``,
            ``raw`` is also what a decision gets that is alone at its place.
        level: what the decisions are, such as the ``step`` spans of a response; None: turns, or responses.

    ``state`` needs ``steps:state_key`` of the level decisions live at, see :func:`apportion.rollouts.steps`.

    Details, of every decision: ``step_returns``.

    Raises:
        InputError: a setting out of range; when run by state, a decision without a state key.

    Source: Kool et al. 2019, applied to every turn.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> import torch
        >>> two = Rollouts.from_lists([[1], [2], [3]], groups=[0, 0, 0], episodes=[0, 0, 1])
        >>> two = two.with_reward("step", torch.tensor([0.0, 1.0, 0.5]), level="response")
        >>> step_relative()(two).advantages.tolist()
        [0.5, 1.0, -0.5]
    """
    check_options(eps, singleton)
    check_coefficient("gamma", gamma, most=1)
    check_place(place)
    where = PLACES[place]

    @estimator(
        needs=(f"reward/{component}", *where.needs),
        bias=_bias(gamma, where, norm_by_std),
        compares_groups=True,
        by_group=True,
    )
    def at_the_same_place(work: Work) -> Result:
        table = steps(work.rollouts, level)
        return_T = reverse_discounted_sum(step_rewards(work, component, table), table.offsets, gamma)
        place_T = where.number(table, work.rollouts.group_of_episode[table.episode])
        alone = singleton if norm_by_std else "raw"
        advantage_T = against_members(
            return_T, place_T, leave_one_out=not norm_by_std, norm_by_std=norm_by_std, eps=eps, singleton=alone
        )
        advantage_T = torch.where(without_others(work, singleton)[table.episode], 0.0, advantage_T)
        return Result(on_tokens_of(table, advantage_T), {f"{table.level}:step_returns": return_T})

    return at_the_same_place


def _bias(gamma: float, where: Place, norm_by_std: bool) -> Bias:
    if norm_by_std:
        return Bias(Claim.BIASED, "the std of the decisions compared weighs places, and depends on the return itself")
    if where.repeats:
        return Bias(Claim.BIASED, "an attempt that comes back to a state is compared with its own later return")
    if gamma < 1:
        return Bias(Claim.BIASED, "gamma < 1 discounts later rewards but not the decisions that earn them")
    return EXACT
