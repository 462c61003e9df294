"""The prefix tree a group's episodes form, found without building one.

A *node* is a prefix of tokens that at least one episode of the group passes through; the element at t leads from
the node before it to the node after it. Trees never cross groups.
"""

from __future__ import annotations

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


def _stream(rollouts: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
    """An episode as one sequence of symbols: the policy's tokens and, as one symbol each, what it heard in between.

    Where turns are separate responses it heard the new part of the next prompt, where they are spans of one growing
    response the tokens outside them; both give the same sequence. The first prompt is left out: the group says what
    is comparable.

    Returns:
        symbols ``[T]``, offsets ``[E + 1]``, and where every token went ``[N]``.
    """
    heard = [*_heard_between_responses(rollouts), *_heard_between_turns(rollouts)]
    tokens = torch.arange(rollouts.n_tokens, device=rollouts.device)
    if not heard:
        return rollouts.ids, rollouts.episode_offsets, tokens
    numbers: dict[tuple[int, ...], int] = {}
    text = [numbers.setdefault(tuple(words), len(numbers)) for _, _, _, words in heard]
    response, starts, ends, text_H = torch.tensor(
        [[*place, n] for (*place, _), n in zip(heard, text, strict=True)], device=rollouts.device
    ).unbind(1)

    inside = torch.zeros_like(tokens, dtype=torch.bool)
    inside[ragged.ranges(starts, ends)] = True
    said = tokens[~inside]
    ids = torch.unique(rollouts.ids, return_inverse=True)[1]
    # Of those at one place, what was heard comes first, in the order of ``heard``, then the token.
    order = torch.argsort(torch.cat([starts, said]), stable=True)
    symbols = torch.cat([text_H + rollouts.n_tokens, ids[said]])[order]
    episode = torch.cat([rollouts.episode_of_response[response], rollouts.episode_of_token[said]])

    to = torch.empty_like(order)
    to[order] = torch.arange(len(order), device=order.device)
    place = torch.empty_like(tokens)
    place[said] = to[len(heard) :]
    place[ragged.ranges(starts, ends)] = torch.repeat_interleave(to[: len(heard)], ends - starts)
    return symbols, ragged.offsets_of(torch.bincount(episode, minlength=rollouts.n_episodes)), place


Heard = tuple[int, int, int, list[int]]
"""What the policy heard: the response it stands in, its first token, one past its last, and the words."""


def _heard_between_responses(rollouts: Rollouts) -> list[Heard]:
    """The prompts of later responses, without the part that repeats the conversation so far."""
    later = (ragged.position_in_row(rollouts.response_offsets) > 0).nonzero().squeeze(1).tolist()
    if not later:
        return []
    prompts = ragged.unflatten(rollouts.prompt_ids, rollouts.prompt_offsets)
    prompt_of, ids, offsets = rollouts.prompts.tolist(), rollouts.ids.tolist(), rollouts.token_offsets.tolist()
    heard = []
    for response in later:
        so_far = prompts[prompt_of[response - 1]] + ids[offsets[response - 1] : offsets[response]]
        prompt = prompts[prompt_of[response]]
        new = prompt[len(so_far) :] if prompt[: len(so_far)] == so_far else prompt
        heard.append((response, offsets[response], offsets[response], new))
    return heard


def _heard_between_turns(rollouts: Rollouts) -> list[Heard]:
    """The tokens before, between and after the turn spans of a response; between turns perhaps none."""
    if "turn" not in rollouts.spans:
        return []
    starts, ends = (side.tolist() for side in (rollouts.spans["turn"].starts, rollouts.spans["turn"].ends))
    responses = rollouts.response_of_span["turn"].tolist()
    ids, offsets = rollouts.ids.tolist(), rollouts.token_offsets.tolist()
    heard = []
    for turn, response in enumerate(responses):
        first = turn == 0 or responses[turn - 1] != response
        last = turn + 1 == len(responses) or responses[turn + 1] != response
        before = offsets[response] if first else ends[turn - 1]
        if not first or before < starts[turn]:
            heard.append((response, before, starts[turn], ids[before : starts[turn]]))
        if last and ends[turn] < offsets[response + 1]:
            heard.append((response, ends[turn], offsets[response + 1], ids[ends[turn] : offsets[response + 1]]))
    return heard


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
