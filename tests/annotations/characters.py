"""A policy whose tokens are characters, and rollouts of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.rollouts import Rollouts


class Characters:
    """Reads token ids as characters."""

    end_ids: tuple[int, ...] = ()

    def codec(self, instruction: str, chat: bool | None) -> Characters:
        """Itself."""
        return self

    def decode(self, ids: Sequence[int]) -> str:
        """The text."""
        return "".join(map(chr, ids))


def of_texts(
    texts: Sequence[str],
    prompts: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
    rewards: Sequence[float | None] | None = None,
    **given: Any,
) -> Rollouts:
    """A response a text."""
    ids = [[ord(c) for c in text] for text in texts]
    rollouts = Rollouts.from_lists(ids, groups=groups or [0] * len(ids), rewards=rewards, **given)
    prompts = ["What is 1 + 1?"] * len(ids) if prompts is None else prompts
    return rollouts.with_column("response:text", texts).with_column("response:prompt_text", prompts)


def with_steps(rollouts: Rollouts, steps: Sequence[Sequence[str]], between: str = "") -> Rollouts:
    """Steps of these texts in every response, each behind ``between``."""
    starts, ends = [], []
    for first, row in zip(rollouts.token_offsets.tolist(), steps, strict=False):
        at = first
        for step in row:
            starts.append(at + len(between))
            ends.append(starts[-1] + len(step))
            at = ends[-1]
    return rollouts.with_spans("step", torch.tensor(starts, dtype=torch.int64), torch.tensor(ends, dtype=torch.int64))
