"""What draws responses: prompts and settings in, tokens with their log-probs out.

Suffix legend: B responses, N tokens, V vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

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
        record: what to keep of the distributions drawn from, beside the log-probs: ``entropy``; ``top5`` and the like,
            the likeliest tokens and their log-probs.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    end_ids: tuple[int, ...] = ()
    record: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}, expected at least 1.")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise InputError(f"temperature is {self.temperature}, expected 0 (greedy) or more.")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise InputError(f"top_k={self.top_k} and top_p={self.top_p}, expected top_k >= 0 and 0 < top_p <= 1.")
        for name in self.record:
            if not is_recorded(name):
                raise InputError(f"record names {name!r}, expected entropy, or top5 with any number from 1 to 99.")
        if len(columns_of(self.record)) < sum(len(columns_of([name])) for name in self.record):
            raise InputError(f"record names {', '.join(self.record)}, expected each kind of statistic once.")


_TOP = re.compile("top([1-9][0-9]?)")


def is_recorded(name: str) -> bool:
    """Whether something of this name can be kept of the distribution a token was drawn from.

    Example:
        >>> [is_recorded(name) for name in ("entropy", "top5", "top0", "vocab_mean")]
        [True, True, False, False]
    """
    return name == "entropy" or _TOP.fullmatch(name) is not None


def columns_of(record: Sequence[str]) -> tuple[str, ...]:
    """The statistics that hold what was recorded, at the temperature, before top-k and top-p.

    Args:
        record: ``entropy`` is itself; ``top5`` is ``top_ids`` and ``top_log_probs``, likeliest first.

    Example:
        >>> columns_of(["top5"])
        ('top_ids', 'top_log_probs')
    """
    named = [("top_ids", "top_log_probs") if _TOP.fullmatch(name) else (name,) for name in record]
    return tuple(dict.fromkeys(column for names in named for column in names))


@dataclass(frozen=True, eq=False)
class Generated:
    """Responses as drawn, prompt by prompt: the copies of prompt 0, then those of prompt 1, and so on.

    Attributes:
        ids: ``[N]``.
        offsets: ``[B + 1]``.
        log_probs: ``[N]``, at the sampling temperature (1 when greedy), before top-k and top-p.
        truncated: ``[B]``: ended by the length limit.
        statistics: by name ``[N]`` or ``[N, k]``, what the settings said to record; see :func:`columns_of`.
    """

    ids: Tensor
    offsets: Tensor
    log_probs: Tensor
    truncated: Tensor
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


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


class Forks(Protocol):
    """Responses that can be continued from the middle. Rows are numbered from 0 as they are drawn."""

    def begin(self, prompts: Sequence[Sequence[int]], copies: int, limit: int) -> Generated:
        """Draw ``copies`` responses of at most ``limit`` tokens to every prompt; called once."""
        ...

    def fork(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> Generated:
        """Draw further continuations of rows.

        Args:
            rows: ``[f]``, those of the first prompt first.
            places: how many tokens of its row a continuation keeps ``[f]``.
            copies: continuations each.
            limits: the most new tokens of each ``[f]``.

        Returns:
            the new tokens alone, ``copies`` a fork; the rows they end are numbered on from those before.
        """
        ...


@runtime_checkable
class ForkingEngine(Protocol):
    """An engine that continues responses from the middle."""

    def forks(self, settings: SamplingSettings, generator: torch.Generator) -> Forks:
        """Begin a tree for every prompt; what ends a response and how tokens are drawn is in the settings."""
        ...


@dataclass(frozen=True, eq=False)
class Drawn:
    """One token a row ``[b]``, its log-prob, and what else is recorded of the distribution it came from."""

    tokens: Tensor
    log_probs: Tensor
    statistics: Mapping[str, Tensor]


def draw(logits: Tensor, settings: SamplingSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token a row, and its log-prob; see :func:`draw_recorded`."""
    drawn = draw_recorded(logits, settings, generator)
    return drawn.tokens, drawn.log_probs


