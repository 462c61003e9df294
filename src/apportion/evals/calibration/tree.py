"""A decision problem small enough to enumerate: every prefix, its probabilities, its rewards, and their exact values.

Suffix legend: S states (prefixes, finished ones included), K edges (a state and the token that follows), L leaves
(finished responses), N tokens of all leaves end to end, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import ragged

Place = tuple[int, tuple[int, ...]]
"""A prompt and the tokens since."""


@dataclass(frozen=True)
class Node:
    """A prefix that is not finished.

    Attributes:
        prefix: tokens since the prompt.
        probabilities: of the tokens that may follow.
        rewards: paid with a token; 0 where none is given.
        chance: the environment draws the token, not the policy.
        prompt: which prompt it follows.
    """

    prefix: tuple[int, ...]
    probabilities: Mapping[int, float]
    rewards: Mapping[int, float] = field(default_factory=dict)
    chance: bool = False
    prompt: int = 0


@dataclass(frozen=True, eq=False)
class Values:
    """What every state and every edge is worth.

        V(s) = sum_a p(a | s) Q(s, a),    Q(s, a) = r(s, a) + V(s a),    A = Q - V,    V = 0 after the last token

    Attributes:
        state: V ``[S]``.
        edge: Q ``[K]``.
        advantage: A ``[K]``; at an edge of the environment, its luck.
        gradient: of the expected return, by logit ``[K]``: reach(s) pi(a | s) A(s, a), 0 at edges of the environment.
        total: expected return, over prompts.
    """

    state: Tensor
    edge: Tensor
    advantage: Tensor
    gradient: Tensor
    total: float


class Tree:
    """Prefixes in order of length and then of tokens, edges in that order and then by token.

    A node of the policy is a state of a :class:`~apportion.models.tabular.TabularPolicy`; prompts are equally likely.

    Args:
        nodes: in any order.

    Attributes:
        places: the prompt and prefix of every state, S of them.
        state: state every edge leaves ``[K]``.
        token: its token ``[K]``.
        to: state it leads to ``[K]``.
        probability: of it at its state ``[K]``.
        reward: paid with it ``[K]``.
        decides: bool ``[K]``: the policy draws it.

    Raises:
        InputError: probabilities that do not sum to 1, a reward that is not finite, a prefix that no other leads to.

    Example:
        >>> tree = Tree([Node((), {0: 0.5, 1: 0.5}, {1: 1.0})])
        >>> tree.values().advantage.tolist(), tree.values().gradient.tolist()
        ([-0.5, 0.5], [-0.25, 0.25])
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        by_place: dict[Place, Node] = {}
        for node in nodes:
            _check(node)
            if (node.prompt, node.prefix) in by_place:
                raise InputError(f"the prefix {list(node.prefix)} has two nodes, expected one each.")
            by_place[node.prompt, node.prefix] = node
        prompts = sorted({node.prompt for node in nodes})
        if prompts != list(range(len(prompts))) or not nodes:
            raise InputError(f"nodes are of prompts {prompts}, expected prompts counted from 0.")
        places: set[Place] = {(prompt, ()) for prompt in prompts}
        for (prompt, prefix), node in by_place.items():
            places |= {(prompt, (*prefix, token)) for token in node.probabilities}
        for prompt, prefix in by_place:
            if (prompt, prefix) not in places:
                raise InputError(f"no node leads to the prefix {list(prefix)}, expected one: add it or leave this out.")
        self.prompts = len(prompts)
        self.places = tuple(sorted(places, key=lambda place: (len(place[1]), place)))
        self.nodes = by_place
        number = {place: i for i, place in enumerate(self.places)}
        rows = [
            (number[place], token, number[place[0], (*place[1], token)], p, node.rewards.get(token, 0.0), node.chance)
            for place, node in sorted(by_place.items(), key=lambda item: number[item[0]])
            for token, p in sorted(node.probabilities.items())
        ]
        state, token, to, probability, reward, chance = zip(*rows, strict=True)
        self.state, self.token, self.to = (torch.tensor(column) for column in (state, token, to))
        self.probability, self.reward = (torch.tensor(c, dtype=torch.float64) for c in (probability, reward))
        self.decides = ~torch.tensor(chance)

    @property
    def n_states(self) -> int:
        return len(self.places)

    @property
    def n_edges(self) -> int:
        return len(self.token)

    @cached_property
    def layers(self) -> list[Tensor]:
        """Edges by the length of the prefix they leave."""
        lengths = torch.tensor([len(self.places[s][1]) for s in self.state.tolist()])
        return [(lengths == depth).nonzero().squeeze(1) for depth in range(int(lengths.max()) + 1)]

    @cached_property
    def reach(self) -> Tensor:
        """Probability of visiting every state ``[S]``."""
        reach = torch.zeros(self.n_states, dtype=torch.float64)
        reach[: self.prompts] = 1 / self.prompts
        for edges in self.layers:
            reach[self.to[edges]] = reach[self.state[edges]] * self.probability[edges]
        return reach

    def over_edges(self, edge_values: Tensor) -> Tensor:
        """Sum of values of edges ``[..., K]`` over the edges of every state ``[..., S]``."""
        return edge_values.new_zeros(*edge_values.shape[:-1], self.n_states).index_add_(-1, self.state, edge_values)

    def induct(
        self, reward: Tensor, value_of: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Backward induction.

        Args:
            reward: of every edge ``[K]``.
            value_of: ``(Q of some edges, those edges) -> what they add to the value of their state``; default: the
                probability times Q, so that values are expectations.

        Returns:
            values of states ``[S]`` and of edges ``[K]``.
        """
        value_of = value_of or (lambda q, edges: self.probability[edges] * q)
        value, q = torch.zeros(self.n_states, dtype=torch.float64), torch.zeros_like(reward)
        for edges in reversed(self.layers):
            q[edges] = reward[edges] + value[self.to[edges]]
            value.index_add_(0, self.state[edges], value_of(q[edges], edges))
        return value, q

    def values(self, reward: Tensor | None = None) -> Values:
        """Exact values under the tree's rewards, or others ``[K]``."""
        value, q = self.induct(self.reward if reward is None else reward)
        advantage = q - value[self.state]
        gradient = torch.where(self.decides, self.reach[self.state] * self.probability * advantage, 0.0)
        return Values(value, q, advantage, gradient, float(value[: self.prompts].mean()))

    # Leaves

    @cached_property
    def _walk(self) -> tuple[list[list[int]], Tensor, Tensor]:
        """The edges of every leaf, in order of prompt and tokens, and which leaves pass through every state."""
        first_edge = torch.searchsorted(self.state, torch.arange(self.n_states + 1)).tolist()
        to, paths = self.to.tolist(), list[list[int]]()
        first, last = torch.zeros(self.n_states, dtype=torch.int64), torch.zeros(self.n_states, dtype=torch.int64)

        def down(state: int, path: list[int]) -> None:
            first[state] = len(paths)
            edges = range(first_edge[state], first_edge[state + 1])
            if not edges:
                paths.append(path)
            for edge in edges:
                down(to[edge], [*path, edge])
            last[state] = len(paths)

        for prompt in range(self.prompts):
            down(prompt, [])
        return paths, first, last

    @cached_property
    def offsets(self) -> Tensor:
        """Where the tokens of every leaf begin ``[L + 1]``."""
        return ragged.offsets_of(torch.tensor([len(path) for path in self._walk[0]]))

    @cached_property
    def path(self) -> Tensor:
        """The edge of every token of every leaf ``[N]``."""
        return torch.tensor([edge for path in self._walk[0] for edge in path])

    @property
    def passing(self) -> tuple[Tensor, Tensor]:
        """The first leaf that passes through every state ``[S]``, and one past the last."""
        return self._walk[1], self._walk[2]

    @cached_property
    def leaf_probability(self) -> Tensor:
        """Of every leaf given its prompt ``[L]``."""
        logs = self.probability[self.path].log()
        return ragged.sum_rows(logs, self.offsets).exp()

    @cached_property
    def leaf_prompt(self) -> Tensor:
        """The prompt of every leaf ``[L]``; leaves of a prompt lie next to each other."""
        return torch.tensor([self.places[int(self.state[edge])][0] for edge in self.path[self.offsets[:-1]]])

    @cached_property
    def leaf_return(self) -> Tensor:
        """Rewards of every leaf, summed ``[L]``."""
        return ragged.sum_rows(self.reward[self.path], self.offsets)

    def leaf_tokens(self) -> list[list[int]]:
        """The tokens of every leaf."""
        return ragged.unflatten(self.token[self.path], self.offsets)

    # The policy

    def policy(self) -> TabularPolicy:
        """The tree's own policy, as the trainer takes it; at nodes of the environment its logits mean nothing."""
        depth = max(len(prefix) for _, prefix in self.places)
        policy = TabularPolicy(int(self.token.max()) + 1, depth, self.prompts)
        with torch.no_grad():
            for edges in self.layers:
                for state in torch.unique(self.state[edges]).tolist():
                    prompt, prefix = self.places[state]
                    row = policy.state(torch.tensor([prompt]), torch.tensor([prefix], dtype=torch.int64).reshape(1, -1))
                    own = edges[self.state[edges] == state]
                    policy.logits[row] = -torch.inf
                    policy.logits[row, self.token[own]] = self.probability[own].log()
        return policy


def _check(node: Node) -> None:
    """Refuse a node that is no distribution, or pays what is not a number."""
    where, given = f"the node {list(node.prefix)}", node.probabilities.values()
    if not all(p >= 0 for p in given) or abs(math.fsum(given) - 1) > 1e-9:
        raise InputError(f"{where} has probabilities {list(given)}, expected some that are not negative and sum to 1.")
    if set(node.rewards) - set(node.probabilities):
        raise InputError(f"{where} pays for tokens that cannot follow it, expected rewards of those alone.")
    if not all(math.isfinite(r) for r in node.rewards.values()):
        raise InputError(f"{where} has a reward that is not finite, expected numbers.")
