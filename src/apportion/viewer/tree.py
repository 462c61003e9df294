"""The tree that the episodes of a group form: what they share is one node, and where they part is a fork."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apportion.credit.prefixes import prefix_tree
from apportion.rollouts import Rollouts
from apportion.viewer.rewards import EpisodeRewards


@dataclass(eq=False)
class Node:
    """A run of tokens that the same episodes pass through.

    Attributes:
        start: its first token, as an index into the tokens of the first episode through it.
        end: one past the last.
        episodes: who passes through it.
        ends: those of them whose last token it holds.
        children: what follows, by order of the first episode.
    """

    start: int
    end: int
    episodes: list[int]
    ends: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)


def trie(rollouts: Rollouts) -> Node:
    """The tree of one group, its root the empty beginning; in every node there is at least one token but in the root.

    Args:
        rollouts: of one group.

    Example:
        >>> root = trie(Rollouts.from_lists([[1, 2, 3], [1, 4], [1, 2, 3]], groups=[0, 0, 0]))
        >>> [(node.start, node.end, node.episodes) for node in root.children]
        [(0, 1, [0, 1, 2])]
        >>> [(node.start, node.end, node.ends) for node in root.children[0].children]
        [(1, 3, [0, 2]), (4, 5, [1])]
    """
    tree = prefix_tree(rollouts)
    after, offsets = tree.after.tolist(), rollouts.episode_offsets.tolist()
    visits = tree.visits.tolist()
    root = Node(0, 0, list(range(rollouts.n_episodes)))
    by_first: dict[int, Node] = {}
    for episode in range(rollouts.n_episodes):
        above, here = root, offsets[episode]
        while here < offsets[episode + 1]:
            node = by_first.get(after[here])
            if node is None:
                end = here + 1
                while end < offsets[episode + 1] and visits[after[end]] == visits[after[here]]:
                    end += 1
                node = by_first[after[here]] = Node(here, end, [])
                above.children.append(node)
            node.episodes.append(episode)
            here += node.end - node.start
            above = node
        above.ends.append(episode)
    return root


def as_record(root: Node, rollouts: Rollouts, rewards: EpisodeRewards) -> list[dict[str, Any]]:
    """A tree as JSON: nodes in order of depth first, the root at 0; tokens are counted from the start of an episode.

    A node's value is the mean reward of the known episodes that pass through it, null where none is known.

    Args:
        root: of the tree.
        rollouts: it is of.
        rewards: of the episodes.

    Example:
        >>> from apportion.viewer.rewards import episode_rewards
        >>> group = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> nodes = as_record(trie(group), group, episode_rewards(group, "outcome"))
        >>> [(node["start"], node["end"], node["value"], node["children"]) for node in nodes]
        [(0, 0, 0.5, [1]), (0, 1, 0.5, [2, 3]), (1, 2, 1.0, []), (1, 2, 0.0, [])]
    """
    offsets = rollouts.episode_offsets.tolist()
    known, value = rewards.known.tolist(), rewards.value.tolist()
    nodes: list[dict[str, Any]] = []
    waiting: list[tuple[Node, int | None]] = [(root, None)]
    while waiting:  # not recursive: forks may be as deep as a response is long
        node, parent = waiting.pop()
        if parent is not None:
            nodes[parent]["children"].append(len(nodes))
        rewarded = [value[e] for e in node.episodes if known[e]]
        shift = offsets[node.episodes[0]] if parent is not None else 0
        waiting += [(child, len(nodes)) for child in reversed(node.children)]
        nodes.append(
            {
                "parent": parent,
                "start": node.start - shift,
                "end": node.end - shift,
                "episodes": node.episodes,
                "ends": node.ends,
                "value": sum(rewarded) / len(rewarded) if rewarded else None,
                "children": [],
            }
        )
    return nodes
