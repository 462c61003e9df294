"""Continuing responses from the middle: which rows there are, and how where nothing that was read can be kept.

Suffix legend: f forks, r rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts import ragged
from apportion.sampling.engine import Generated, SamplingSettings


class KnownRows:
    """The rows of a tree as they are drawn: a row's tokens from the end of the prompt on, whoever drew them."""

    def __init__(self) -> None:
        self.ids: list[Tensor] = []
        self.prompt: list[int] = []

    def add_begun(self, drawn: Generated, prompts: int, copies: int) -> None:
        """Rows from the prompt."""
        self.ids += torch.split(drawn.ids, ragged.lengths_of(drawn.offsets).tolist())
        self.prompt += [prompt for prompt in range(prompts) for _ in range(copies)]

    def add_forked(self, drawn: Generated, rows: Tensor, places: Tensor, copies: int) -> None:
        """Rows from other rows."""
        new = torch.split(drawn.ids, ragged.lengths_of(drawn.offsets).tolist())
        forks = [(row, place) for row, place in zip(rows.tolist(), places.tolist(), strict=True) for _ in range(copies)]
        self.ids += [torch.cat([self.ids[row][:place], part]) for (row, place), part in zip(forks, new, strict=True)]
        self.prompt += [self.prompt[row] for row, _ in forks]

    def check(self, rows: Tensor, places: Tensor) -> None:
        """Refuse forks of rows that are not there, or where they have no token, or that go back to an earlier prompt.

        Raises:
            InputError: says which.
        """
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            if not 0 <= row < len(self.ids):
                raise InputError(f"a fork names row {row}, expected one of the {len(self.ids)} drawn so far.")
            if not 0 <= place < len(self.ids[row]):
                raise InputError(
                    f"a fork of row {row} keeps {place} of its {len(self.ids[row])} tokens, expected fewer than all: "
                    "beyond its end nothing follows."
                )
        prompts = [self.prompt[row] for row in rows.tolist()]
        if prompts != sorted(prompts):
            raise InputError("forks are not in the order of their prompts, expected those of the first prompt first.")


class DrawsUpTo(Protocol):
    """An engine that draws responses of different longest lengths."""

    def draw_up_to(
        self,
        prompts: Sequence[Sequence[int]],
        copies: int,
        settings: SamplingSettings,
        generator: torch.Generator,
        limits: Tensor | None,
    ) -> Generated: ...


class RereadForks:
    """Forks by reading the prefix again, for models whose keys and values cannot be copied.

    Args:
        engine: what draws.
        settings: how.
        generator: source of randomness.
    """

    def __init__(self, engine: DrawsUpTo, settings: SamplingSettings, generator: torch.Generator) -> None:
        self.engine, self.settings, self.generator = engine, settings, generator
        self.known = KnownRows()
        self.prompts: list[list[int]] = []

    def begin(self, prompts: Sequence[Sequence[int]], copies: int, limit: int) -> Generated:
        self.prompts = [list(prompt) for prompt in prompts]
        limits = torch.full((len(prompts) * copies,), limit, device=self.generator.device)
        drawn = self.engine.draw_up_to(self.prompts, copies, self.settings, self.generator, limits)
        self.known.add_begun(drawn, len(prompts), copies)
        return drawn

    def fork(self, rows: Tensor, places: Tensor, copies: int, limits: Tensor) -> Generated:
        self.known.check(rows, places)
        prefixes = [
            self.prompts[self.known.prompt[row]] + self.known.ids[row][:place].tolist()
            for row, place in zip(rows.tolist(), places.tolist(), strict=True)
        ]
        drawn = self.engine.draw_up_to(
            prefixes, copies, self.settings, self.generator, limits.repeat_interleave(copies)
        )
        self.known.add_forked(drawn, rows, places, copies)
        return drawn
