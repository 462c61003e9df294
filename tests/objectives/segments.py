"""The clipped surrogate by segments as a naive loop, and spans to cut episodes with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from apportion.rollouts import Rollouts
from objectives.batches import Batch
from reference import baselines, losses


def in_macros(rollouts: Rollouts) -> Rollouts:
    """Spans of kind ``macro``: two tokens each, but for what is left at the end of a response."""
    bounds = [
        (a, min(a + 2, end))
        for start, end in itertools.pairwise(rollouts.token_offsets.tolist())
        for a in range(start, end, 2)
    ]
    starts, ends = torch.tensor(bounds, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    return rollouts.with_spans("macro", starts, ends)


def numbered(rollouts: Rollouts, unit: str) -> list[Any]:
    """The segment of every token, by a loop over tokens."""
    response, episode = rollouts.response_of_token.tolist(), rollouts.episode_of_token.tolist()
    place = [t - rollouts.token_offsets.tolist()[b] for t, b in enumerate(response)]
    trained = rollouts.trained.tolist()
    run, runs = 0, []
    for t, train in enumerate(trained):
        run += not train or t == 0 or response[t] != response[t - 1]
        runs.append(run)
    return {
        "token": list(range(len(response))),
        "run": runs,
        "episode": episode,
        "macro": [(b, p // 2) for b, p in zip(response, place, strict=True)],
    }[unit]


def segment_clip(
    unit: str,
    low: float = 0.2,
    high: float | None = None,
    style: str = "symmetric",
    aggregate: str = "token_mean",
    divisor: float | None = None,
) -> Callable[[Batch, Mapping[str, Tensor]], float]:
    """The loss of a batch."""

    def naive(given: Batch, now: Mapping[str, Tensor]) -> float:
        new, old, advantages = (
            given.rows(given.read(n, now)) for n in ("now/log_probs", "log_probs/old", "credit/advantages")
        )
        trained, counted = given.rows(given.credit.trained), given.rows(given.credit.counted)
        weight = given.rows(given.rollouts.weight)
        every = numbered(given.rollouts, unit)
        bounds = given.rollouts.episode_offsets.tolist()
        terms, trains, counts, weights = [], [], [], []
        for i, (start, end) in enumerate(itertools.pairwise(bounds)):
            segments = every[start:end]
            found = baselines.segment_losses(
                [a - b for a, b in zip(new[i], old[i], strict=True)],
                advantages[i],
                trained[i],
                segments,
                low=low,
                high=low if high is None else high,
                style=style,
            )
            numbers = sorted(set(segments))
            terms.append([found.get(s, float("nan")) for s in numbers])
            trains.append([s in found for s in numbers])
            counts.append([any(c for c, mine in zip(counted[i], segments, strict=True) if mine == s) for s in numbers])
            weights.append([weight[i][segments.index(s)] for s in numbers])
        return losses.aggregate(terms, trains, counts, aggregate, weight=weights, divisor=divisor)

    return naive
