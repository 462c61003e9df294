"""Groups of finished responses as rollouts: all of them with their probability, or a sample.

Suffix legend: L leaves, E episodes, G groups.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.evals.calibration.tree import Tree
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.columns import split_name
from apportion.rollouts.model import Spans


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of equal size, drawn or listed.

    Attributes:
        leaf: of every member ``[G, n]``.
        weight: of every group ``[G]``, summing to 1.
        listed: every group that can be drawn is there, with its probability.
    """

    leaf: Tensor
    weight: Tensor
    listed: bool

    @property
    def size(self) -> int:
        """Members of a group."""
        return self.leaf.shape[1]

    @property
    def divisor(self) -> int:
        """What the sum over a group's tokens is divided by: its responses from the prompt."""
        return self.size

    @property
    def responses(self) -> float:
        """How many whole responses were drawn for a group, or as many tokens."""
        return self.size

    def __len__(self) -> int:
        return len(self.leaf)

    def part(self, start: int, end: int) -> Groups:
        """Some of the groups, with their weights as they are."""
        return Groups(self.leaf[start:end], self.weight[start:end], self.listed)

    def rollouts(self, leaves: Rollouts) -> Rollouts:
        """The groups' members, group by group, with the columns of the leaves' own rollouts."""
        return gathered(leaves, self.leaf.flatten(), torch.arange(len(self)).repeat_interleave(self.size))


def count(tree: Tree, size: int) -> int:
    """How many different groups of a size there are, members in any order."""
    leaves = torch.bincount(tree.leaf_prompt).tolist()
    return sum(math.comb(n + size - 1, size) for n in leaves)


def listed(tree: Tree, size: int) -> Groups:
    """Every group, members in any order, with its probability; each prompt is as likely as the others.

        P(group) = n! / prod_l c_l! prod_l P(l)^c_l / P,    c_l members are leaf l

    Example:
        >>> from apportion.evals.calibration.tree import Node
        >>> pairs = listed(Tree([Node((), {0: 0.25, 1: 0.75})]), 2)
        >>> pairs.leaf.tolist(), pairs.weight.tolist()
        ([[0, 0], [0, 1], [1, 1]], [0.0625, 0.375, 0.5625])
    """
    if size < 1:
        raise InputError(f"the group size is {size}, expected at least 1.")
    rows, log_factorial = [], torch.lgamma(torch.arange(size + 1, dtype=torch.float64) + 1)
    for prompt in range(tree.prompts):
        own = (tree.leaf_prompt == prompt).nonzero().squeeze(1).tolist()
        rows.append(torch.tensor(list(itertools.combinations_with_replacement(own, size))))
    leaf = torch.cat(rows)
    logs = tree.leaf_probability.log()[leaf].sum(1) + log_factorial[size]
    # A run of c equal members, which are next to each other, divides by c!: by 1, 2, ... c in turn.
    run = torch.ones(len(leaf), dtype=torch.float64)
    for k in range(1, size):
        run = torch.where(leaf[:, k] == leaf[:, k - 1], run + 1, 1.0)
        logs = logs - run.log()
    return Groups(leaf, logs.exp() / tree.prompts, True)


def sampled(tree: Tree, size: int, groups: int, generator: torch.Generator) -> Groups:
    """Groups drawn from the tree's policy, their prompts at random."""
    if size < 1 or groups < 1:
        raise InputError(f"got {groups} groups of {size}, expected at least one of each.")
    prompt = torch.randint(tree.prompts, (groups, 1), generator=generator)
    place = torch.rand((groups, size), generator=generator, dtype=torch.float64)
    upto = tree.leaf_probability.cumsum(0) / tree.leaf_probability.sum() * tree.prompts
    leaf = torch.searchsorted(upto, place + prompt, right=True).clamp(max=len(upto) - 1)
    return Groups(leaf, torch.full((groups,), 1 / groups, dtype=torch.float64), False)


def continued(tree: Tree, state: Tensor, generator: torch.Generator) -> Tensor:
    """A leaf drawn by going on from every state, of any shape."""
    first, last = tree.passing
    upto = torch.cat([torch.zeros(1, dtype=torch.float64), tree.leaf_probability.cumsum(0)])
    low, high = upto[first[state]], upto[last[state]]
    dice = torch.rand(state.shape, generator=generator, dtype=torch.float64)
    drawn = torch.searchsorted(upto, low + dice * (high - low), right=True) - 1
    return torch.minimum(torch.maximum(drawn, first[state]), last[state] - 1)


def gathered(rollouts: Rollouts, episodes: Tensor, groups: Tensor) -> Rollouts:
    """Episodes of one response each, some perhaps several times, as episodes of other groups."""
    lengths = ragged.lengths_of(rollouts.token_offsets)[episodes]
    starts = rollouts.token_offsets[episodes]
    tokens = ragged.ranges(starts, starts + lengths)
    offsets = ragged.offsets_of(lengths)
    taken = {"token": tokens, "response": episodes, "episode": episodes}
    spans = {}
    for kind, table in rollouts.spans.items():
        bounds = torch.searchsorted(rollouts.response_of_span[kind], torch.arange(rollouts.n_responses + 1))
        begins, sizes = bounds[episodes], ragged.lengths_of(bounds)[episodes]
        taken[kind] = ragged.ranges(begins, begins + sizes)
        moved = torch.repeat_interleave(offsets[:-1] - starts, sizes)
        spans[kind] = Spans(table.starts[taken[kind]] + moved, table.ends[taken[kind]] + moved)
    return replace(
        rollouts,
        ids=rollouts.ids[tokens],
        token_offsets=offsets,
        response_offsets=torch.arange(len(episodes) + 1),
        group_ids=groups,
        prompts=rollouts.prompts[episodes],
        columns={name: column.take(taken[split_name(name)[0]]) for name, column in rollouts.columns.items()},
        spans=spans,
    )
