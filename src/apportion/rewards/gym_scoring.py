"""Scores of reasoning-gym's own scorers. Runs in the child process only: some of them evaluate the response."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Mapping
from typing import Any

from reasoning_gym.factory import create_dataset

_OPENING, _CLOSING = "<answer>", "</answer>"


def decide(
    dataset: str, config: Mapping[str, Any], entry: dict[str, Any], response: str, partial: bool
) -> tuple[float | None, str]:
    """Score and reason for one response to one entry.

    Args:
        dataset: name in reasoning-gym's registry.
        config: keyword arguments the data set was made with.
        entry: question, answer and metadata as the data set gave them.
        response: what the policy wrote; the last ``<answer>`` element counts, else all of it.
        partial: keep partial scores.
    """
    given = tagged(response)
    score = float(_made(dataset, pickle.dumps(dict(config))).score_answer(given, entry))
    if not math.isfinite(score):
        return None, f"the scorer of {dataset} returned {score}"
    shown = f"{' '.join(given.split())[:60]!r}"
    reason = f"{shown} scores {score:g} for {str(entry['answer'])[:60]!r} ({dataset})"
    return (score if partial else float(score >= 1.0)), reason


def tagged(response: str) -> str:
    """What the last complete ``<answer>`` element holds; without one, the whole response."""
    end = response.rfind(_CLOSING)
    start = response.rfind(_OPENING, 0, max(end, 0))
    return (response if start < 0 else response[start + len(_OPENING) : end]).strip()


@functools.lru_cache(maxsize=256)
def _made(dataset: str, config: bytes) -> Any:
    """The data set object that has the scorer; pickled settings, because they may hold lists."""
    return create_dataset(dataset, **pickle.loads(config))
