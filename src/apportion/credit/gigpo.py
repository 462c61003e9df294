"""GiGPO: attempts against attempts, and decisions against other decisions taken in the same state.

Suffix legend: N tokens, T steps (decisions), E episodes.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, estimator
from apportion.credit.decisions import on_tokens_of, step_rewards, trained_sizes
from apportion.credit.members import against_members, without_others
from apportion.credit.recursions import reverse_discounted_sum
from apportion.credit.reduce import Singleton, check_options, group_by, number_text
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError, unknown_name
from apportion.rollouts import Steps, ragged, steps

MODES = {"mean_norm": False, "mean_std_norm": True}
EPISODE_STATS = ("trajectory", "step")
DISCOUNTS = ("step", "token")


def gigpo(
    gamma: float = 0.95,
    step_weight: float = 1.0,
    mode: str = "mean_norm",
    eps: float = 1e-6,
    episode_stats: str = "trajectory",
    similarity: float | None = None,
    per: str = "step",
    component: str = "step",
    singleton: Singleton = "zero",
) -> Stage:
    """Group-in-group advantages of the decisions t of attempts i.

        G_it = sum_{k >= t} gamma^(k - t) r_ik - penalty_it            return of the step
        S_it = sum_k r_ik - penalty_it                                 score of the attempt
        A_it = (S_it - mean S) / F + step_weight (G_it - mean G) / F

    The first mean is over the group's attempts (S at their first step), or over all their steps; the second over the
    steps of the group taken in the same state, whenever and by whichever attempt, where a state seen once gives 0.
    F is 1 (``mean_norm``) or the sample standard deviation of the same values plus ``eps`` (``mean_std_norm``).
    Every trained token of a step gets its advantage.

    Args:
        gamma: discount.
        step_weight: of the comparison within states.
        mode: ``mean_norm`` or ``mean_std_norm``.
        eps: added to the standard deviation.
        episode_stats: ``trajectory`` (the paper) or ``step``, where long attempts weigh more.
        similarity: two states are the same if their texts' ``difflib`` ratio to the first of them is at least this, in
            (0, 1); attempts are then read in order. None: if they are equal.
        per: what gamma counts: a ``step``, or every trained ``token`` of the step it passes.
        component: the reward of steps; one above them is the last step's, one below is summed.
        singleton: a group of one attempt gets ``zero``, its ``raw`` score and the comparison within its own states, or
            is an ``error``.

    Needs ``steps:state_key`` (text) of the level decisions live at, see :func:`apportion.rollouts.steps`; reads
    ``steps:penalty`` where there is one, which is not discounted backwards.

    Details, of every step: ``step_returns``, ``episode_advantages``, ``step_advantages``.

    Raises:
        InputError: a setting out of range; when run, a step without a state key.

    Source: arXiv 2505.10978; langfengQ/verl-agent ``compute_gigpo_outcome_advantage``.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> pair = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> pair = pair.with_column("response:state_key", ["door", "door"])
        >>> gigpo(component="outcome")(pair).advantages.tolist()
        [1.0, -1.0]
    """
    check_options(eps, singleton)
    check_coefficient("gamma", gamma, most=1)
    check_coefficient("step_weight", step_weight)
    for name, value, known in (
        ("mode", mode, MODES),
        ("episode_stats", episode_stats, EPISODE_STATS),
        ("discount", per, DISCOUNTS),
    ):
        if value not in known:
            raise unknown_name(name, value, known)
    if similarity is not None and not 0 < similarity < 1:
        raise InputError(f"similarity is {similarity}, expected a number between 0 and 1, or None.")
    bias = Bias(Claim.BIASED, "means include the step itself and later visits of the same attempt")

    @estimator(needs=(f"reward/{component}", "steps:state_key"), bias=bias, compares_groups=True, by_group=True)
    def group_in_group(work: Work) -> Result:
        table = steps(work.rollouts)
        reward_T = step_rewards(work, component, table)
        penalty_T = torch.zeros_like(reward_T)
        if work.rollouts.has("steps:penalty"):
            penalty_T = table.column("penalty", reader="gigpo").to(reward_T)
        size_T = trained_sizes(table) if per == "token" else torch.ones_like(table.index)
        return_T = reverse_discounted_sum(reward_T, table.offsets, gamma ** size_T.to(reward_T)) - penalty_T
        score_T = ragged.sum_rows(reward_T, table.offsets)[table.episode] - penalty_T

        group_T = work.rollouts.group_of_episode[table.episode]
        state_T = states(table, group_T, similarity)
        first_T = table.index == 0 if episode_stats == "trajectory" else None
        by_std = MODES[mode]
        episode_T = against_members(score_T, group_T, first_T, norm_by_std=by_std, eps=eps, singleton=singleton)
        step_T = against_members(return_T, state_T, norm_by_std=by_std, eps=eps)

        dead_T = without_others(work, singleton)[table.episode]
        episode_T, step_T = (torch.where(dead_T, 0.0, part) for part in (episode_T, step_T))
        details = {"step_returns": return_T, "episode_advantages": episode_T, "step_advantages": step_T}
        return Result(
            on_tokens_of(table, episode_T + step_weight * step_T),
            {f"{table.level}:{name}": values for name, values in details.items()},
        )

    return group_in_group


def states(table: Steps, group_T: Tensor, similarity: float | None = None, reader: str = "gigpo") -> Tensor:
    """Number decisions by the state they were taken in ``[T]``; states of different groups are different.

    Raises:
        InputError: a decision without a state key.
    """
    keys = table.text("state_key", reader=reader)
    present = table.rollouts.columns[f"{table.level}:state_key"].present
    missing = sum(key is None for key in keys) if present is None else int((~present).sum())
    if missing:
        raise InputError(f"{missing} steps have no state key, expected one each: the environment records it.")
    if similarity is not None:
        keys = _first_alike(group_T.tolist(), [str(key) for key in keys], similarity)
    return group_by(group_T, number_text(keys).to(group_T.device))[0]


def _first_alike(groups: Sequence[int], keys: Sequence[str], similarity: float) -> tuple[str, ...]:
    """For every key, the first of its group's clusters it resembles, by that cluster's first key."""
    openers: dict[int, list[str]] = {}
    found: dict[tuple[int, str], str] = {}
    for place in zip(groups, keys, strict=True):
        if place not in found:
            group, key = place
            seen = openers.setdefault(group, [])
            alike = (o for o in seen if difflib.SequenceMatcher(None, key, o).ratio() >= similarity)
            found[place] = next(alike, key)
            if found[place] == key:
                seen.append(key)
    return tuple(found[place] for place in zip(groups, keys, strict=True))
