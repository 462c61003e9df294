"""What the uniform random policy is worth on a tree with rewarded leaves, and what acting on that value is worth.

On a tree whose only reward is 0 or 1 at the end, the value of the random policy is positive just where a rewarded leaf
can still be reached, so that being greedy on it is optimal. Trees are as in :mod:`apportion.credit.soft_optimal`.

Suffix legend: V tokens, S prefixes of one depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.credit.soft_optimal import Tree, backward_induction
from apportion.errors import InputError


def rewarded_leaves(vocabulary: int, depth: int, rewarded: Sequence[Sequence[int]]) -> list[Tensor]:
    """The tree in which some sequences of ``depth`` tokens end with reward 1.

    Raises:
        InputError: a sequence of another length, or with a token outside the vocabulary.
    """
    rewards = [torch.zeros((vocabulary**d, vocabulary), dtype=torch.float64) for d in range(depth)]
    for sequence in rewarded:
        if len(sequence) != depth or not all(0 <= token < vocabulary for token in sequence):
            raise InputError(f"{list(sequence)} is rewarded, expected {depth} tokens from 0 to {vocabulary - 1}.")
        row = sum(token * vocabulary ** (depth - 2 - i) for i, token in enumerate(sequence[:-1]))
        rewards[-1][row, sequence[-1]] = 1.0
    return rewards


def uniform_q(rewards: Tree) -> list[Tensor]:
    """``Q(s, a) = r(s, a) + mean over a' of Q(s a, a')`` of the uniform policy, by depth ``[S, V]``.

    Source: arXiv 2509.24981.

    Example:
        >>> [q.tolist() for q in uniform_q(rewarded_leaves(2, 2, [[0, 1]]))]
        [[[0.5, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]
    """
    return backward_induction(rewards, lambda q_SV, depth: q_SV.mean(1))[0]


def softmax_policy(q: Tree, rho: float) -> list[Tensor]:
    """Probabilities ``softmax(Q / rho)``.

    Raises:
        InputError: ``rho`` that is not positive.
    """
    if not 0 < rho < math.inf:
        raise InputError(f"rho is {rho}, expected more than 0.")
    return [(q_SV / rho).softmax(1) for q_SV in q]


def greedy_policy(q: Tree) -> list[Tensor]:
    """All probability on the best token, the first of several."""
    return [torch.nn.functional.one_hot(q_SV.argmax(1), q_SV.shape[1]).to(q_SV.dtype) for q_SV in q]


def success(policy: Tree, rewards: Tree) -> float:
    """Expected return of a policy from the root."""
    values = backward_induction(rewards, lambda q_SV, depth: (policy[depth] * q_SV).sum(1))[1]
    return float(values[0][0])


def success_bound(q: Tree, policy: Tree, rho: float) -> float:
    """A lower bound of the success of ``softmax(Q / rho)``.

        1 - sum_s Pr(s) N(s) / (N(s) + exp(max_a Q(s, a) / rho))

    over prefixes s with both zero and positive Q: N(s) how many are zero, Pr(s) how often the policy gets there.

    Source: arXiv 2509.24981.
    """
    reach, lost = policy[0].new_ones(1), 0.0
    for q_SV, policy_SV in zip(q, policy, strict=True):
        zero = (q_SV == 0).sum(1)
        split = (zero > 0) & (zero < q_SV.shape[1])
        share = zero / (zero + (q_SV.amax(1) / rho).exp())
        lost += float((reach * share)[split].sum())
        reach = (reach[:, None] * policy_SV).flatten()
    return 1 - lost
