"""Sampling in this process with torch: a prompt is read once for all its responses, finished rows are dropped, and
rows that wait take their place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.models.packing.support import shareable
from apportion.sampling.cached_rows import CachedRowsReader
from apportion.sampling.engine import Collector, Forks, Generated, SamplingSettings, draw_recorded
from apportion.sampling.forked_cache import CachedForks, left_padded
from apportion.sampling.forked_rows import RereadForks
from apportion.sampling.shared_prompt import DROP_BELOW, SharedPromptReader


class Reader(Protocol):
    """Reads prompts and tokens, and keeps what it has read."""

    takes_more: bool
    """Further prompts can be read while responses grow."""

    def read_prompts(self, ids: Tensor, valid: Tensor, copies: int) -> Tensor: ...

    def read_tokens(self, tokens: Tensor) -> Tensor: ...

    def keep(self, going: Tensor) -> None: ...


class LocalEngine:
    """Draws from a transformers causal language model.

    Args:
        model: the model being trained.
        context: longest prompt and response together, in tokens.
        dtype: sample from a copy in this dtype; None: from the model itself.
        rows: responses that grow at the same time; the others wait. 0: all.
    """

    def __init__(self, model: Any, context: int, dtype: torch.dtype | None = None, rows: int = 0) -> None:
        self.source, self.context, self.rows = model, context, rows
        self.model = model
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.shares_prompts = shareable(inner.base_model, inner.config, context)
        if dtype is not None:
            self.model = copy.deepcopy(model).requires_grad_(False)
            for parameter in self.model.parameters():  # buffers, such as rotary frequencies, keep their precision
                parameter.data = parameter.data.to(dtype)

    @property
    def device(self) -> torch.device:
        """Where it samples."""
        return next(self.model.parameters()).device

    def refresh(self) -> None:
        """Bring the copy up to date with the trained weights."""
        if self.model is not self.source:
            with torch.no_grad():
                for ours, theirs in zip(self.model.parameters(), self.source.parameters(), strict=True):
                    ours.copy_(theirs)

    def generate(
        self, prompts: Sequence[Sequence[int]], copies: int, settings: SamplingSettings, generator: torch.Generator
    ) -> Generated:
        return self.draw_up_to(prompts, copies, settings, generator, None)

    def forks(self, settings: SamplingSettings, generator: torch.Generator) -> Forks:
        """Trees; keys and values are copied at a fork, or read anew where the model's cannot be."""
        return (CachedForks if self.shares_prompts else RereadForks)(self, settings, generator)

    @torch.no_grad()
    def draw_up_to(
        self,
        prompts: Sequence[Sequence[int]],
        copies: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        limits: Tensor | None,
    ) -> Generated:
        """:meth:`generate` with a length limit for every response ``[p copies]``; None: the settings'."""
        device, longest = self.device, settings.max_new_tokens if limits is None else int(limits.max())
        self.check(prompts, longest)
        reader = self._reader(longest)
        at_once = max(1, self.rows // copies) if self.rows and reader.takes_more else len(prompts)
        collector = Collector(len(prompts) * copies, settings, device, limits)
        logits, alive, size, waiting = None, torch.zeros(0, dtype=torch.int64, device=device), 0, 0
        while waiting < len(prompts) or len(collector.active):
            room = at_once - -(-len(collector.active) // copies)
            if waiting < len(prompts) and room > 0:
                some = prompts[waiting : waiting + room]
                if len(alive) < size:
                    reader.keep(alive)
                first = reader.read_prompts(*left_padded(some, device), copies)
                logits = first if logits is None else torch.cat([logits, first])
                rows = torch.arange(len(first), device=device)
                collector.admit(waiting * copies + rows)
                waiting += len(some)
                alive, size = torch.arange(len(collector.active), device=device), len(collector.active)
            assert logits is not None
            drawn = draw_recorded(logits, settings, generator)
            going = collector.add(drawn)
            alive = alive[going]
            if not len(alive):
                logits, size = None, 0
                reader = self._reader(longest)
                continue
            # Rows that have ended are read on until they are worth the copy that drops them.
            if len(alive) <= DROP_BELOW * size:
                reader.keep(alive)
                alive, size = torch.arange(len(alive), device=device), len(alive)
            step = drawn.tokens.new_zeros(size)
            step[alive] = drawn.tokens[going]
            logits = reader.read_tokens(step)[alive]
        return collector.result()

    def _reader(self, room: int) -> Reader:
        return (SharedPromptReader if self.shares_prompts else CachedRowsReader)(self.model, room)

    def check(self, prompts: Sequence[Sequence[int]], new: int) -> None:
        """Refuse prompts that are empty, or leave no room for this many new tokens."""
        lengths = [len(prompt) for prompt in prompts]
        if min(lengths) == 0:
            raise InputError("a prompt has no tokens, expected at least one.")
        if max(lengths) + new > self.context:
            raise InputError(
                f"a prompt of {max(lengths)} tokens and {new} new ones exceed the model's context "
                f"of {self.context}: shorten prompts or lower max_new_tokens."
            )
