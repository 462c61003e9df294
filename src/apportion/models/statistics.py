"""Per-token scalars of a policy, reduced from logits where they arise.

The [tokens, vocabulary] matrix exists for one chunk of tokens at a time. All statistics are taken from logits divided
by the response's own temperature.

Suffix legend: n tokens at hand, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from apportion.errors import unknown_name

CHUNK_ELEMENTS = 1 << 24
"""Largest number of logits held at once."""


def _log_probs(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    return logits.gather(1, ids[:, None]).squeeze(1) - normaliser


def _entropy(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    probabilities = (logits - normaliser[:, None]).exp()
    return normaliser - (probabilities * torch.where(probabilities > 0, logits, 0.0)).sum(1)


def _vocab_mean(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    return logits.mean(1) - normaliser


def _max_log_prob(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    return logits.amax(1) - normaliser


STATISTICS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "log_probs": _log_probs,
    "entropy": _entropy,
    "vocab_mean": _vocab_mean,
    "max_log_prob": _max_log_prob,
}
"""From logits ``[n, V]``, their logsumexp ``[n]`` and the ids of the tokens drawn ``[n]``:
``log_probs`` of the token drawn, ``entropy`` of the distribution in nats, ``vocab_mean`` of the log-probs over the
vocabulary, ``max_log_prob`` of the likeliest token."""


def from_logits(logits: Tensor, ids: Tensor, temperature: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Statistics of n tokens.

    Args:
        logits: ``[n, V]`` before temperature.
        ids: tokens drawn ``[n]``.
        temperature: of every token ``[n]``.
        names: which, of :data:`STATISTICS`.

    Example:
        >>> import torch
        >>> s = from_logits(torch.zeros(1, 4), torch.tensor([2]), torch.ones(1), ["log_probs", "entropy"])
        >>> round(s["entropy"].item(), 4) == round(-s["log_probs"].item(), 4) == 1.3863
        True
    """
    for name in names:
        if name not in STATISTICS:
            raise unknown_name("policy statistic", name, STATISTICS)
    precise = logits if logits.dtype == torch.float64 else logits.float()
    scaled = precise / temperature.to(precise.dtype)[:, None]
    normaliser = scaled.logsumexp(1)
    return {name: STATISTICS[name](scaled, normaliser, ids) for name in names}


def chunk_size(vocabulary: int) -> int:
    """How many tokens' logits are held at once."""
    return max(1, CHUNK_ELEMENTS // vocabulary)
