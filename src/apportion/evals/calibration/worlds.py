"""Worlds whose every value is known: where the deciding token is, what it shares, what pays, who else draws.

Each is a :class:`~apportion.evals.calibration.tree.Tree` of a fixed policy that is neither uniform nor finished.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from apportion.evals.calibration.tree import Node, Tree
from apportion.rollouts import Rollouts, ragged

WRONG, RIGHT = 0, 1
STOP, GO = 0, 1


@dataclass(frozen=True, eq=False)
class World:
    """A tree and how its responses are stored.

    Attributes:
        name: short.
        what: one line.
        tree: its prefixes, rewards and policy.
        dense: rewards are tokens'; otherwise their sum is the episode's.
        turns: every token of the policy is a turn of an agent.
        seen: what the environment shows of a prefix, its state key; None: all of it.
    """

    name: str
    what: str
    tree: Tree
    dense: bool = False
    turns: bool = False
    seen: Callable[[tuple[int, ...]], str] | None = None

    @cached_property
    def leaves(self) -> Rollouts:
        """Every finished response, each an episode of one growing response, as rollouts of one group.

        What the environment pays with a token of its own is paid with the last of the policy's before it. Every token
        of the policy is a ``step`` span and, in a world of turns, a ``turn``. Log-probs are the policy's.
        """
        tree = self.tree
        count = len(tree.leaf_return)
        rollouts = Rollouts(
            ids=tree.token[tree.path],
            token_offsets=tree.offsets,
            response_offsets=torch.arange(count + 1),
            group_ids=torch.zeros(count, dtype=torch.int64),
            prompt_ids=torch.arange(tree.prompts),
            prompt_offsets=torch.arange(tree.prompts + 1),
            prompts=tree.leaf_prompt,
        )
        trained = tree.decides[tree.path]
        if not bool(trained.all()):
            rollouts = rollouts.with_column("trained", trained)
        rollouts = rollouts.with_statistic("log_probs/old", tree.probability[tree.path].log(), "calibration")
        if self.dense:
            rollouts = rollouts.with_reward("outcome", self.token_rewards, level="token")
        else:
            rollouts = rollouts.with_reward("outcome", tree.leaf_return)
        own = trained.nonzero().squeeze(1)
        rollouts = rollouts.with_spans("step", own, own + 1)
        return rollouts.with_spans("turn", own, own + 1) if self.turns else rollouts

    @cached_property
    def token_rewards(self) -> Tensor:
        """What every token of every leaf earns, all of it on the policy's tokens ``[N]``."""
        tree, paid = self.tree, self.tree.reward[self.tree.path]
        trained, row = tree.decides[tree.path], ragged.row_of(tree.offsets)
        place = torch.where(trained, torch.arange(len(paid)), -1).cummax(0).values
        if bool(((place < tree.offsets[row]) & (paid != 0)).any()):
            raise AssertionError(f"{self.name} pays before the policy has acted")
        return torch.zeros_like(paid).index_add_(0, place.clamp(min=0), paid)


def product(
    levels: Sequence[dict[int, float]], pays: Callable[[tuple[int, ...]], float], prompt: int = 0
) -> list[Node]:
    """Nodes of responses of one length whose tokens are drawn independently; the last pays for all of them."""
    nodes, last = [], len(levels) - 1
    for depth, probabilities in enumerate(levels):
        for prefix in itertools.product(*levels[:depth]):
            rewards = {token: pays((*prefix, token)) for token in probabilities} if depth == last else {}
            nodes.append(Node(prefix, probabilities, rewards, prompt=prompt))
    return nodes


def _tilted(count: int, slope: float = 0.5) -> dict[int, float]:
    """A distribution over tokens from 0 that is not uniform."""
    weights = [1 + slope * token / max(count - 1, 1) for token in range(count)]
    return {token: weight / sum(weights) for token, weight in enumerate(weights)}


def early_decision() -> World:
    """The first of four tokens decides."""
    levels = [{WRONG: 0.6, RIGHT: 0.4}, *([_tilted(2)] * 3)]
    return World(
        "early decision", "the first of 4 tokens decides: right or wrong", Tree(product(levels, lambda y: y[0]))
    )


def late_decision() -> World:
    """The last of four tokens decides."""
    levels = [*([_tilted(2)] * 3), {WRONG: 0.6, RIGHT: 0.4}]
    tree = Tree(product(levels, lambda y: y[3]))
    return World("late decision", "the last of 4 tokens decides: right or wrong", tree)


def distractors() -> World:
    """Two deciding tokens, each followed by one of three that mean nothing."""
    levels = [{WRONG: 0.4, RIGHT: 0.6}, _tilted(3), {WRONG: 0.5, RIGHT: 0.5}, _tilted(3)]
    tree = Tree(product(levels, lambda y: float(y[0] == y[2] == RIGHT)))
    return World(
        "distractor tokens", "2 deciding tokens must be right, each followed by 1 of 3 that mean nothing", tree
    )


def shared_prefixes() -> World:
    """Three deciding tokens in a row; two right ones are enough."""
    levels = [{WRONG: 0.5, RIGHT: 0.5}, {WRONG: 0.4, RIGHT: 0.6}, {WRONG: 0.6, RIGHT: 0.4}]
    return World("shared prefixes", "2 of 3 tokens must be right", Tree(product(levels, lambda y: float(sum(y) >= 2))))


