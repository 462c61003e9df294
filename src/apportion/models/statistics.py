"""Per-token scalars of a policy, reduced from logits where they arise.

The [tokens, vocabulary] matrix exists for one chunk of tokens at a time. All statistics are taken from logits divided
by the response's own temperature. ``log_prob_of/<id column>`` is that of another token than the one drawn: of the id
that a token column of the rollouts holds, such as ``log_prob_of/greedy/reference``.

Suffix legend: n tokens at hand, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from apportion.errors import InputError, unknown_name

CHUNK_ELEMENTS = {"cpu": 1 << 22}
"""Largest number of logits held at once, by type of device; on the others :data:`CHUNK_ELEMENTS_ELSEWHERE`."""

CHUNK_ELEMENTS_ELSEWHERE = 1 << 24
"""An accelerator needs more rows than a processor to be busy."""


def _log_probs(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    return logits.gather(1, ids[:, None]).squeeze(1) - normaliser


def _entropy(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    probabilities = (logits - normaliser[:, None]).exp()
    return normaliser - (probabilities * torch.where(probabilities > 0, logits, 0.0)).sum(1)


def _vocab_mean(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    return logits.mean(1) - normaliser


def _max_log_prob(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    return logits.amax(1) - normaliser


def _greedy(logits: Tensor, normaliser: Tensor, ids: Tensor) -> Tensor:
    return logits.argmax(1)


STATISTICS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "log_probs": _log_probs,
    "entropy": _entropy,
    "vocab_mean": _vocab_mean,
    "max_log_prob": _max_log_prob,
    "greedy": _greedy,
}
"""From logits ``[n, V]``, their logsumexp ``[n]`` and the ids of the tokens drawn ``[n]``:
``log_probs`` of the token drawn, ``entropy`` of the distribution in nats, ``vocab_mean`` of the log-probs over the
vocabulary, ``max_log_prob`` of the likeliest token; ``greedy``, its id (int64, the smallest of several)."""

INTEGERS = ("greedy",)
"""Statistics that are token ids."""

LOG_PROB_OF = "log_prob_of/"
"""What the statistics of other tokens than those drawn begin with; the rest of the name is a column of ids."""


def id_columns(names: Sequence[str]) -> list[str]:
    """The token columns that statistics read.

    Example:
        >>> id_columns(["log_probs", "log_prob_of/greedy/reference"])
        ['greedy/reference']
    """
    return [name.removeprefix(LOG_PROB_OF) for name in names if name.startswith(LOG_PROB_OF)]


def from_logits(
    logits: Tensor, ids: Tensor, temperature: Tensor, names: Sequence[str], others: Mapping[str, Tensor] | None = None
) -> Mapping[str, Tensor]:
    """Statistics of n tokens.

    Args:
        logits: ``[n, V]`` before temperature.
        ids: tokens drawn ``[n]``.
        temperature: of every token ``[n]``.
        names: which, of :data:`STATISTICS`, or ``log_prob_of/<id column>``.
        others: the id columns ``[n]`` by name.

    Raises:
        InputError: an unknown statistic, or an id that is not in the vocabulary.

    Example:
        >>> import torch
        >>> s = from_logits(torch.zeros(1, 4), torch.tensor([2]), torch.ones(1), ["log_probs", "entropy"])
        >>> round(s["entropy"].item(), 4) == round(-s["log_probs"].item(), 4) == 1.3863
        True
    """
    precise = logits if logits.dtype == torch.float64 else logits.float()
    # At temperature 1 there is nothing to divide by, and a copy of the logits, the largest thing there is, to save.
    scaled = precise if bool((temperature == 1).all()) else precise / temperature.to(precise.dtype)[:, None]
    normaliser = scaled.logsumexp(1)
    given = {name: STATISTICS[name] for name in names if name in STATISTICS}
    drawn = _checked(ids, logits.shape[1], "the tokens drawn") if given else ids
    result = {name: statistic(scaled, normaliser, drawn) for name, statistic in given.items()}
    columns = {LOG_PROB_OF + name: column for name, column in (others or {}).items()}
    for name in names:
        if name in columns:
            result[name] = _log_probs(scaled, normaliser, _checked(columns[name], logits.shape[1], name))
        elif name not in STATISTICS:
            raise unknown_name("policy statistic", name, [*STATISTICS, *columns])
    return result


def _checked(ids: Tensor, vocabulary: int, what: str) -> Tensor:
    """Ids, if all can be looked up."""
    outside = (ids < 0) | (ids >= vocabulary)
    if bool(outside.any()):
        raise InputError(
            f"{what}: got the id {int(ids[outside][0])}, expected 0 to {vocabulary - 1}, as many as there are logits: "
            "take ids and logits from models of one vocabulary."
        )
    return ids


def chunk_size(vocabulary: int, device: torch.device) -> int:
    """How many tokens' logits are held at once on a device."""
    return max(1, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS_ELSEWHERE) // vocabulary)
