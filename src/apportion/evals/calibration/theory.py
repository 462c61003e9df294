"""Identities of credit assignment on a tree: what shaping, redistribution, hindsight, ablation and resampling do.

Suffix legend: S states, K edges, L leaves, N tokens of all leaves end to end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.recursions import reverse_discounted_sum
from apportion.errors import InputError
from apportion.evals.calibration.tree import Tree
from apportion.rollouts import ragged

SAME_RETURN = 1e-9
"""Returns that differ by no more are one."""


def shaped_rewards(tree: Tree, potential: Tensor) -> Tensor:
    """Rewards with a potential's differences added, which change no advantage.

        r'(s, a) = r(s, a) + Phi(s a) - Phi(s),    Phi = 0 where the response is finished

    Args:
        tree: whose.
        potential: Phi ``[S]``; what it says of finished responses is not read.

    Source: Ng, Harada and Russell 1999.
    """
    inner = torch.zeros(tree.n_states, dtype=torch.bool)
    inner[tree.state] = True
    phi = torch.where(inner, potential, 0.0)
    return tree.reward + phi[tree.to] - phi[tree.state]


def returns_to_go(tree: Tree) -> Tensor:
    """What every token of every leaf and those after it earn ``[N]``."""
    return reverse_discounted_sum(tree.reward[tree.path], tree.offsets)


def expected_returns(tree: Tree) -> Tensor:
    """g: what a leaf's tokens have earned and what is still expected, before every token ``[N]``.

    After the last token it is the return, so ``g`` of the next token minus ``g`` is the best redistribution of it.
    """
    earned = tree.leaf_return[ragged.row_of(tree.offsets)] - returns_to_go(tree)
    return earned + tree.values().state[tree.state[tree.path]]


def redistributed(tree: Tree) -> Tensor:
    """RUDDER's best redistribution of the return over the tokens of every leaf ``[N]``: it sums to R - V(prompt).

        r~_t = g_{t+1} - g_t

    With deterministic transitions this is the advantage.

    Source: Arjona-Medina et al. 2019.
    """
    g = expected_returns(tree)
    after = torch.cat([g[1:], g[:1]])
    after[tree.offsets[1:] - 1] = tree.leaf_return
    return after - g


@dataclass(frozen=True, eq=False)
class Hindsight:
    """h(a | s, Z), one row for every state, return-to-go Z that may follow, and token.

    Attributes:
        edge: ``[n]``.
        value: Z ``[n]``.
        probability: h ``[n]``.
        share: P(Z | s) ``[n]``.
    """

    edge: Tensor
    value: Tensor
    probability: Tensor
    share: Tensor


def hindsight(tree: Tree) -> Hindsight:
    """Which token was likely taken, given what came of it.

        h(a | s, Z) = P(a | s, Z),    A(s, a) = sum_Z P(Z | s) (h(a | s, Z) / pi(a | s) - 1) Z

    Source: Harutyunyan et al. 2019.
    """
    token_return, leaf = returns_to_go(tree), ragged.row_of(tree.offsets)
    state_of_token = tree.state[tree.path]
    rows: list[tuple[int, float, float, float]] = []
    for state in torch.unique(tree.state).tolist():
        here = (state_of_token == state).nonzero().squeeze(1)
        weight = tree.leaf_probability[leaf[here]]
        weight = weight / weight.sum()
        order = torch.argsort(token_return[here])
        values = token_return[here][order]
        apart = torch.cat([values.new_zeros(1), (values.diff() > SAME_RETURN).double()]).cumsum(0).long()
        for number in range(int(apart.max()) + 1):
            of = order[apart == number]
            share = float(weight[of].sum())
            for edge in (tree.state == state).nonzero().squeeze(1).tolist():
                taken = float(weight[of][tree.path[here[of]] == edge].sum())
                rows.append((edge, float(values[apart == number][0]), taken / share, share))
    edge, value, probability, share_ = zip(*rows, strict=True)
    return Hindsight(torch.tensor(edge), *(torch.tensor(c, dtype=torch.float64) for c in (value, probability, share_)))


def hindsight_advantages(tree: Tree, given: Hindsight) -> Tensor:
    """The advantages that hindsight gives ``[K]``."""
    terms = given.share * (given.probability / tree.probability[given.edge] - 1) * given.value
    return torch.zeros(tree.n_edges, dtype=torch.float64).index_add_(0, given.edge, terms)


def return_variance(tree: Tree, reward: Tensor | None = None) -> Tensor:
    """Variance of what follows every state ``[S]``."""
    reward = tree.reward if reward is None else reward
    values = tree.values(reward)
    after = values.state[tree.to]
    second = tree.induct(reward**2 + 2 * reward * after)[0]
    return (second - values.state**2).clamp(min=0)


def fresh_variance(tree: Tree, rollouts: int) -> Tensor:
    """Variance of ``r + mean_K G(s a) - mean_K G(s)`` over fresh continuations of both ``[K]``; its mean is A.

    Args:
        tree: whose.
        rollouts: K, drawn from either state.

    Source: VinePPO, arXiv 2410.01679.
    """
    if rollouts < 1:
        raise InputError(f"got {rollouts} rollouts a prefix, expected at least 1.")
    variance = return_variance(tree)
    return (variance[tree.state] + variance[tree.to]) / rollouts


def soft_values(tree: Tree, beta: float) -> tuple[Tensor, Tensor]:
    """Soft values ``[S]`` and ``[K]`` of the tree's policy as the reference.

        U(s) = beta log sum_a pi_ref(a | s) exp((r(s, a) + U(s a)) / beta)

    where the policy draws; an expectation where the environment does. The policy that maximises the reward minus beta
    times the divergence is ``pi_ref exp((Q_U - U) / beta)``, and its implicit reward ``Q_U - U``.

    Raises:
        InputError: a beta that is not positive.
    """
    return _soft(tree, _checked(beta))


def tuned_from(tree: Tree, beta: float) -> Tensor:
    """Log-probs ``[K]`` of the reference that the tree's policy is the soft optimum of; 0 where the environment draws.

    U(s) = -beta log sum_a pi(a | s) exp(-(r(s, a) + U(s a)) / beta),    pi_ref = pi exp(-(r + U(s a) - U(s)) / beta)
    """
    value, q = _soft(tree, -_checked(beta))
    return torch.where(tree.decides, tree.probability.log() - (q - value[tree.state]) / beta, 0.0)


def _checked(beta: float) -> float:
    if not 0 < beta < math.inf:
        raise InputError(f"beta is {beta}, expected more than 0.")
    return beta


def _soft(tree: Tree, beta: float) -> tuple[Tensor, Tensor]:
    value, q = torch.zeros(tree.n_states, dtype=torch.float64), torch.zeros(tree.n_edges, dtype=torch.float64)
    for edges in reversed(tree.layers):
        q[edges] = tree.reward[edges] + value[tree.to[edges]]
        state, p = tree.state[edges], tree.probability[edges]
        extreme = torch.full((tree.n_states,), -torch.inf, dtype=torch.float64)
        extreme = extreme.scatter_reduce(0, state, q[edges] / beta, "amax")
        total = torch.zeros_like(value).index_add_(0, state, p * (q[edges] / beta - extreme[state]).exp())
        mean = torch.zeros_like(value).index_add_(0, state, p * q[edges])
        here = torch.unique(state)
        soft = beta * (extreme[here] + total[here].log())
        policy = torch.zeros(tree.n_states, dtype=torch.bool)
        policy[state] = tree.decides[edges]
        value[here] = torch.where(policy[here], soft, mean[here])
    return value, q


def shapley(value: Mapping[frozenset[int], float], segments: int) -> list[float]:
    """Shapley values of segments, which sum to ``v(all) - v(empty)``.

        phi_i = sum_S |S|! (m - |S| - 1)! / m!  (v(S and i) - v(S))      over sets S without i

    Args:
        value: v of every set of segments, which are counted from 0.
        segments: m.

    Raises:
        InputError: a set without a value.

    Example:
        >>> shapley({frozenset(): 0.0, frozenset({0}): 1.0, frozenset({1}): 0.0, frozenset({0, 1}): 2.0}, 2)
        [1.5, 0.5]
    """
    members = range(segments)
    result = []
    for i in members:
        total = 0.0
        for size in range(segments):
            factor = math.factorial(size) * math.factorial(segments - size - 1) / math.factorial(segments)
            for others in itertools.combinations([m for m in members if m != i], size):
                total += factor * (value_of(value, {*others, i}) - value_of(value, others))
        result.append(total)
    return result


def value_of(value: Mapping[frozenset[int], float], members: Collection[int]) -> float:
    """The value of a set of segments; one that is missing is refused."""
    if frozenset(members) not in value:
        raise InputError(f"the segments {sorted(members)} have no value, expected one for every set of segments.")
    return value[frozenset(members)]


def turn_index_limit(tree: Tree) -> tuple[Tensor, Tensor]:
    """Where per-turn-index normalisation leads as groups grow: its mean rewards by turn, and its gradient ``[K]``.

        mu_k = E[r_k | there is a turn k],    A_t = sum_{k >= t} (r_k - mu_k)

    The number of terms is the response's own, so going on is charged what others earned by it: the gradient is that of
    the return minus ``mu_{k+1}`` for every token of turn k after which there is another.
    """
    position = torch.tensor([len(tree.places[s][1]) for s in tree.state.tolist()])
    weight = tree.reach[tree.state] * tree.probability
    turns = int(position.max()) + 1
    paid = torch.zeros(turns, dtype=torch.float64).index_add_(0, position, weight * tree.reward)
    mean = paid / torch.zeros_like(paid).index_add_(0, position, weight)
    goes_on = torch.zeros(tree.n_states, dtype=torch.bool)
    goes_on[tree.state] = True
    charge = torch.where(goes_on[tree.to], torch.cat([mean[1:], mean.new_zeros(1)])[position], 0.0)
    return mean, tree.values(tree.reward - charge).gradient
