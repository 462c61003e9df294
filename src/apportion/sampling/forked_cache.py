"""Continuing responses from the middle with keys and values that are copied, not computed again.

What rows have read is put on a shelf when they end. A fork's rows begin with their prompt's part, shared as ever, and a
copy of their parent's own part; only the last token they keep is read again, for the logits behind it.

Suffix legend: f forks, r rows on a shelf, P prompts, L longest prompt, V vocabulary, K key-value heads, T room, E head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from apportion.sampling.engine import Collector, Generated, SamplingSettings, draw_recorded
from apportion.sampling.forked_rows import KnownRows
from apportion.sampling.shared_prompt import DROP_BELOW, Layer, SharedPromptReader, SharedPrompts, padded_left


@dataclass(frozen=True, eq=False)
class PromptShelf:
    """Prompts read together: ``valid [P, L]``, logits behind them ``[P, V]``, by layer ``[P, K, L, E]`` each."""

    valid: Tensor
    logits: Tensor
    layers: dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class RowShelf:
    """Keys and values of rows that have ended: their numbers ``[r]``, by layer ``[r, K, T, E]`` each."""

    rows: Tensor
    layers: dict[int, tuple[Tensor, Tensor]]


class CachingEngine(Protocol):
    """What :class:`CachedForks` needs of an engine: the model, how many rows at once (0: all), and a check of sizes."""

    model: Any
    rows: int

    @property
    def device(self) -> torch.device: ...

    def check(self, prompts: Sequence[Sequence[int]], new: int) -> None: ...


class CachedForks:
    """Trees over a transformers model that shares prompts.

    Args:
        engine: what draws.
        settings: how.
        generator: source of randomness.
    """

    def __init__(self, engine: CachingEngine, settings: SamplingSettings, generator: torch.Generator) -> None:
        self.engine, self.settings, self.generator = engine, settings, generator
        self.known = KnownRows()
        self.prompts: list[list[int]] = []
        self.prompt_shelves: list[PromptShelf] = []
        self.row_shelves: list[RowShelf] = []

    @torch.no_grad()
    def begin(self, prompts: Sequence[Sequence[int]], copies: int, limit: int) -> Generated:
        self.prompts = [list(prompt) for prompt in prompts]
        self.engine.check(self.prompts, limit)
        at_once = max(1, self.engine.rows // copies) if self.engine.rows else len(prompts)
        parts = []
        for start in range(0, len(prompts), at_once):
            reader = SharedPromptReader(self.engine.model, limit)
            some = self.prompts[start : start + at_once]
            logits = reader.read_prompts(*left_padded(some, self.engine.device), copies)
            layers = {n: (layer.prompt_keys, layer.prompt_values) for n, layer in reader.state.layers.items()}
            self.prompt_shelves.append(PromptShelf(reader.state.valid, logits[::copies], layers))
            limits = torch.full((len(logits),), limit, device=logits.device)
            parts.append(self._grow(reader, logits, limits, start * copies))
        drawn = joined(parts)
        self.known.add_begun(drawn, len(prompts), copies)
        return drawn

    @torch.no_grad()
    def fork(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> Generated:
        self.known.check(rows, places)
        prompts = [self.prompts[self.known.prompt[row]] for row in rows.tolist()]
        spent = [list(p) + [0] * place for p, place in zip(prompts, places.tolist(), strict=True)]
        for whole, limit in zip(spent, limits.tolist(), strict=True):
            self.engine.check([whole], limit)
        at_once = max(1, self.engine.rows // copies) if self.engine.rows else max(len(rows), 1)
        before, parts = len(self.known.ids), []
        for start in range(0, len(rows), at_once):
            some = slice(start, start + at_once)
            reader, logits = self._resume(rows[some], places[some], copies, limits[some])
            most = limits[some].repeat_interleave(copies)
            parts.append(self._grow(reader, logits, most, before + start * copies))
        drawn = joined(parts)
        self.known.add_forked(drawn, rows, places, copies)
        return drawn

    def _resume(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> tuple[SharedPromptReader, Tensor]:
        """A reader that has read all but the last token forks keep, and the logits behind that."""
        row, place = rows.repeat_interleave(copies), places.repeat_interleave(copies)
        device = self.engine.device
        asked = torch.tensor([self.known.prompt[i] for i in row.tolist()], device=device)
        used, prompt = torch.unique(asked, return_inverse=True)
        room = int((places + limits).max())
        valid, layers = self._prompts(used)
        state = SharedPrompts(valid, prompt, (place - 1).clamp(min=0), room)
        for number, (keys, values) in layers.items():
            own = self._own(number, row, int(place.max()), room, keys)
            state.layers[number] = Layer(keys, values, *own)
        reader = SharedPromptReader.resumed(self.engine.model, state)
        last = [self.known.ids[i][max(p, 1) - 1] for i, p in zip(row.tolist(), place.tolist(), strict=True)]
        logits = reader.read_tokens(torch.stack(last))
        # Rows that keep nothing have no last token: what they read is forgotten, and their prompt's logits serve.
        state.lengths = torch.where(place == 0, 0, state.lengths)
        behind_prompt = torch.cat([shelf.logits for shelf in self.prompt_shelves])[asked]
        return reader, torch.where((place == 0)[:, None], behind_prompt, logits)

    def _prompts(self, used: Tensor) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
        """Prompts off their shelves, by number, padded on the left to one length."""
        width = max(shelf.valid.shape[1] for shelf in self.prompt_shelves)
        valid = torch.cat([padded_left(shelf.valid, width, 1) for shelf in self.prompt_shelves])[used]
        layers = {}
        for number in self.prompt_shelves[0].layers:
            both = [shelf.layers[number] for shelf in self.prompt_shelves]
            layers[number] = (
                torch.cat([padded_left(keys, width, 2) for keys, _ in both])[used],
                torch.cat([padded_left(values, width, 2) for _, values in both])[used],
            )
        return valid, layers

    def _own(self, number: int, rows: Tensor, used: int, room: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of what rows have read of their own, with room behind it."""
        shape = (len(rows), like.shape[1], room, like.shape[3])
        keys, values = like.new_zeros(shape), like.new_zeros(shape)
        for shelf in self.row_shelves:
            place = torch.searchsorted(shelf.rows, rows).clamp(max=len(shelf.rows) - 1)
            here = (shelf.rows[place] == rows).nonzero().squeeze(1)
            if len(here):
                shelf_keys, shelf_values = shelf.layers[number]
                width = min(used, shelf_keys.shape[2])
                keys[here, :, :width] = shelf_keys[place[here], :, :width]
                values[here, :, :width] = shelf_values[place[here], :, :width]
        return keys, values

    def _grow(self, reader: SharedPromptReader, logits: Tensor, limits: Tensor, first: int) -> Generated:
        """Draw until every row has ended; what rows have read goes on shelves, numbered from ``first``."""
        count = torch.arange(len(logits), device=logits.device)
        collector = Collector(len(logits), self.settings, logits.device, limits)
        collector.admit(count)
        held, alive = count, count
        while True:
            drawn = draw_recorded(logits, self.settings, self.generator)
            going = collector.add(drawn)
            alive = alive[going]
            if not len(alive):
                self._shelve(reader.state, count[: len(held)], first + held)
                return collector.result()
            if len(alive) <= DROP_BELOW * len(held):
                gone = torch.ones_like(held, dtype=torch.bool).index_fill(0, alive, False).nonzero().squeeze(1)
                self._shelve(reader.state, gone, first + held[gone])
                reader.keep(alive)
                held, alive = held[alive], count[: len(alive)]
            step = drawn.tokens.new_zeros(len(held))
            step[alive] = drawn.tokens[going]
            logits = reader.read_tokens(step)[alive]

    def _shelve(self, state: SharedPrompts, places: Tensor, rows: Tensor) -> None:
        used = int(state.lengths[places].max())
        layers = {
            number: (layer.keys[places, :, :used].clone(), layer.values[places, :, :used].clone())
            for number, layer in state.layers.items()
        }
        self.row_shelves.append(RowShelf(rows, layers))


def joined(parts: Sequence[Generated]) -> Generated:
    """Responses drawn one part after another, as one."""
    lengths = torch.cat([part.offsets[1:] - part.offsets[:-1] for part in parts])
    return Generated(
        torch.cat([part.ids for part in parts]),
        torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        torch.cat([part.log_probs for part in parts]),
        torch.cat([part.truncated for part in parts]),
        {name: torch.cat([part.statistics[name] for part in parts]) for name in parts[0].statistics},
    )


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids ``[p, l]`` and which of them are no padding.

    Example:
        >>> [x.tolist() for x in left_padded([[5], [6, 7]], torch.device("cpu"))]
        [[[0, 5], [6, 7]], [[False, True], [True, True]]]
    """
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return ids, torch.arange(longest, device=device) >= longest - lengths[:, None]