def unique_nonce() -> World:
    """The same after a first token of 64, so that hardly two responses share a prefix."""
    levels = [_tilted(64), {WRONG: 0.5, RIGHT: 0.5}, {WRONG: 0.4, RIGHT: 0.6}, {WRONG: 0.6, RIGHT: 0.4}]
    tree = Tree(product(levels, lambda y: float(sum(y[1:]) >= 2)))
    return World("unique nonce", "shared prefixes after a first token of 64 that means nothing", tree)


def long_chain() -> World:
    """Eight tokens that must all be right."""
    levels = [{WRONG: 0.25, RIGHT: 0.75}] * 8
    return World("long chain", "8 tokens must all be right", Tree(product(levels, lambda y: float(all(y)))))


def graded_outcome() -> World:
    """The outcome is one of four values, the rarest the best."""
    levels = [{WRONG: 0.5, RIGHT: 0.5}, {WRONG: 0.7, RIGHT: 0.3}, {WRONG: 0.6, RIGHT: 0.4}]
    worth = {(0, 0): 0.2, (0, 1): 0.3, (1, 0): 0.0, (1, 1): 1.0}
    tree = Tree(product(levels, lambda y: worth[y[0], y[1]] * (1.0 if y[2] else 0.8)))
    return World("graded outcome", "3 tokens, 7 different outcomes from 0 to 1", tree)


def two_prompts() -> World:
    """An easy and a hard prompt."""
    easy = product([{WRONG: 0.1, RIGHT: 0.9}, _tilted(2)], lambda y: y[0])
    hard = product([_tilted(2), {WRONG: 0.9, RIGHT: 0.1}], lambda y: y[1], prompt=1)
    return World("two prompts", "an easy prompt (9 in 10 right) and a hard one (1 in 10)", Tree([*easy, *hard]))


def dense_rewards() -> World:
    """Rewards with every token, responses of one to three."""
    nodes = [
        Node((), {0: 0.2, 1: 0.5, 2: 0.3}, {0: 0.1}),
        Node((1,), {0: 0.4, 1: 0.6}, {0: 0.5, 1: 0.2}),
        Node((1, 1), {0: 0.7, 2: 0.3}, {0: 1.0, 2: -0.5}),
        Node((2,), {1: 1.0}),
        Node((2, 1), {0: 0.9, 2: 0.1}, {2: 2.0}),
    ]
    return World(
        "dense rewards", "every token pays, from -0.5 to 2; responses of 1 to 3 tokens", Tree(nodes), dense=True
    )


def stopping() -> World:
    """An agent that may stop after every turn, paid every turn."""
    nodes = [
        Node((), {STOP: 0.4, GO: 0.6}, {STOP: 1.0, GO: 0.3}),
        Node((GO,), {STOP: 0.5, GO: 0.5}, {STOP: 0.9, GO: 0.3}),
        Node((GO, GO), {STOP: 0.2, GO: 0.8}, {STOP: 0.6}),
    ]
    what = "an agent may stop after each of 3 turns, and every turn pays"
    return World("stopping matters", what, Tree(nodes), dense=True, turns=True)


def all_returns_equal() -> World:
    """An agent that may stop, and earns 1 whenever it does."""
    nodes = [
        Node((), {STOP: 0.5, GO: 0.5}, {STOP: 1.0, GO: 0.5}),
        Node((GO,), {STOP: 0.5, GO: 0.5}, {STOP: 0.5, GO: 0.5}),
        Node((GO, GO), {STOP: 1.0}),
    ]
    what = "an agent may stop when it likes, and every way earns 1: the true gradient is 0"
    return World("all returns equal", what, Tree(nodes), dense=True, turns=True)


def random_transitions() -> World:
    """Two turns of an agent, each answered by an environment that throws dice."""
    return World(
        "random transitions",
        "2 turns, each answered by an environment at random; the answers' sum decides",
        Tree(list(_answered())),
        turns=True,
        seen=lambda prefix: f"turn {len(prefix) // 2}, {sum(prefix[1::2])} so far",
    )


def _answered() -> Iterator[Node]:
    luck = {WRONG: 0.2, RIGHT: 0.8}
    for turn in range(2):
        for prefix in itertools.product((WRONG, RIGHT), repeat=2 * turn):
            yield Node(prefix, {WRONG: 0.4, RIGHT: 0.6} if turn else {WRONG: 0.5, RIGHT: 0.5})
            for action in (WRONG, RIGHT):
                here = (*prefix, action)
                rewards = {answer: float(prefix[1] + answer == 2) for answer in luck} if turn else {}
                answers = {a: luck[a] if action else 1 - luck[a] for a in luck}
                yield Node(here, answers, rewards, chance=True)


def graded_transitions() -> World:
    """The same, paid by the answers every turn."""
    nodes = [
        Node(node.prefix, node.probabilities, {RIGHT: 1.0 - 0.5 * (len(node.prefix) // 2)}, chance=True)
        if node.chance
        else node
        for node in _answered()
    ]
    what = "the same, but every answer pays, the first twice as much"
    return World("paid transitions", what, Tree(nodes), True, True, random_transitions().seen)


WORLDS: dict[str, Callable[[], World]] = {
    "early_decision": early_decision,
    "late_decision": late_decision,
    "distractor_tokens": distractors,
    "shared_prefixes": shared_prefixes,
    "unique_nonce": unique_nonce,
    "long_chain": long_chain,
    "graded_outcome": graded_outcome,
    "two_prompts": two_prompts,
    "dense_rewards": dense_rewards,
    "stopping": stopping,
    "all_returns_equal": all_returns_equal,
    "random_transitions": random_transitions,
    "paid_transitions": graded_transitions,
}
"""By the name the command line takes."""
