"""What objectives over whole episodes share: sums over the trained tokens of an episode, and its reward.

An episode's trained tokens may lie in several responses; which train is the credit's word. Episodes the credit left
out because their reward is unknown have no trained token and are in no statistic.

Suffix legend: N tokens, n trained tokens, E episodes, m some of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import Reward, Work
from apportion.credit.assign import Credit
from apportion.errors import InputError, MissingColumn
from apportion.objectives.protocol import read
from apportion.rollouts import Rollouts, is_branched, ragged
from apportion.rollouts.columns import split_name
from apportion.rollouts.makers import maker_of


def trained_tokens(credit: Credit) -> Tensor:
    """Numbers of the tokens that may carry loss ``[n]``, in order."""
    return credit.trained.nonzero().squeeze(1)


def log_ratios(log_probs: Tensor, column: str, rollouts: Rollouts, credit: Credit) -> tuple[Tensor, Tensor]:
    """Trained tokens ``[n]``, and there ``log pi - column`` ``[n]``, unbounded."""
    tokens = trained_tokens(credit)
    return tokens, log_probs[tokens] - read(column, rollouts, credit)[tokens]


def sum_by_episode(values: Tensor, tokens: Tensor, rollouts: Rollouts) -> Tensor:
    """Values of some tokens ``[n]`` summed to every episode ``[E]``."""
    return values.new_zeros(rollouts.n_episodes).index_add(0, rollouts.episode_of_token[tokens], values)


def count_by_episode(tokens: Tensor, rollouts: Rollouts) -> Tensor:
    """How many of some tokens every episode has ``[E]``."""
    return torch.bincount(rollouts.episode_of_token[tokens], minlength=rollouts.n_episodes)


def refuse_branches(rollouts: Rollouts) -> None:
    """Whole episodes only: a branch does not train the prefix it shares.

    Raises:
        InputError: a response is a branch, or a token has a sampling weight, so branches were forced.
    """
    if is_branched(rollouts) or bool((rollouts.weight != 1).any()):
        raise InputError(
            "this objective needs whole responses and these rollouts have branches that share a prefix, expected "
            "none: sample without branching, or choose an objective over tokens."
        )


def rewarded(component: str, rollouts: Rollouts, credit: Credit, drop_unknown: bool = False) -> tuple[Tensor, Tensor]:
    """The episodes a reward is known of and that have a trained token ``[m]``, and their rewards ``[m]``.

    Episodes that were never asked for one (rehearsal, demonstrations) are left out.

    Args:
        component: the reward.
        rollouts: the update batch.
        credit: its credit.
        drop_unknown: leave episodes out whose reward is unknown though the credit did not.

    Raises:
        MissingColumn: there is no such reward.
        InputError: it is unknown of an episode that the credit did not leave out, or an episode without any token.
    """
    name = f"reward/{component}"
    full = rollouts.find(name)
    if full is None:
        raise MissingColumn(name, "this objective", maker_of(name))
    level, column = split_name(full)[0], rollouts.columns[full]
    values, asked = column.tensor.double(), column.present
    beside = rollouts.columns.get(f"{level}:scored/{component}")
    scored = torch.ones_like(values, dtype=torch.bool) if beside is None else beside.tensor.bool()
    if asked is None:
        asked = torch.ones(len(values), dtype=torch.bool, device=values.device)
    some = scored.any(1) if scored.dim() == 2 else scored
    given = {"reward": (values, scored), "absent": ((~asked).double(), ~asked), "unknown": ((~some).double(), ~some)}
    work = Work(
        rollouts,
        {key: Reward(level, *pair) for key, pair in given.items()},
        *(credit.advantages, credit.trained, credit.counted, credit.unknown),
    )
    known = ~credit.unknown & (work.up("absent") == 0)
    lost = known & (work.up("unknown") > 0)
    if bool(lost.any()) and not drop_unknown:
        raise InputError(
            f"{int(lost.sum())} episodes have an unknown {name!r}, expected the credit to leave them out: choose a "
            f"credit that reads it, such as none(component={component!r})."
        )
    known = known & ~lost
    if bool((known & (ragged.lengths_of(rollouts.episode_offsets) == 0)).any()):
        raise InputError("an episode has no tokens, expected at least one each: leave it out.")
    members = (known & (count_by_episode(trained_tokens(credit), rollouts) > 0)).nonzero().squeeze(1)
    return members, work.up("reward")[members]
