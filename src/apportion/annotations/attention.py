"""Two numbers a token from attention maps: how far back near-sighted heads look, how much far-sighted ones return.

Everything is linear in the map, so heads are measured one map at a time and chosen afterwards: nothing here holds more
than one map, and none is kept. Maps are probabilities of one response's prompt and tokens, without padding, from logits
that no temperature divided.

Suffix legend: N positions of prompt and response, P of them the prompt's, T = N - P tokens of the response, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from apportion.errors import InputError, check_share
from apportion.rollouts import Rollouts

BLOCK = 512
"""Rows of a map that are looked at together."""


@dataclass(frozen=True)
class RhythmSettings:
    """What the two numbers are made with; columns made with other settings are other columns.

    Attributes:
        window: W, beyond which WAAD counts distances no further.
        fai_low: nearest distance from which FAI looks back.
        fai_high: furthest.
        head_fraction: share of heads that are near-sighted (``local``), and that are far-sighted (``global``).

    Raises:
        InputError: a setting out of range.
    """

    window: int = 10
    fai_low: int = 10
    fai_high: int = 100
    head_fraction: float = 0.3

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError(f"window is {self.window}, expected 1 or more.")
        if not 0 <= self.fai_low <= self.fai_high:
            raise InputError(f"the FAI horizon is {self.fai_low} to {self.fai_high}, expected 0 <= low <= high.")
        check_share("head_fraction", self.head_fraction)


def middle_layers(layers: int, count: int = 5) -> tuple[int, ...]:
    """The layers to look at: ``count`` evenly spaced from a third of the depth to two thirds.

    Example:
        >>> middle_layers(36)
        (12, 15, 18, 21, 24)
    """
    first, last = layers // 3, 2 * layers // 3
    return tuple(sorted({round(first + (last - first) * i / max(count - 1, 1)) for i in range(count)}))


def check_map(attention: Tensor, prompt_length: int) -> None:
    """Refuse what is not the attention of one head over a prompt and a response.

    Raises:
        InputError: not square; a prompt that leaves no response; an entry above the diagonal (over 1e-6) or below 0;
            a row that does not sum to 1 (within 1e-3).
    """
    if attention.dim() != 2 or attention.shape[0] != attention.shape[1]:
        raise InputError(f"the attention map has shape {tuple(attention.shape)}, expected [positions, positions].")
    if not 0 <= prompt_length < len(attention):
        raise InputError(f"the prompt has {prompt_length} of {len(attention)} positions, expected 0 to one less.")
    for start, rows in _blocks(attention, 0):
        if not bool((rows.sum(1) - 1).abs().amax() <= 1e-3) or bool(rows.amin() < -1e-6):
            raise InputError("the attention map has rows that do not sum to 1, expected probabilities without padding.")
        if bool(rows.triu(start + 1).amax() > 1e-6):
            raise InputError("the attention map looks ahead (above the diagonal), expected a causal one.")


def head_span(attention: Tensor, prompt_length: int) -> Tensor:
    """How far back a head looks: the mean over response positions t of ``sum_s A[t, s] (t - s)``, a scalar.

    Args:
        attention: A, ``[N, N]``.
        prompt_length: P.
    """
    return _mean_distance(attention, prompt_length).mean()


def waad(attention: Tensor, prompt_length: int, window: int = 10) -> Tensor:
    """Windowed average attention distance ``[T]``: ``sum_s A[t, s] min(t - s, W)``, the prompt's s included.

    Args:
        attention: A, ``[N, N]``.
        prompt_length: P.
        window: W.
    """
    values = []
    back = torch.arange(min(window, len(attention)), device=attention.device)
    for start, rows in _blocks(attention, prompt_length):
        # All of the row at distance W, less what the W nearest positions are closer.
        place = torch.arange(len(rows), device=rows.device)[:, None] + start - back
        near = torch.where(place >= 0, rows.gather(1, place.clamp(min=0)), 0.0)
        values.append(window * rows.sum(1) - near @ (window - back).to(rows.dtype))
    return torch.cat(values)


def fai(attention: Tensor, prompt_length: int, low: int = 10, high: int = 100) -> Tensor:
    """Future attention influence ``[T]``: the mean of ``A[t, s]`` over t from ``s + low`` to ``s + high``.

    Positions t beyond the response do not count; a token without any gets 0.

    Args:
        attention: A, ``[N, N]``.
        prompt_length: P.
        low: nearest distance.
        high: furthest.
    """
    response = attention[prompt_length:, prompt_length:]
    size, device = len(response), attention.device
    ahead = torch.arange(low, max(low, min(high, size - 1) + 1), device=device)  # none in a short response
    values = []
    for place in torch.arange(size, device=device).split(BLOCK):
        reader = place[:, None] + ahead
        inside = reader < size
        seen = response[reader.clamp(max=size - 1), place[:, None]].to(_dtype(attention))
        values.append(torch.where(inside, seen, 0.0).sum(1) / inside.sum(1).clamp(min=1))
    return torch.cat(values)


def choose_heads(span: Tensor, fraction: float = 0.3) -> tuple[Tensor, Tensor]:
    """Near-sighted and far-sighted heads: the lowest and the highest ``floor(fraction H)`` spans, at least one each.

    Heads of equal span are in order of index. Both are listed by ascending index.

    Example:
        >>> [heads.tolist() for heads in choose_heads(torch.tensor([3.0, 1.0, 2.0, 2.0]))]
        [[1], [0]]
    """
    count = max(1, math.floor(fraction * len(span) + 1e-12))
    order = torch.argsort(span, stable=True)
    return order[:count].sort().values, order[len(span) - count :].sort().values


@dataclass(frozen=True, eq=False)
class Rhythm:
    """What is kept of the attention over one response.

    Attributes:
        heads: layer and number of every head measured, ascending ``[H]``.
        span: of every head ``[H]``.
        local_heads: which of them are near-sighted.
        global_heads: which are far-sighted.
        waad: mean over the near-sighted heads ``[T]``.
        fai: mean over the far-sighted heads ``[T]``.
    """

    heads: tuple[tuple[int, int], ...]
    span: Tensor
    local_heads: Tensor
    global_heads: Tensor
    waad: Tensor
    fai: Tensor


@dataclass(eq=False)
class RhythmOfResponse:
    """Measures the heads of one response one by one.

    Args:
        prompt_length: positions before the response.
        settings: what to measure with.

    Example:
        >>> measured = RhythmOfResponse(prompt_length=1, settings=RhythmSettings(fai_low=1))
        >>> measured.add(layer=4, head=0, attention=torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]]))
        >>> measured.result().waad.tolist(), measured.result().fai.tolist()
        ([0.5, 0.75], [0.25, 0.0])
    """

    prompt_length: int
    settings: RhythmSettings = field(default_factory=RhythmSettings)
    _measured: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False)

    def add(self, layer: int, head: int, attention: Tensor) -> None:
        """Measure one map ``[N, N]``, and let it go.

        Raises:
            InputError: not such a map (see :func:`check_map`), of another size than the others, or a head seen before.
        """
        check_map(attention, self.prompt_length)
        tokens = len(attention) - self.prompt_length
        if (layer, head) in self._measured:
            raise InputError(f"head {head} of layer {layer} came twice, expected every head once.")
        if any(len(fai_T) != tokens for _, _, fai_T in self._measured.values()):
            raise InputError(f"a map has {len(attention)} positions and others not, expected maps of one response.")
        now = self.settings
        self._measured[layer, head] = (
            head_span(attention, self.prompt_length),
            waad(attention, self.prompt_length, now.window),
            fai(attention, self.prompt_length, now.fai_low, now.fai_high),
        )

    def result(self) -> Rhythm:
        """The means over the heads chosen.

        Raises:
            InputError: no map was added.
        """
        if not self._measured:
            raise InputError("got no attention maps, expected those of at least one head.")
        heads = tuple(sorted(self._measured))
        span, waad_HT, fai_HT = (torch.stack(part) for part in zip(*(self._measured[h] for h in heads), strict=True))
        near, far = choose_heads(span, self.settings.head_fraction)
        return Rhythm(heads, span, near, far, waad_HT[near].mean(0), fai_HT[far].mean(0))


def with_rhythm(
    rollouts: Rollouts, rhythms: Sequence[Rhythm], settings: RhythmSettings, source: str = "old"
) -> Rollouts:
    """The rollouts with token columns ``waad/<source>`` and ``fai/<source>``, which say what they were made with.

    Args:
        rollouts: any.
        rhythms: one a response, of its own tokens; an empty response needs none and gets none.
        settings: what they were measured with.
        source: the model.

    Raises:
        InputError: rhythms of another number, or of other lengths, than the responses with tokens.
    """
    lengths = rollouts.token_offsets.diff()
    if [len(rhythm.waad) for rhythm in rhythms] != lengths[lengths > 0].tolist():
        raise InputError("got attention of other responses, expected one a response with tokens and of its length.")
    empty = torch.zeros(0, dtype=torch.float64)
    waad_N, fai_N = (
        torch.cat([empty, *(getattr(r, name).cpu() for r in rhythms)]).to(rollouts.device) for name in ("waad", "fai")
    )
    share = {"head_fraction": settings.head_fraction}
    horizon = {"fai_low": settings.fai_low, "fai_high": settings.fai_high}
    rollouts = rollouts.with_statistic(f"waad/{source}", waad_N, "attention", window=settings.window, **share)
    return rollouts.with_statistic(f"fai/{source}", fai_N, "attention", **horizon, **share)


def _mean_distance(attention: Tensor, prompt_length: int) -> Tensor:
    """``sum_s A[t, s] (t - s)`` of every response position ``[T]``."""
    values = []
    for start, rows in _blocks(attention, prompt_length):
        place = torch.arange(len(attention), device=rows.device, dtype=rows.dtype)
        values.append(place[start : start + len(rows)] * rows.sum(1) - rows @ place)
    return torch.cat(values)


def _blocks(attention: Tensor, first: int) -> Iterator[tuple[int, Tensor]]:
    """The rows from ``first`` on, a block at a time in full precision, with the number of the block's first row."""
    for start in range(first, len(attention), BLOCK):
        yield start, attention[start : start + BLOCK].to(_dtype(attention))


def _dtype(attention: Tensor) -> torch.dtype:
    return torch.float32 if attention.device.type == "mps" else torch.float64
