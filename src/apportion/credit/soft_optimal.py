"""Values on a tree of tokens: soft-optimal ones, and what a preference-tuned model says of them.

A tree of depth D over V tokens is a list of D tensors ``[V**d, V]``, one row a prefix of d tokens in lexicographic
order, one column the token that follows; so row i, column a of depth d leads to row ``i V + a`` of depth d + 1.

Suffix legend: V vocabulary, S prefixes of one depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.errors import InputError

Tree = Sequence[Tensor]


def backward_induction(rewards: Tree, value_of: Callable[[Tensor, int], Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Values from the leaves up, 0 after the last token.

        Q(s, a) = r(s, a) + V(s a),    V(s) = value_of(Q(s, .), depth of s)

    Args:
        rewards: r.
        value_of: ``([S, V], depth) -> [S]``.

    Returns:
        Q by depth ``[S, V]``, V by depth ``[S]``.

    Raises:
        InputError: tensors that do not make a tree.
    """
    q: list[Tensor] = []
    values: list[Tensor] = []
    after = rewards[-1].new_zeros(rewards[-1].shape) if rewards else torch.zeros(0)
    for depth in reversed(range(len(rewards))):
        reward, vocabulary = rewards[depth], rewards[0].shape[-1]
        if reward.shape != (vocabulary**depth, vocabulary):
            raise InputError(
                f"depth {depth} of the tree has shape {tuple(reward.shape)}, expected ({vocabulary**depth}, "
                f"{vocabulary}): one row for every prefix."
            )
        q.append(reward + after.reshape(reward.shape))
        after = value_of(q[-1], depth)
        values.append(after)
    return q[::-1], values[::-1]


@dataclass(frozen=True, eq=False)
class SoftOptimal:
    """The soft-optimal policy of a tree, by depth ``[S, V]``, values ``[S]``."""

    value: list[Tensor]
    q: list[Tensor]
    policy: list[Tensor]
    implicit_reward: list[Tensor]


def soft_value(q: Tensor, beta: float) -> Tensor:
    """``beta log sum_a exp(Q_a / beta)`` over the last dimension."""
    return beta * torch.logsumexp(q / beta, -1)


def soft_optimal(rewards: Tree, reference: Tree, beta: float) -> SoftOptimal:
    """The policy that maximises reward minus beta times its divergence from a reference.

        Q(s, a)     = r(s, a) + beta log pi_ref(a | s) + V(s a)
        V(s)        = beta log sum_a exp(Q(s, a) / beta)
        pi(a | s)   = exp((Q(s, a) - V(s)) / beta)
        rhat(s, a)  = beta log(pi(a | s) / pi_ref(a | s)) = r(s, a) + V(s a) - V(s)

    Args:
        rewards: r.
        reference: probabilities pi_ref.
        beta: temperature.

    Raises:
        InputError: ``beta`` or a probability that is not positive, or trees of different shapes.

    Source: arXiv 2404.12358.
    """
    _check_beta(beta)
    if [r.shape for r in rewards] != [p.shape for p in reference]:
        raise InputError("rewards and reference are trees of different shapes, expected the same prefixes in both.")
    if not all(bool((p > 0).all()) for p in reference):
        raise InputError("the reference policy has a probability that is not positive, expected all above 0.")
    regularised = [r + beta * p.log() for r, p in zip(rewards, reference, strict=True)]
    q, value = backward_induction(regularised, lambda q_SV, depth: soft_value(q_SV, beta))
    logs = [(q_SV - v_S[:, None]) / beta for q_SV, v_S in zip(q, value, strict=True)]
    implicit = [beta * (log - p.log()) for log, p in zip(logs, reference, strict=True)]
    return SoftOptimal(value, q, [log.exp() for log in logs], implicit)


def beam_search(log_policy: Tree, width: int) -> tuple[list[int], float]:
    """The likeliest sequence a beam finds, and its log-prob; ties go to the smaller sequence.

    With a width of all prefixes the search is exhaustive. On a preference-tuned policy it is a search for return: the
    sequence with the largest sum of log pi is that with the largest sum of rewards, regularised.

    Args:
        log_policy: log-probs.
        width: prefixes kept at every depth.

    Raises:
        InputError: a width below 1.
    """
    if width < 1:
        raise InputError(f"the beam width is {width}, expected at least 1.")
    scores = log_policy[0].new_zeros(1)
    rows = torch.zeros(1, dtype=torch.int64, device=scores.device)
    for log_SV in log_policy:
        vocabulary = log_SV.shape[1]
        scores = (scores[:, None] + log_SV[rows]).flatten()
        rows = (rows[:, None] * vocabulary + torch.arange(vocabulary, device=rows.device)).flatten()
        kept = torch.argsort(scores, descending=True, stable=True)[:width]
        kept = kept.sort()[0]  # lexicographic again, so that the next stable sort breaks ties by it
        rows, scores = rows[kept], scores[kept]
    best = int(scores.argmax())
    tokens = [int(rows[best]) // vocabulary**d % vocabulary for d in reversed(range(len(log_policy)))]
    return tokens, float(scores[best])


@dataclass(frozen=True, eq=False)
class StateReading:
    """What logits say at one state, over the vocabulary ``[V]``; the last two are equal.

    Attributes:
        value: V of the state.
        advantage: of every token.
        policy: probabilities.
        implicit_reward: of every token, against the reference.
        expected_under_reference: mean implicit reward of the reference's tokens.
        minus_divergence: minus beta times KL(reference || policy): never positive, so implicit rewards of the
            reference's own answers fall in training.
    """

    value: Tensor
    advantage: Tensor
    policy: Tensor
    implicit_reward: Tensor
    expected_under_reference: Tensor
    minus_divergence: Tensor


def read_logits(logits: Tensor, reference_logits: Tensor, beta: float) -> StateReading:
    """Logits ``[V]`` of a policy ``softmax(logits / beta)`` as soft Q-values; the reference is at temperature 1.

    Raises:
        InputError: ``beta`` that is not positive, or logits of different vocabularies.
    """
    _check_beta(beta)
    if logits.shape != reference_logits.shape:
        raise InputError(
            f"logits have shapes {tuple(logits.shape)} and {tuple(reference_logits.shape)}, expected one vocabulary."
        )
    value = soft_value(logits, beta)
    log_policy, log_reference = (logits / beta).log_softmax(-1), reference_logits.log_softmax(-1)
    implicit, reference = beta * (log_policy - log_reference), log_reference.exp()
    divergence = torch.nn.functional.kl_div(log_policy, log_reference, reduction="sum", log_target=True)
    return StateReading(
        *(value, logits - value, log_policy.exp(), implicit, (reference * implicit).sum(), -beta * divergence)
    )


def proxy_tuned(base: Tensor, proxy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """A large policy moved as tuning moved a small one: ``pi(a) ~ base(a) (proxy(a) / reference(a))^beta``.

    Args:
        base: probabilities of the large policy ``[V]``.
        proxy: of the tuned small one.
        reference: of the small one before tuning.
        beta: how far to move.

    Raises:
        InputError: ``beta`` or a probability of the small ones that is not positive, or different vocabularies.

    Source: arXiv 2404.12358.
    """
    _check_beta(beta)
    if not base.shape == proxy.shape == reference.shape:
        raise InputError("the three policies have different vocabularies, expected one.")
    if not bool((torch.stack([proxy, reference]) > 0).all()):
        raise InputError("a probability of the proxy or its reference is not positive, expected all above 0.")
    return (base.log() + beta * (proxy.log() - reference.log())).softmax(-1)


def _check_beta(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise InputError(f"beta is {beta}, expected more than 0.")
