"""An engine over a function that returns the next token's logits: tests, tables, scripted policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from apportion.sampling.engine import Collector, Generated, SamplingSettings, draw


class ScriptedEngine:
    """Draws from known logits.

    Args:
        next_logits: ``(first prompt token [b], tokens since [b, t]) -> logits [b, V]``, such as
            :meth:`apportion.models.tabular.TabularPolicy.next_logits`.
        device: where the logits live.
    """

    def __init__(self, next_logits: Callable[[Tensor, Tensor], Tensor], device: str = "cpu") -> None:
        self.next_logits, self.device = next_logits, torch.device(device)

    def refresh(self) -> None:
        """Nothing to do: the function is asked anew for every token."""

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], copies: int, settings: SamplingSettings, generator: torch.Generator
    ) -> Generated:
        first = torch.tensor([p[0] for p in prompts], dtype=torch.int64, device=self.device)
        prompt = first.repeat_interleave(copies)
        prefix = prompt.new_zeros((len(prompt), 0))
        collector = Collector(len(prompt), settings, self.device)
        while not collector.done():
            tokens, log_probs = draw(self.next_logits(prompt, prefix), settings, generator)
            going = collector.add(tokens, log_probs)
            prompt, prefix = prompt[going], torch.cat([prefix, tokens[:, None]], 1)[going]
        return collector.result()
