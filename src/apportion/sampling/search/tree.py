"""The tree store of a search: who is whose parent, values, visits and kinds of nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from apportion.errors import InputError


@dataclass(eq=False)
class SearchTree:
    """Nodes by number, grown in place; every step of a path is a node.

    Attributes:
        parents: number of every node's parent; None of the root, which stands for the prompt.
        values: what a node is worth, in the scale of the search's backup rule.
        visits: how often a value was handed up through it.
        kinds: what the node is, in the search's words: ``root``, ``reason``, ``finish``.

    Raises:
        InputError: columns of different lengths, not exactly one root, an orphan, a cycle, a value that is not finite,
            or negative visits.

    Example:
        >>> tree = SearchTree([None, 0, 0, 1], [0.0] * 4, [2, 1, 1, 1], ["root", "reason", "reason", "finish"])
        >>> tree.children(0), tree.path(3), tree.depth(3)
        ([1, 2], [1, 3], 2)
        >>> SearchTree([None, 2, 1], [0.0] * 3, [0] * 3, ["root"] * 3)
        Traceback (most recent call last):
            ...
        apportion.errors.InputError: node 1 of a search tree is its own ancestor, expected parents that lead to a root.
    """

    parents: list[int | None]
    values: list[float]
    visits: list[int]
    kinds: list[str]
    _children: list[list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check(self.parents, self.values, self.visits, self.kinds)
        self._children = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent is not None:
                self._children[parent].append(node)

    @staticmethod
    def rooted() -> SearchTree:
        """A root alone."""
        return SearchTree([None], [0.0], [0], ["root"])

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def root(self) -> int:
        """The node without a parent."""
        return self.parents.index(None)

    def add(self, parent: int, kind: str) -> int:
        """A further child, worth 0 and never visited; its number."""
        node = len(self.parents)
        self.parents.append(parent)
        self.values.append(0.0)
        self.visits.append(0)
        self.kinds.append(kind)
        self._children.append([])
        self._children[parent].append(node)
        return node

    def children(self, node: int) -> list[int]:
        """In the order they were added."""
        return self._children[node]

    def ancestors(self, node: int) -> Iterator[int]:
        """Its parent, that one's parent, and so on to the root."""
        above = self.parents[node]
        while above is not None:
            yield above
            above = self.parents[above]

    def path(self, node: int) -> list[int]:
        """From the root, which is left out, to the node."""
        return [node, *self.ancestors(node)][::-1][1:]

    def depth(self, node: int) -> int:
        """How many steps lie between the root and the node's end."""
        return sum(1 for _ in self.ancestors(node))


def _check(parents: Sequence[int | None], values: Sequence[float], visits: Sequence[int], kinds: Sequence[str]) -> None:
    count = len(parents)
    for name, column in (("values", values), ("visits", visits), ("kinds", kinds)):
        if len(column) != count:
            raise InputError(f"a search tree has {count} parents and {len(column)} {name}, expected one a node.")
    if sum(parent is None for parent in parents) != 1:
        raise InputError(
            f"a search tree has {sum(parent is None for parent in parents)} nodes without a parent, expected one root."
        )
    for node, parent in enumerate(parents):
        if parent is not None and not 0 <= parent < count:
            raise InputError(
                f"node {node} of a search tree is an orphan: its parent {parent} is not among the {count} nodes, "
                "expected whole trees."
            )
        if not math.isfinite(values[node]) or visits[node] < 0:
            raise InputError(
                f"node {node} of a search tree has value {values[node]} and {visits[node]} visits, expected a finite "
                "value and 0 visits or more."
            )
    leads_to_root = [parent is None for parent in parents]
    for start in range(count):
        trail, node = [], start
        while not leads_to_root[node]:
            if node in trail:
                raise InputError(
                    f"node {node} of a search tree is its own ancestor, expected parents that lead to a root."
                )
            trail.append(node)
            above = parents[node]
            assert above is not None  # a root leads to itself
            node = above
        for node in trail:
            leads_to_root[node] = True
