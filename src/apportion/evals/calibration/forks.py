"""Groups that branch: continuations drawn from the middle of others, at places that depend on nothing drawn.

Suffix legend: G groups, n members of a group, L leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.evals.calibration.groups import Groups, continued, sampled
from apportion.evals.calibration.tree import Tree
from apportion.rollouts import Rollouts, ragged


@dataclass(frozen=True)
class Forks:
    """Where responses fork.

    Attributes:
        children: further continuations drawn at a fork.
        everywhere: before every token of the policy but the first; otherwise before one of them, by a fair die.
        weigh: tokens weigh 1 over the product of the draws at the forks passed.
        words: all that, short.
    """

    children: int
    everywhere: bool
    weigh: bool
    words: str


@dataclass(frozen=True, eq=False)
class Forked(Groups):
    """Groups of responses from the prompt, each followed by its branches.

    Attributes:
        place: how many tokens a member has from its parent ``[G, n]``; 0 where it was drawn from the prompt.
        parent: the member it branched from ``[n]``, itself where from none.
        forks: how they were drawn.
        responses_drawn: tokens drawn for a group, in whole responses.
    """

    place: Tensor
    parent: Tensor
    forks: Forks
    responses_drawn: float

    @property
    def divisor(self) -> int:
        return int((self.parent == torch.arange(len(self.parent))).sum())

    @property
    def responses(self) -> float:
        return self.responses_drawn

    def part(self, start: int, end: int) -> Forked:
        rows = slice(start, end)
        return replace(self, leaf=self.leaf[rows], weight=self.weight[rows], place=self.place[rows])

    def rollouts(self, leaves: Rollouts) -> Rollouts:
        """The members, with what the branching sampler records of branches and weights."""
        flat = super().rollouts(leaves)
        member = torch.arange(self.size)
        branched = (self.parent != member).repeat(len(self))
        place = self.place.flatten()
        position = ragged.position_in_row(flat.token_offsets)
        own = flat.trained & (position >= place[flat.response_of_token])
        result = (
            flat.with_column("trained", own)
            .with_column("response:branch", member.repeat(len(self)))
            .with_column("response:parent", self.parent.repeat(len(self)), branched)
            .with_column("response:fork", place, branched)
            .with_column("response:looks", ["prefix" if b else None for b in branched.tolist()])
        )
        if not self.forks.weigh:
            return result
        # A token behind k forks of its response, its own included, was drawn beside that many others.
        root = self.place.view(len(self), self.divisor, -1)
        passed = (position[:, None] >= root[:, :, 1 :: self.forks.children].flatten(0, 1)[self._root_of(flat)]).sum(1)
        return result.with_column("weight", (1 + self.forks.children) ** -passed.double())

    def _root_of(self, flat: Rollouts) -> Tensor:
        """Which response from the prompt every token's response belongs to, over all groups ``[N]``."""
        return flat.response_of_token // (self.size // self.divisor)


def forked(tree: Tree, size: int, groups: int, forks: Forks, generator: torch.Generator) -> Forked:
    """Groups of ``size`` responses, at least two of them from the prompt, or of ``size`` that fork everywhere.

    Raises:
        InputError: responses of different lengths, which not every place is in.
    """
    lengths = ragged.lengths_of(tree.offsets)
    if bool((lengths != lengths[0]).any()):
        raise InputError("the responses differ in length, expected one length, so that all have a token to fork at.")
    length = int(lengths[0])
    places = tree.decides[tree.path[:length]].nonzero().squeeze(1)[1:]
    if not len(places):
        raise InputError("the responses have one token of the policy, expected more to fork at.")
    count = len(places) if forks.everywhere else 1
    roots = size if forks.everywhere else max(size // (1 + forks.children), 2)
    first = sampled(tree, roots, groups, generator)
    if forks.everywhere:
        place = places.expand(groups, roots, -1)
    else:
        place = places[torch.randint(len(places), (groups, roots, 1), generator=generator)]
    place = place.repeat_interleave(forks.children, -1)
    state = tree.state[tree.path[tree.offsets[first.leaf][:, :, None] + place]]
    leaf = torch.cat([first.leaf[:, :, None], continued(tree, state, generator)], -1).flatten(1)
    width = 1 + count * forks.children
    parent = torch.arange(roots).repeat_interleave(width) * width
    drawn = roots + roots * float((1 - place.double() / length).sum(-1).mean())
    place = torch.cat([torch.zeros_like(place[:, :, :1]), place], -1).flatten(1)
    return Forked(leaf, first.weight, False, place, parent, forks, drawn)
