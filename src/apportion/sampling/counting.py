"""An engine that counts what it draws, so that what a strategy throws away is paid for too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.sampling.engine import Engine, ForkingEngine, Forks, Generated, SamplingSettings


class CountingEngine:
    """An engine as it is, with what it has drawn since it was made.

    Attributes:
        tokens: those of shared prefixes once.
        responses: those from a prompt, and those that branch from others.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.tokens, self.responses = engine, 0, 0

    def refresh(self) -> None:
        """Draw from the current weights from now on."""
        self.engine.refresh()

    def generate(
        self, prompts: Sequence[Sequence[int]], copies: int, settings: SamplingSettings, generator: torch.Generator
    ) -> Generated:
        """Draw ``copies`` responses to every prompt."""
        return self.counted(self.engine.generate(prompts, copies, settings, generator))

    def counted(self, made: Generated) -> Generated:
        """What was drawn, once it is counted."""
        self.tokens += int(made.offsets[-1])
        self.responses += len(made.offsets) - 1
        return made


class CountingForkingEngine(CountingEngine):
    """The same of an engine that continues responses from the middle."""

    engine: ForkingEngine  # type: ignore[assignment]

    def forks(self, settings: SamplingSettings, generator: torch.Generator) -> Forks:
        """Begin a tree for every prompt."""
        return _CountedForks(self, self.engine.forks(settings, generator))


class _CountedForks:
    def __init__(self, engine: CountingEngine, forks: Forks) -> None:
        self.engine, self.forks = engine, forks

    def begin(self, prompts: Sequence[Sequence[int]], copies: int, limit: int) -> Generated:
        return self.engine.counted(self.forks.begin(prompts, copies, limit))

    def fork(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> Generated:
        return self.engine.counted(self.forks.fork(rows, places, copies, limits))


def counting(engine: Engine) -> CountingEngine:
    """The engine, counting; it can fork if the engine can."""
    return CountingForkingEngine(engine) if isinstance(engine, ForkingEngine) else CountingEngine(engine)
