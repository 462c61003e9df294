"""What draws responses: prompts and settings in, tokens with their log-probs out.

Suffix legend: B responses, N tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from apportion.errors import InputError, RunStopped


@dataclass(frozen=True)
class SamplingSettings:
    """How to draw.

    Attributes:
        max_new_tokens: a response that has not ended by then is truncated.
        temperature: logits are divided by it; 0 is greedy.
        top_k: draw among the k likeliest tokens; 0: all.
        top_p: draw among the likeliest tokens that hold this probability; 1: all.
        end_ids: tokens that end a response; they are part of it.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    end_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}, expected at least 1.")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise InputError(f"temperature is {self.temperature}, expected 0 (greedy) or more.")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise InputError(f"top_k={self.top_k} and top_p={self.top_p}, expected top_k >= 0 and 0 < top_p <= 1.")


@dataclass(frozen=True, eq=False)
class Generated:
    """Responses as drawn, prompt by prompt: the copies of prompt 0, then those of prompt 1, and so on.

    Attributes:
        ids: ``[N]``.
        offsets: ``[B + 1]``.
        log_probs: ``[N]``, at the sampling temperature (1 when greedy), before top-k and top-p.
        truncated: ``[B]``: ended by the length limit.
    """

    ids: Tensor
    offsets: Tensor
    log_probs: Tensor
    truncated: Tensor


class Engine(Protocol):
    """Draws responses."""

    def refresh(self) -> None:
        """Draw from the current weights from now on."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], copies: int, settings: SamplingSettings, generator: torch.Generator
    ) -> Generated:
        """Draw ``copies`` responses to every prompt."""
        ...


def draw(logits: Tensor, settings: SamplingSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token a row, and its log-prob.

    Args:
        logits: ``[b, V]``.
        settings: temperature, top-k, top-p.
        generator: source of randomness.

    Returns:
        tokens ``[b]`` and log-probs ``[b]`` at the sampling temperature, before top-k and top-p.
    """
    precise = logits if logits.dtype == torch.float64 else logits.float()
    greedy = settings.temperature == 0
    log_probs = (precise if greedy else precise / settings.temperature).log_softmax(1)
    if bool(log_probs.isnan().any()):
        raise RunStopped(
            "the policy's probabilities are not finite, so nothing can be sampled from it: go back to an earlier "
            "checkpoint, with a lower learning rate."
        )
    if greedy:
        tokens = log_probs.argmax(1)
    else:
        kept = _nucleus(log_probs, settings)
        tokens = torch.multinomial(kept.exp(), 1, generator=generator).squeeze(1)
    return tokens, log_probs.gather(1, tokens[:, None]).squeeze(1)


def _nucleus(log_probs: Tensor, settings: SamplingSettings) -> Tensor:
    if settings.top_k:
        least = log_probs.topk(min(settings.top_k, log_probs.shape[1])).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < least, -torch.inf)
    if settings.top_p < 1:
        ordered, order = log_probs.sort(dim=1, descending=True)
        probabilities = ordered.softmax(1)
        beyond = probabilities.cumsum(1) - probabilities >= settings.top_p
        log_probs = log_probs.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    return log_probs


class Collector:
    """Gathers tokens row by row while responses end at different times."""

    def __init__(self, rows: int, settings: SamplingSettings, device: torch.device) -> None:
        self.settings = settings
        self.active = torch.arange(rows, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self._ends = torch.tensor(settings.end_ids, dtype=torch.int64, device=device)
        self._drawn: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, tokens: Tensor, log_probs: Tensor) -> Tensor:
        """Record one token of every active row; returns which of them go on, as indices into the active rows."""
        self._drawn.append((self.active, tokens, log_probs))
        end = torch.isin(tokens, self._ends)
        self.ended[self.active[end]] = True
        going = (~end).nonzero().squeeze(1)
        self.active = self.active[going]
        return going

    def done(self) -> bool:
        """All rows have ended or reached the limit."""
        return not len(self.active) or len(self._drawn) >= self.settings.max_new_tokens

    def result(self) -> Generated:
        rows = torch.cat([r for r, _, _ in self._drawn])
        order = torch.argsort(rows, stable=True)
        counts = torch.bincount(rows, minlength=len(self.ended))
        return Generated(
            torch.cat([t for _, t, _ in self._drawn])[order],
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            torch.cat([p for _, _, p in self._drawn])[order],
            ~self.ended,
        )
