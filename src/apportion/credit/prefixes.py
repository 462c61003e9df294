"""The prefix tree a group's episodes form, found without building one.

A *node* is a prefix of tokens that at least one episode of the group passes through; the element at t leads from
the node before it to the node after it. Trees never cross groups.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.rollouts import Rollouts, ragged


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """Nodes that tokens lead from and to.

    Attributes:
        before: node every token was drawn at ``[N]``.
        after: node every token leads to ``[N]``.
        root: root node of every episode ``[E]``: its group's.
        n_nodes: how many nodes there are.
        passes: node ids ``[T]`` and the episode ``[T]`` passing there, every visit once (roots included).
    """

    before: Tensor
    after: Tensor
    root: Tensor
    n_nodes: int
    passes: tuple[Tensor, Tensor]

    def mean(self, values: Tensor) -> Tensor:
        """Mean ``[n_nodes]`` of an episode quantity ``[E]`` over the episodes that pass through a node."""
        node, episode = self.passes
        total = values.new_zeros(self.n_nodes).index_add_(0, node, values[episode])
        return total / self.visits.clamp(min=1)

    @property
    def visits(self) -> Tensor:
        """How many episodes pass through every node ``[n_nodes]``."""
        return torch.bincount(self.passes[0], minlength=self.n_nodes)


def _identities(ids: Tensor, offsets: Tensor) -> Tensor:
    """Number rows by equal content ``[rows]``."""
    flat, bounds = ids.tolist(), offsets.tolist()
    seen: dict[tuple[int, ...], int] = {}
    keys = [tuple(flat[a:b]) for a, b in itertools.pairwise(bounds)]
    return torch.tensor([seen.setdefault(k, len(seen)) for k in keys], dtype=torch.int64, device=ids.device)


def _stream(rollouts: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
    """An episode as one sequence of symbols: its tokens and, between its responses, the later prompts.

    Later prompts bring what the environment said; with one growing response those are untrained tokens. Either way
    the state after them is another node. The first prompt is left out: the group says what is comparable.

    Returns:
        symbols ``[T]``, offsets ``[E + 1]``, and where every token went ``[N]``.
    """
    single = rollouts.n_responses == rollouts.n_episodes
    if single:
        return rollouts.ids, rollouts.token_offsets, torch.arange(rollouts.n_tokens, device=rollouts.device)
    later = ragged.position_in_row(rollouts.response_offsets) > 0
    identity = _identities(rollouts.prompt_ids, rollouts.prompt_offsets)[rollouts.prompts]
    lengths = ragged.lengths_of(rollouts.token_offsets) + later.long()
    starts = ragged.offsets_of(lengths)
    place = (starts[:-1] + later.long())[rollouts.response_of_token]
    place = place + ragged.position_in_row(rollouts.token_offsets)
    symbols = rollouts.ids.new_zeros(int(starts[-1]))
    symbols[place] = rollouts.ids
    symbols[starts[:-1][later]] = -1 - identity[later]
    return symbols, starts[rollouts.response_offsets], place


def prefix_tree(rollouts: Rollouts) -> PrefixTree:
    """The prefix trees of all groups.

    Goes down one depth at a time, over the episodes that still share their prefix with another; once an episode is
    alone its remaining nodes are its own and need no comparison. Linear in tokens, up to a sort a depth.

    Example:
        >>> pair = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0])
        >>> tree = prefix_tree(pair)
        >>> tree.after.tolist(), tree.visits.tolist()
        ([1, 2, 1, 3], [2, 2, 1, 1])
    """
    symbols, offsets, place = _stream(rollouts)
    symbols = torch.unique(symbols, return_inverse=True)[1]
    n_symbols = int(symbols.max()) + 1 if len(symbols) else 1
    device, lengths = rollouts.device, ragged.lengths_of(offsets)
    after = torch.full_like(symbols, -1)
    root = rollouts.group_of_episode
    n_nodes = rollouts.n_groups

    current = root.clone()  # the node every episode stands at
    active = torch.arange(rollouts.n_episodes, device=device)
    members = torch.bincount(root, minlength=n_nodes)
    active = active[members[root] > 1]
    depth = 0
    while len(active):
        active = active[lengths[active] > depth]
        if not len(active):
            break
        at = offsets[active] + depth
        standing = torch.unique(current[active], return_inverse=True)[1]
        _, child, count = torch.unique(standing * n_symbols + symbols[at], return_inverse=True, return_counts=True)
        current[active] = child + n_nodes
        after[at] = child + n_nodes
        n_nodes += len(count)
        active = active[count[child] > 1]
        depth += 1

    own = (after < 0).nonzero().squeeze(1)
    after[own] = torch.arange(len(own), device=device) + n_nodes
    n_nodes += len(own)

    row = ragged.row_of(offsets)
    before = torch.cat([after.new_zeros(1), after[:-1]]) if len(after) else after
    first = offsets[:-1][lengths > 0]
    before[first] = root[lengths > 0]
    passes = torch.cat([root, after]), torch.cat([torch.arange(rollouts.n_episodes, device=device), row])
    return PrefixTree(before[place], after[place], root, n_nodes, passes)