def draw_recorded(logits: Tensor, settings: SamplingSettings, generator: torch.Generator) -> Drawn:
    """One token a row, and its log-prob.

    Args:
        logits: ``[b, V]``.
        settings: temperature, top-k, top-p.
        generator: source of randomness.

    Returns:
        tokens, and log-probs and statistics at the sampling temperature, before top-k and top-p.
    """
    precise = logits if logits.dtype == torch.float64 else logits.float()
    greedy = settings.temperature == 0
    log_probs = (precise if greedy else precise / settings.temperature).log_softmax(1)
    if bool(log_probs.isnan().any()):
        raise RunStopped(
            "the policy's probabilities are not finite, so nothing can be sampled from it: go back to an earlier "
            "checkpoint, with a lower learning rate."
        )
    tokens = log_probs.argmax(1) if greedy else _by_inversion(_nucleus(log_probs, settings).exp(), generator)
    statistics: dict[str, Tensor] = {}
    for name in settings.record:
        statistics |= _recorded(name, log_probs)
    return Drawn(tokens, log_probs.gather(1, tokens[:, None]).squeeze(1), statistics)


def _entropy(log_probs: Tensor) -> Tensor:
    probabilities = log_probs.exp()
    return -torch.where(probabilities > 0, probabilities * log_probs, 0.0).sum(1)


def _recorded(name: str, log_probs: Tensor) -> dict[str, Tensor]:
    top = _TOP.fullmatch(name)
    if top is None:
        return {name: _entropy(log_probs)}
    likeliest = log_probs.topk(min(int(top[1]), log_probs.shape[1]), dim=1)
    return {"top_ids": likeliest.indices, "top_log_probs": likeliest.values}


def _by_inversion(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One index a row of ``[b, V]``, by where a uniform number falls among the cumulative sums.

    One random number a row; ``torch.multinomial`` draws one an entry, a sixth of a decoding step at 50,000 tokens.
    """
    exact = torch.float32 if probabilities.device.type == "mps" else torch.float64
    cumulative = probabilities.to(exact).cumsum(1)
    uniform = torch.rand((len(probabilities), 1), generator=generator, device=probabilities.device, dtype=exact)
    place = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)
    return place.clamp(max=probabilities.shape[1] - 1)


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
    """Gathers tokens row by row while responses begin and end at different times.

    Args:
        rows: how many responses.
        settings: what ends them.
        device: of the tokens.
        limits: the most tokens of each ``[rows]``; None: the settings' ``max_new_tokens``.
    """

    def __init__(
        self, rows: int, settings: SamplingSettings, device: torch.device, limits: Tensor | None = None
    ) -> None:
        self.settings = settings
        self.active = torch.zeros(0, dtype=torch.int64, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self._counts = torch.zeros(rows, dtype=torch.int64, device=device)
        self._limits = torch.full_like(self._counts, settings.max_new_tokens) if limits is None else limits
        self._ends = torch.tensor(settings.end_ids, dtype=torch.int64, device=device)
        self._rows: list[Tensor] = []
        self._drawn: list[Drawn] = []

    def admit(self, rows: Tensor) -> None:
        """These rows become active, after those that are."""
        self.active = torch.cat([self.active, rows])

    def add(self, drawn: Drawn) -> Tensor:
        """Record one token of every active row; returns which of them go on, as indices into the active rows."""
        self._rows.append(self.active)
        self._drawn.append(drawn)
        self._counts[self.active] += 1
        end = torch.isin(drawn.tokens, self._ends)
        self.ended[self.active[end]] = True
        going = (~end & (self._counts[self.active] < self._limits[self.active])).nonzero().squeeze(1)
        self.active = self.active[going]
        return going

    def result(self) -> Generated:
        """Every row's tokens in order."""
        order = torch.argsort(torch.cat(self._rows), stable=True)
        return Generated(
            torch.cat([drawn.tokens for drawn in self._drawn])[order],
            torch.cat([self._counts.new_zeros(1), self._counts.cumsum(0)]),
            torch.cat([drawn.log_probs for drawn in self._drawn])[order],
            ~self.ended,
            {
                name: torch.cat([drawn.statistics[name] for drawn in self._drawn])[order]
                for name in columns_of(self.settings.record)
            },
        )
