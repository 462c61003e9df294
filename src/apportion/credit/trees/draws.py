"""Branched responses as a tree of draws.

A *fork* is a state several continuations were drawn from: the prompt, or a place where responses branched. A *draw* is
one of those continuations up to where it forks itself, or ends: the tokens of a draw share all that is known of what
they led to. The response that was there when a fork was chosen goes on as one of its draws if the rule that chose it
looked at the prefix alone; if it looked ahead, that response is none of the fork's draws, and the fork does not divide
it.

Suffix legend: N tokens, E episodes, D draws, F forks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import Branches, Rollouts, branches_of, is_branched, ragged

BACKUPS = ("rule", "draws", "fresh", "leaves")
"""How outcomes become values of forks: by what each fork's rule looked at; as though every rule had looked at the
prefix; as though every rule had looked ahead; and the mean over leaves, for comparison."""


@dataclass(frozen=True, eq=False)
class DrawTree:
    """Draws and forks of all groups.

    Attributes:
        row: episode every draw is a part of ``[D]``.
        above: fork it was drawn at ``[D]``.
        below: fork it leads to ``[D]``; -1 where it ends.
        of_token: draw of every token ``[N]``; -1 where the token was inherited.
        into: the draw that leads to a fork ``[F]``; -1 where the fork is the prompt. Where the rule looked ahead: the
            draw that the fork lies in.
        ahead: bool ``[F]``.
        level: forks above a fork ``[F]``.
        group: of every fork ``[F]``.
        original: bool ``[D]``: it was there when its fork was chosen.
        root: fork of the prompt of every episode ``[E]``.
    """

    row: Tensor
    above: Tensor
    below: Tensor
    of_token: Tensor
    into: Tensor
    ahead: Tensor
    level: Tensor
    group: Tensor
    original: Tensor
    root: Tensor

    @property
    def n_forks(self) -> int:
        return len(self.into)

    @property
    def depth(self) -> int:
        """Levels of forks."""
        return int(self.level.max()) + 1 if len(self.level) else 0


def draw_tree(rollouts: Rollouts, backup: str = "rule") -> DrawTree:
    """The draws of rollouts; without branches every episode is one draw at its group's prompt.

    Args:
        rollouts: whole groups.
        backup: one of :data:`BACKUPS`.

    Raises:
        InputError: an unknown backup, or branches that are no trees (:func:`apportion.rollouts.branches_of`).

    Example:
        >>> pair = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0])
        >>> draw_tree(pair).of_token.tolist()
        [0, 0, 1, 1]
    """
    if backup not in BACKUPS:
        raise InputError(f"backup is {backup!r}, expected one of {', '.join(BACKUPS)}.")
    device, episodes, groups = rollouts.device, rollouts.n_episodes, rollouts.n_groups
    if is_branched(rollouts):
        branches = branches_of(rollouts)
    else:
        none = torch.zeros(episodes, dtype=torch.int64, device=device)
        branches = Branches(none - 1, none, none.bool())
    ahead = {"rule": branches.ahead, "fresh": branches.parent >= 0}.get(backup, torch.zeros_like(branches.ahead))

    child = (branches.parent >= 0).nonzero().squeeze(1)
    most = int(ragged.lengths_of(rollouts.episode_offsets).max()) + 1 if episodes else 1
    keys, of_child = torch.unique(
        (branches.parent[child] * most + branches.fork[child]) * 2 + ahead[child], return_inverse=True
    )
    parent, place, fork_ahead = keys // 2 // most, keys // 2 % most, keys % 2 == 1
    cuts = (~fork_ahead).nonzero().squeeze(1)

    root = rollouts.group_of_episode
    drawn_at = root.clone()
    drawn_at[child] = of_child + groups
    rows = torch.cat([torch.arange(episodes, device=device), parent[cuts]])
    starts = torch.cat([branches.fork, place[cuts]])
    above = torch.cat([drawn_at, cuts + groups])
    # By row and place; where a row is cut at its very beginning, what it was drawn as comes first, empty.
    order = torch.argsort(rows * most + starts, stable=True)
    row, start, above = rows[order], rollouts.episode_offsets[rows[order]] + starts[order], above[order]
    goes_on = torch.cat([row[1:] == row[:-1], row.new_zeros(1, dtype=torch.bool)])[: len(row)]
    following = torch.cat([above[1:], above.new_zeros(1)])[: len(row)]
    below = torch.where(goes_on, following, -1)

    tokens = torch.arange(rollouts.n_tokens, device=device)
    own = tokens - rollouts.episode_offsets[rollouts.episode_of_token] >= branches.fork[rollouts.episode_of_token]
    of_token = torch.where(own, torch.searchsorted(start, tokens, right=True) - 1, -1)

    inside = rollouts.episode_offsets[parent] + torch.maximum(place - 1, branches.fork[parent])
    into = torch.cat([torch.full_like(root, -1)[:groups], torch.searchsorted(start, inside, right=True) - 1])
    leads = (below >= 0).nonzero().squeeze(1)
    into[below[leads]] = leads
    return DrawTree(
        row,
        above,
        below,
        of_token,
        into,
        torch.cat([torch.zeros(groups, dtype=torch.bool, device=device), fork_ahead]),
        _levels(into, above),
        torch.cat([torch.arange(groups, device=device), root[parent]]),
        order >= episodes,
        root,
    )


def _levels(into: Tensor, above: Tensor) -> Tensor:
    """Forks above every fork."""
    level = torch.zeros_like(into)
    while len(above):
        deeper = torch.where(into >= 0, level[above[into.clamp(min=0)]] + 1, 0)
        if torch.equal(deeper, level):
            break
        level = deeper
    return level
