"""What critics, process rewards and judges would say, planted from exact values with an error of stated size.

An annotator is as wrong at a place today as tomorrow: errors are drawn once for every place of a world (a state, an
edge, a step's last edge), so they are part of what is measured and never average out. With noise e

    a number      has a normal error with e times the standard deviation of the exact numbers
    a verdict     is turned round with probability e / 2, so that 1 is a coin

Suffix legend: S states, K edges, L leaves, N tokens of all leaves, T steps.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from apportion.annotations import ANNOTATORS
from apportion.evals.calibration import theory
from apportion.evals.calibration.groups import continued
from apportion.evals.calibration.tree import Tree, Values
from apportion.evals.calibration.worlds import World
from apportion.rollouts import Rollouts, Steps, ragged, steps

BETA = 0.5
"""Temperature that the policy was tuned with from the planted reference, and of the planted process reward model."""

KL_COEFFICIENT = 0.2
"""Of the divergence as a reward of its own, whose exact values ``values/kl`` are: the default of constrained RLHF."""

CRITICS = 3
"""Critiques of a step."""

FRESH = 9
"""Fresh continuations of a state: VinePPO's main setting."""


@dataclass(frozen=True, eq=False)
class Garden:
    """A world, and how wrong what is planted in it is.

    Attributes:
        world: whose exact values are planted.
        noise: e.
        seed: of the errors.
    """

    world: World
    noise: float
    seed: int

    @property
    def tree(self) -> Tree:
        return self.world.tree

    @property
    def leaves(self) -> Rollouts:
        return self.world.leaves

    @cached_property
    def exact(self) -> Values:
        return self.tree.values()

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + zlib.crc32(f"{self.world.name} {name}".encode()))

    def numbers(self, exact: Tensor, name: str) -> Tensor:
        """Numbers of places with their errors."""
        spread = exact.std() if len(exact) > 1 else exact.new_zeros(())
        error = torch.randn(exact.shape, generator=self._generator(name), dtype=torch.float64)
        return exact + self.noise * spread * error

    def verdicts(self, exact: Tensor, name: str) -> Tensor:
        """Verdicts on places with their errors."""
        turned = torch.rand(exact.shape, generator=self._generator(name), dtype=torch.float64) < self.noise / 2
        return exact ^ turned

    # Steps

    @cached_property
    def table(self) -> Steps:
        """The ``step`` spans of the leaves, which in worlds of turns are the turns."""
        return steps(self.leaves, "step")

    @cached_property
    def decisions(self) -> Steps:
        """What methods of several decisions see: turns, or whole responses."""
        return steps(self.leaves)

    @cached_property
    def before(self) -> Tensor:
        """g, the expected return given what came before every token ``[N]``."""
        return theory.expected_returns(self.tree)

    def gains(self, table: Steps) -> Tensor:
        """Exact advantages of steps: of their tokens, summed ``[T]``."""
        credit = torch.where(self.leaves.trained, self.exact.advantage[self.tree.path], 0.0)
        step = table.step_of_token
        inside = step >= 0
        return torch.zeros(len(table), dtype=torch.float64).index_add_(0, step[inside], credit[inside])

    def last_edge(self, table: Steps) -> Tensor:
        """The edge every step ends with ``[T]``: its place."""
        return self.tree.path[table.ends - 1]

    def answered_edge(self, table: Steps) -> Tensor:
        """The edge before the next step, or the last: that of the environment's answer where it gave one ``[T]``."""
        ends = self.leaves.token_offsets[1:][table.episode]
        following = torch.cat([table.starts[1:], ends[-1:]])
        return self.tree.path[torch.minimum(following, ends) - 1]

    def of_places(self, edge_T: Tensor, exact_T: Tensor) -> Tensor:
        """Numbers of steps as numbers of places ``[K]``; steps at a place have equal numbers."""
        result = torch.zeros((self.tree.n_edges, *exact_T.shape[1:]), dtype=exact_T.dtype)
        result[edge_T] = exact_T
        return result

    def numbers_of_steps(self, edge_T: Tensor, exact_T: Tensor, name: str) -> Tensor:
        """Numbers of steps with the errors of their places ``[T]``."""
        return self.numbers(self.of_places(edge_T, exact_T), name)[edge_T]

    def verdicts_of_steps(self, edge_T: Tensor, exact_T: Tensor, name: str) -> Tensor:
        """Verdicts on steps with the errors of their places ``[T]``."""
        return self.verdicts(self.of_places(edge_T, exact_T), name)[edge_T]


Plant = Callable[[Garden, Rollouts, str], Rollouts]
"""From a garden, its leaves as planted so far and the name of what a method needs, to leaves that have it."""


