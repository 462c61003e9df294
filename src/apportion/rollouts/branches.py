"""Which responses branched from which, where.

A branch is stored whole: its first tokens are those of its parent up to the fork, untrained, and its own follow. Three
response columns say so: ``branch``, its number within its group; ``parent``, the number of the response it branched
from, and ``fork``, how many tokens it has from there, both missing of responses drawn from the prompt. ``looks`` says
what the rule that chose the fork looked at: ``prefix`` or ``ahead``.

Suffix legend: N tokens, B responses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.rollouts.model import Rollouts

LOOKS = ("prefix", "ahead")
"""What a fork rule may look at: the tokens before the fork alone, or what follows it too (later tokens, outcomes)."""


@dataclass(frozen=True, eq=False)
class Branches:
    """Who branched from whom.

    Attributes:
        parent: row of the parent of every response ``[B]``; -1 where it was drawn from the prompt.
        fork: how many tokens it has from its parent ``[B]``; 0 where it was drawn from the prompt.
        ahead: bool ``[B]``: the fork was chosen by a rule that looked at what follows it.
    """

    parent: Tensor
    fork: Tensor
    ahead: Tensor

    @property
    def depth(self) -> Tensor:
        """How many forks lie above every response ``[B]``."""
        depth, above = torch.zeros_like(self.parent), self.parent
        while bool((above >= 0).any()):
            depth = depth + (above >= 0)
            above = torch.where(above >= 0, self.parent[above.clamp(min=0)], above)
        return depth


def is_branched(rollouts: Rollouts) -> bool:
    """Whether any response is a branch, whose first tokens another response trains."""
    column = rollouts.columns.get("response:parent")
    return column is not None and (column.present is None or bool(column.present.any()))


def own_tokens(rollouts: Rollouts, branches: Branches) -> Tensor:
    """Bool ``[N]``: drawn by the response itself, not inherited."""
    return ragged.position_in_row(rollouts.token_offsets) >= branches.fork[rollouts.response_of_token]


def branches_of(rollouts: Rollouts) -> Branches:
    """Read the columns, and check that they are trees.

    Raises:
        InputError: a column is missing, two branches of a group have one number, a parent is not there, parents form a
            circle, a fork is beyond the end of a response, or an inherited token is not the parent's or is trained too.
    """
    device, count = rollouts.device, rollouts.n_responses
    none = torch.zeros(count, dtype=torch.int64, device=device)
    if not is_branched(rollouts):
        return Branches(none - 1, none, none.bool())
    if rollouts.n_episodes != count:
        raise InputError(
            f"{count} responses are in {rollouts.n_episodes} episodes and some branch from others, expected one "
            "response an episode where there are branches."
        )
    for name in ("branch", "fork"):
        if f"response:{name}" not in rollouts.columns:
            raise InputError(f"there is a column response:parent but no response:{name}, expected both: add it.")
    parent_column = rollouts.columns["response:parent"]
    given = torch.ones_like(none, dtype=torch.bool) if parent_column.present is None else parent_column.present
    branch, named = rollouts.columns["response:branch"].tensor.long(), parent_column.tensor.long()
    fork = torch.where(given, rollouts.columns["response:fork"].tensor.long(), 0)
    parent = _rows_called(rollouts, branch, named, given)
    branches = Branches(parent, fork, _ahead(rollouts, given))
    _check(rollouts, branches, given)
    return branches


def _rows_called(rollouts: Rollouts, branch: Tensor, named: Tensor, given: Tensor) -> Tensor:
    """The row every parent's number stands for ``[B]``, -1 where none is named."""
    group = rollouts.group_of_episode
    numbered = rollouts.columns["response:branch"].present
    some = torch.ones_like(given) if numbered is None else numbered
    if not bool(some[given].all()):
        raise InputError("a branch has no number of its own, expected response:branch wherever there is a parent.")
    span = int(torch.cat([branch[some], named[given]]).max()) + 1
    if int(torch.cat([branch[some], named[given]]).min()) < 0:
        raise InputError("response:branch or response:parent is negative, expected numbers from 0 within a group.")
    rows = some.nonzero().squeeze(1)
    keys, order = torch.sort(group[rows] * span + branch[rows], stable=True)
    if bool((keys[1:] == keys[:-1]).any()):
        raise InputError("two responses of a group have the same response:branch, expected a number each.")
    wanted = group * span + named
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    orphan = given & (keys[place] != wanted)
    if bool(orphan.any()):
        row = int(orphan.nonzero()[0])
        raise InputError(
            f"response {row} branched from number {int(named[row])} of its group, which is not there: keep whole "
            f"groups together ({int(orphan.sum())} such orphans)."
        )
    return torch.where(given, rows[order[place]], -1)


def _ahead(rollouts: Rollouts, given: Tensor) -> Tensor:
    column = rollouts.columns.get("response:looks")
    if column is None:
        raise InputError(
            "these rollouts branch and have no column response:looks, expected prefix or ahead for every branch: say "
            "whether forks were chosen by the tokens before them alone."
        )
    wrong = [looks for looks, used in zip(column.text, given.tolist(), strict=True) if used and looks not in LOOKS]
    if wrong:
        raise InputError(f"response:looks is {wrong[0]!r} of a branch, expected {' or '.join(LOOKS)}.")
    return torch.tensor([looks == "ahead" for looks in column.text], device=given.device) & given


def _check(rollouts: Rollouts, branches: Branches, given: Tensor) -> None:
    above = branches.parent
    for _ in range(len(above)):
        if not bool((above >= 0).any()):
            break
        above = torch.where(above >= 0, branches.parent[above.clamp(min=0)], above)
    if bool((above >= 0).any()):
        row = int((above >= 0).nonzero()[0])
        raise InputError(f"response {row} is its own ancestor, expected trees: parents form a circle.")
    lengths = ragged.lengths_of(rollouts.token_offsets)
    shortest = torch.minimum(lengths, lengths[branches.parent.clamp(min=0)] - 1)
    beyond = given & ((branches.fork > shortest) | (branches.fork < 0))
    if bool(beyond.any()):
        row = int(beyond.nonzero()[0])
        raise InputError(
            f"response {row} keeps {int(branches.fork[row])} tokens of its parent, which has "
            f"{int(lengths[branches.parent[row]])}: expected a fork before the end."
        )
    early = given & (branches.fork < branches.fork[branches.parent.clamp(min=0)])
    if bool(early.any()):
        row = int(early.nonzero()[0])
        raise InputError(
            f"response {row} forks where its parent had not begun, expected it to name the response that drew the "
            "token there as its parent."
        )
    inherited = ~own_tokens(rollouts, branches)
    token, of_token = inherited.nonzero().squeeze(1), rollouts.response_of_token[inherited]
    place = token - rollouts.token_offsets[of_token]
    same = rollouts.ids[token] == rollouts.ids[rollouts.token_offsets[branches.parent[of_token]] + place]
    if not bool(same.all()):
        raise InputError(
            f"response {int(of_token[~same][0])} does not begin with the tokens of its parent up to the fork, "
            "expected the same ids there."
        )
    if bool(rollouts.trained[inherited].any()):
        raise InputError(
            f"response {int(of_token[rollouts.trained[token]][0])} trains tokens it has from its parent, "
            "expected every token to be trained once: set trained to false there."
        )
