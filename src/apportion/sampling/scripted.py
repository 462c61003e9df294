"""An engine over a function that returns the next token's logits: tests, tables, scripted policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from apportion.sampling.engine import Collector, Forks, Generated, SamplingSettings, draw_recorded
from apportion.sampling.forked_rows import KnownRows

NextLogits = Callable[[Tensor, Tensor], Tensor]


class ScriptedEngine:
    """Draws from known logits.

    Args:
        next_logits: ``(first prompt token [b], tokens since [b, t]) -> logits [b, V]``, such as
            :meth:`apportion.models.tabular.TabularPolicy.next_logits`.
        device: where the logits live.
    """

    def __init__(self, next_logits: NextLogits, device: str = "cpu") -> None:
        self.next_logits, self.device = next_logits, torch.device(device)

    def refresh(self) -> None:
        """Nothing to do: the function is asked anew for every token."""

    def generate(
        self, prompts: Sequence[Sequence[int]], copies: int, settings: SamplingSettings, generator: torch.Generator
    ) -> Generated:
        return self.forks(settings, generator).begin(prompts, copies, settings.max_new_tokens)

    def forks(self, settings: SamplingSettings, generator: torch.Generator) -> Forks:
        """Trees."""
        return ScriptedForks(self.next_logits, self.device, settings, generator)


class ScriptedForks:
    """Trees over known logits; rows whose prefixes are equally long are asked about together.

    Args:
        next_logits: as of :class:`ScriptedEngine`.
        device: where the logits live.
        settings: how to draw.
        generator: source of randomness.
    """

    def __init__(
        self, next_logits: NextLogits, device: torch.device, settings: SamplingSettings, generator: torch.Generator
    ) -> None:
        self.next_logits, self.device, self.settings, self.generator = next_logits, device, settings, generator
        self.known = KnownRows()
        self.first = torch.zeros(0, dtype=torch.int64)

    def begin(self, prompts: Sequence[Sequence[int]], copies: int, limit: int) -> Generated:
        self.first = torch.tensor([p[0] for p in prompts], dtype=torch.int64, device=self.device)
        prompt = self.first.repeat_interleave(copies)
        drawn = self._grow(prompt, [prompt.new_zeros(0)] * len(prompt), torch.full_like(prompt, limit))
        self.known.add_begun(drawn, len(prompts), copies)
        return drawn

    def fork(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> Generated:
        self.known.check(rows, places)
        forks = [(row, place) for row, place in zip(rows.tolist(), places.tolist(), strict=True) for _ in range(copies)]
        prompt = self.first[torch.tensor([self.known.prompt[row] for row, _ in forks], device=self.device)]
        prefixes = [self.known.ids[row][:place] for row, place in forks]
        drawn = self._grow(prompt, prefixes, limits.repeat_interleave(copies))
        self.known.add_forked(drawn, rows, places, copies)
        return drawn

    @torch.no_grad()
    def _grow(self, prompt: Tensor, prefixes: Sequence[Tensor], limits: Tensor) -> Generated:
        collector = Collector(len(prompt), self.settings, self.device, limits)
        collector.admit(torch.arange(len(prompt), device=self.device))
        lengths = torch.tensor([len(prefix) for prefix in prefixes], device=self.device)
        text = torch.zeros((len(prompt), int((lengths + limits).max())), dtype=torch.int64, device=self.device)
        for row, prefix in enumerate(prefixes):
            text[row, : len(prefix)] = prefix
        while len(collector.active):
            rows = collector.active
            drawn = draw_recorded(self._logits(prompt[rows], text[rows], lengths[rows]), self.settings, self.generator)
            text[rows, lengths[rows]] = drawn.tokens
            lengths[rows] += 1
            collector.add(drawn)
        return collector.result()

    def _logits(self, prompt: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``[b, V]``, asked for length by length."""
        order, parts = [], []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            order.append(rows)
            parts.append(self.next_logits(prompt[rows], text[rows, :length]))
        found = torch.cat(parts)
        return torch.empty_like(found).index_copy(0, torch.cat(order), found)