def _values(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    value = garden.numbers(garden.exact.state, name)
    return leaves.with_statistic(name, value[garden.tree.state[garden.tree.path]], "calibration")


def _values_of_divergence(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    value = garden.numbers(garden.tree.values(divergence_reward(garden, KL_COEFFICIENT)).state, name)
    return leaves.with_statistic(name, value[garden.tree.state[garden.tree.path]], "calibration")


def _exact(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    return leaves.with_statistic(name, garden.exact.advantage[garden.tree.path], "calibration")


def reference(garden: Garden) -> Tensor:
    """Log-probs ``[K]`` of the reference that the policy was tuned from."""
    return _normalised(garden, theory.tuned_from(garden.tree, BETA), "log_probs/reference")


def divergence_reward(garden: Garden, coefficient: float) -> Tensor:
    """``-coefficient (log pi - log pi_ref)`` of every edge of the policy ``[K]``."""
    ratio = garden.tree.probability.log() - reference(garden)
    return torch.where(garden.tree.decides, -coefficient * ratio, 0.0)


def _reference(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    return leaves.with_statistic(name, reference(garden)[garden.tree.path], "calibration")


def _process_model(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    logs = _normalised(garden, garden.tree.probability.log() + garden.exact.advantage / BETA, name)
    return leaves.with_statistic(name, logs[garden.tree.path], "calibration")


def _normalised(garden: Garden, logits: Tensor, name: str) -> Tensor:
    """Logits of edges with their errors, as log-probs; the policy's own where the environment draws."""
    noisy = garden.numbers(logits, name)
    total = garden.tree.over_edges(noisy.exp())[garden.tree.state]
    return torch.where(garden.tree.decides, (noisy - total.log()).clamp(max=0.0), garden.tree.probability.log())


def _process_reward(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """What return is to be expected after a step."""
    table = garden.table
    after = _after(garden, table)
    values = garden.numbers_of_steps(garden.answered_edge(table), after, name)
    return leaves.with_reward(name.removeprefix("reward/"), values, level="step")


def _proxy(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """The return redistributed: what a step added to the expected return; the first also what was expected."""
    table, after = garden.table, _after(garden, garden.table)
    first = table.index == 0
    before = torch.cat([after.new_zeros(1), after[:-1]])
    share = after - torch.where(first, 0.0, before)
    values = garden.numbers_of_steps(garden.answered_edge(table), share, name)
    return leaves.with_reward(name.removeprefix("reward/"), values, level="step")


def _after(garden: Garden, table: Steps) -> Tensor:
    """g before the next step, or the return after the last ``[T]``: the environment's answer is known by then."""
    following = torch.cat([garden.before[table.starts[1:]], garden.before.new_zeros(1)])
    last = torch.cat([table.episode[1:] != table.episode[:-1], torch.ones(1, dtype=torch.bool)])
    return torch.where(last, garden.tree.leaf_return[table.episode], following)


def _step_reward(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """The task's own rewards, by decision; a reward of the whole is the last one's."""
    table = garden.decisions
    paid = garden.world.token_rewards
    step = table.step_of_token
    inside = step >= 0
    values = torch.zeros(len(table), dtype=torch.float64).index_add_(0, step[inside], paid[inside])
    return leaves.with_reward(name.removeprefix("reward/"), values, level=table.level)


def _state_key(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    table, seen = garden.decisions, garden.world.seen
    keys = []
    for state in garden.tree.state[garden.tree.path[table.starts]].tolist():
        prompt, prefix = garden.tree.places[state]
        keys.append(f"{prompt}: {seen(prefix) if seen else prefix}")
    return leaves.with_column(f"{table.level}:state_key", keys)


def _critique(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """A step is wrong if it lowered the expected return."""
    table = garden.table
    wrong = (garden.gains(table) < -1e-9)[:, None].expand(-1, CRITICS)
    said = garden.verdicts_of_steps(garden.last_edge(table), wrong, name)
    return leaves.with_reward(name.removeprefix("reward/"), said.double(), level="step")


def _label(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """A step goes with its outcome if it moved the expected return towards it; the last always does."""
    table = garden.table
    edge, gains = garden.last_edge(table), garden.gains(table)
    better, worse = (garden.verdicts_of_steps(edge, side, name) for side in (gains >= -1e-9, gains <= 1e-9))
    right = (garden.tree.leaf_return == 1)[table.episode]
    last = table.index == ragged.lengths_of(table.offsets)[table.episode] - 1
    words = {(True, True): "correct", (True, False): "incorrect", (False, True): "match", (False, False): "uncertain"}
    goes_with = torch.where(right, better, worse) | last
    labels = [words[pair] for pair in zip(right.tolist(), goes_with.tolist(), strict=True)]
    return leaves.with_column(name, labels)


def _thinking(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """The share of steps that did not lower the expected return."""
    table = garden.table
    sound = (garden.gains(table) >= -1e-9).double()
    share = ragged.sum_rows(sound, table.offsets) / ragged.lengths_of(table.offsets)
    return leaves.with_reward(name.removeprefix("reward/"), garden.numbers(share, name).clamp(0, 1))


def _subgoals(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """A decision achieved a subgoal if it raised the expected return."""
    table = garden.decisions
    said = garden.verdicts_of_steps(garden.last_edge(table), garden.gains(table) > 1e-9, name)
    return leaves.with_reward(name.removeprefix("reward/"), said.double()[:, None], level=table.level)


def _attribution(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """How much a decision raised the expected return, 0 to 3; -1 where it lowered it."""
    table = garden.decisions
    gain = garden.numbers_of_steps(garden.last_edge(table), garden.gains(table), name)
    most = float(gain.max().clamp(min=1e-9))
    given = torch.where(gain < -1e-9, -1.0, (3 * gain / most).round().clamp(0, 3))
    return leaves.with_reward(name.removeprefix("reward/"), given, level=table.level)


def _plans(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """Tokens that move the expected return by more than half of all do."""
    size = garden.exact.advantage.abs()
    marked = garden.verdicts(size > size[garden.tree.decides].median(), name)
    return leaves.with_column(name, marked[garden.tree.path])


def _attention(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """Attention goes to tokens by how much they move the expected return."""
    size = garden.numbers(garden.exact.advantage.abs(), name)
    return leaves.with_statistic(name, size[garden.tree.path], "calibration")


def _macros(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    return ANNOTATORS["macro_actions"](rule="fixed(n=2)").apply(leaves, None)


def _truncated(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    """Where lengths differ, the longest responses were cut off."""
    length = ragged.lengths_of(garden.tree.offsets)
    return leaves.with_column(name, (length == length.max()) & (length.min() < length.max()))


def _there(garden: Garden, leaves: Rollouts, name: str) -> Rollouts:
    return leaves


@dataclass(frozen=True)
class Kind:
    """Something that can be planted.

    Attributes:
        plant: how.
        noisy: an annotator makes it, and errs; otherwise it is a fact.
        who: makes it in a run.
    """

    plant: Plant
    noisy: bool = False
    who: str = ""


PLANTS: dict[str, Kind] = {
    "reward/outcome": Kind(_there),
    "log_probs/old": Kind(_there),
    "reward/step": Kind(_step_reward),
    "steps:state_key": Kind(_state_key),
    "response:truncated": Kind(_truncated),
    "macro:size": Kind(_macros),
    "exact/advantage": Kind(_exact),
    "values/kl": Kind(_values_of_divergence, True, "critic"),
    "values/critic": Kind(_values, True, "critic"),
    "values/outcome": Kind(_values, True, "critic"),
    "values/fresh": Kind(_there),
    "log_probs/reference": Kind(_reference, True, "reference"),
    "log_probs/prm": Kind(_process_model, True, "process reward"),
    "reward/prm": Kind(_process_reward, True, "process reward"),
    "reward/proxy": Kind(_proxy, True, "return decoder"),
    "reward/critique": Kind(_critique, True, "judge"),
    "step:label": Kind(_label, True, "judge"),
    "reward/thinking": Kind(_thinking, True, "judge"),
    "reward/subgoals": Kind(_subgoals, True, "judge"),
    "reward/attribution/outcome": Kind(_attribution, True, "judge"),
    "planning/grams": Kind(_plans, True, "planning grams"),
    "waad/old": Kind(_attention, True, "attention"),
    "fai/old": Kind(_attention, True, "attention"),
}
"""By the name that methods need it by."""


def missing(needs: Sequence[str]) -> list[str]:
    """What nothing here can plant."""
    return [name for name in needs if name not in PLANTS]


def planted(garden: Garden, needs: Sequence[str]) -> Rollouts:
    """The world's leaves with what a method needs."""
    leaves = garden.leaves
    for name in needs:
        leaves = PLANTS[name].plant(garden, leaves, name)
    return leaves


def fresh_values(tree: Tree, seed: int, count: int = FRESH) -> Callable[[Rollouts, Tensor], Rollouts]:
    """Adds ``values/fresh``: the mean return of fresh continuations of the state before every token.

    Args:
        tree: of the world.
        seed: of the continuations.
        count: of them for every state.
    """
    generator = torch.Generator().manual_seed(seed)
    to_go = theory.returns_to_go(tree)

    def add(rollouts: Rollouts, leaf: Tensor) -> Rollouts:
        places = ragged.ranges(tree.offsets[leaf], tree.offsets[leaf + 1])
        state = tree.state[tree.path[places]]
        drawn = continued(tree, state.expand(count, -1), generator)
        depth = places - tree.offsets[leaf][rollouts.response_of_token]
        # A drawn leaf passes through the state at the same depth; from there on its tokens earn what is still to come.
        return rollouts.with_statistic("values/fresh", to_go[tree.offsets[drawn] + depth].mean(0), "calibration")

    return add
