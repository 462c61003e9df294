"""Values of forks from the outcomes below them, and baselines of draws from their siblings.

Suffix legend: E episodes, D draws, F forks, N tokens, X nodes of the prefix tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.algebra import Work
from apportion.credit.prefixes import PrefixTree
from apportion.credit.trees.draws import DrawTree
from apportion.rollouts import Rollouts


@dataclass(frozen=True, eq=False)
class Values:
    """What is known of draws and forks.

    Attributes:
        draw: what a draw led to ``[D]``: the outcome where it ends, else the value of the fork it leads to.
        count: what it counts for at its fork ``[D]``; 0 where nothing below it has a known outcome.
        fork: mean of a fork's draws ``[F]``; 0 without any.
        total: the sum of their counts ``[F]``.
    """

    draw: Tensor
    count: Tensor
    fork: Tensor
    total: Tensor


def back_up(tree: DrawTree, outcome: Tensor, known: Tensor, by_leaves: bool = False) -> Values:
    """Values from the leaves up.

        X(d) = R where the draw ends, V(f) where it leads to fork f
        V(f) = mean of X over the draws at f that have a known outcome below them

    Every draw counts once, whatever grew out of it. Where the rule looks at the prefix alone a draw is a sample of what
    the policy does at its fork, and so V is unbiased. The mean over *leaves* is not: a fork that leads to many leaves
    was chosen by where it stands.

    Args:
        tree: from :func:`~apportion.credit.trees.draws.draw_tree`.
        outcome: of every episode ``[E]``.
        known: which of them count ``[E]``.
        by_leaves: a draw counts as often as it has leaves; for comparison.

    Example:
        >>> from apportion.credit.trees import draw_tree
        >>> flat = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0])
        >>> back_up(draw_tree(flat), torch.tensor([1.0, 0.0]), torch.tensor([True, True])).fork.tolist()
        [0.5]
    """
    leaf = tree.below < 0
    draw = torch.where(leaf, outcome[tree.row], 0.0)
    count = (leaf & known[tree.row]).to(outcome.dtype)
    fork, total = outcome.new_zeros(tree.n_forks), outcome.new_zeros(tree.n_forks)
    for level in reversed(range(tree.depth)):
        here = (tree.level[tree.above] == level).nonzero().squeeze(1)
        inner = here[~leaf[here]]
        draw[inner] = fork[tree.below[inner]]
        below = total[tree.below[inner]]
        count[inner] = below if by_leaves else (below > 0).to(outcome.dtype)
        at = tree.above[here]
        total.index_add_(0, at, count[here])
        fork.index_add_(0, at, count[here] * draw[here])
        forks = (tree.level == level).nonzero().squeeze(1)
        fork[forks] = fork[forks] / total[forks].clamp(min=1)
    return Values(draw, count, fork, total)


def others(tree: DrawTree, values: Values) -> tuple[Tensor, Tensor]:
    """Mean of the other draws at the same fork, and how much they count, ``[D]`` each; mean 0 without any."""
    rest = values.total[tree.above] - values.count
    # By deviations from the mean of all: the difference of two large sums loses what is small beside them.
    middle = values.fork[tree.above]
    mean = middle - values.count * (values.draw - middle) / rest.clamp(min=1)
    return torch.where(rest > 0, mean, 0.0), rest


def baselines(tree: DrawTree, values: Values) -> tuple[Tensor, Tensor]:
    """Baselines that do not depend on the draw itself.

    The mean of the other draws at the draw's fork; where there are no others, the baseline of the draw that leads to
    that fork, which is the mean of *its* siblings; and so on upwards.

    Returns:
        baselines ``[D]``, and whether there is one, bool ``[D]``: none where a draw has no siblings all the way up.
    """
    baseline, rest = others(tree, values)
    has = rest > 0
    for level in range(tree.depth):
        here = ((tree.level[tree.above] == level) & ~has).nonzero().squeeze(1)
        parent = tree.into[tree.above[here]]
        given = parent >= 0
        source = parent.clamp(min=0)
        baseline[here] = torch.where(given, baseline[source], 0.0)
        has[here] = given & has[source]
    return baseline, has


def node_values(rollouts: Rollouts, tree: DrawTree, values: Values, prefixes: PrefixTree) -> Tensor:
    """Value of every prefix that was passed ``[X]``.

        V(p) = sum w_t X_t / sum w_t   over the drawn tokens t that lead to p

    with w the sampling weight of a token and X what its draw led to: prefixes that merely coincide are weighted means
    of the draws through them. For flat samples it is the mean outcome of the episodes that begin with p (TEMPO). A fork
    whose rule looked ahead has the mean of its own draws.

    Args:
        rollouts: what was sampled.
        tree: its draws.
        values: of them.
        prefixes: its prefixes, from :func:`apportion.credit.prefixes.prefix_tree`.
    """
    total = values.draw.new_zeros(prefixes.n_nodes)
    weight = torch.zeros_like(total)

    def collect(node: Tensor, value: Tensor, share: Tensor) -> None:
        total.index_add_(0, node, share * value)
        weight.index_add_(0, node, share)

    tokens = (tree.of_token >= 0).nonzero().squeeze(1)
    draw = tree.of_token[tokens]
    share = rollouts.weight.to(total.dtype)[tokens] * (values.count[draw] > 0)
    collect(prefixes.after[tokens], values.draw[draw], share)
    first = ((tree.into[tree.above] < 0) & ~tree.original).nonzero().squeeze(1)
    collect(prefixes.root[tree.row[first]], values.draw[first], values.count[first])
    # Behind what a tool said nobody drew the token that led there: what is drawn from there speaks for it.
    heard = weight[prefixes.before[tokens]] == 0
    collect(prefixes.before[tokens[heard]], values.draw[draw[heard]], share[heard])
    result = torch.where(weight > 0, total / torch.where(weight > 0, weight, 1.0), 0.0)

    begun = tokens[_begins(draw)]
    at = tree.above[tree.of_token[begun]]
    chosen = tree.ahead[at] & (values.total[at] > 0)
    result[prefixes.before[begun[chosen]]] = values.fork[at[chosen]]
    return result


def _begins(draw: Tensor) -> Tensor:
    """Bool: the first token of its draw; draws are contiguous."""
    return torch.cat([draw.new_ones(1, dtype=torch.bool), draw[1:] != draw[:-1]])[: len(draw)]


@dataclass(frozen=True, eq=False)
class Scored:
    """Rollouts with the outcomes a method may read.

    Attributes:
        rollouts: all of them, those without a verdict included.
        outcome: ``[E]``.
        known: ``[E]``.
        tokens: the tokens of ``work.rollouts`` among those of ``rollouts``; None: all.
    """

    rollouts: Rollouts
    outcome: Tensor
    known: Tensor
    tokens: Tensor | None

    def seen(self, values: Tensor) -> Tensor:
        """Values of tokens ``[N]`` at the tokens the method credits."""
        return values if self.tokens is None else values[self.tokens]


def scored(work: Work, component: str) -> Scored:
    """The outcomes of the episodes a method sees, in their places among all."""
    reward = work.up(component)
    whole, members = work.whole, work.members
    if whole is None or members is None or bool(members.all()):
        return Scored(work.rollouts, reward, torch.ones_like(reward, dtype=torch.bool), None)
    outcome = reward.new_zeros(whole.n_episodes).index_put_((members,), reward)
    return Scored(whole, outcome, members, whole.indices(members)["token"])


def on_tokens(tree: DrawTree, values: Tensor) -> Tensor:
    """Values of draws ``[D]`` at their tokens ``[N]``; 0 where a token was inherited."""
    if not len(values):
        return values.new_zeros(len(tree.of_token))
    return torch.where(tree.of_token >= 0, values[tree.of_token.clamp(min=0)], 0.0)
