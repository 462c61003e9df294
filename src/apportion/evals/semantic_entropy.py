"""How many ways a policy has of going about things: the entropy of the planning phrases it uses."""

from __future__ import annotations

from torch import Tensor

from apportion.errors import InputError


def semantic_entropy(counts: Tensor) -> float:
    """Entropy of the distribution of phrases, in nats.

        H = -sum_g p_g ln p_g,    p_g = n_g / sum n

    Unlike the entropy of tokens, which falls as execution becomes reliable, it falls when strategies are given up.

    Args:
        counts: how often every phrase occurs in a batch, see :func:`apportion.annotations.planning_grams.mark`.

    Returns:
        0 where none occurs.

    Raises:
        InputError: a negative count.

    Source: arXiv 2509.03646.

    Example:
        >>> import torch
        >>> round(semantic_entropy(torch.tensor([2, 2, 0])), 4)
        0.6931
    """
    if bool((counts < 0).any()):
        raise InputError(f"a count is {int(counts.min())}, expected 0 or more.")
    used = counts[counts > 0].double()
    share = used / used.sum()
    return -float((share * share.log()).sum()) if len(used) > 1 else 0.0
