"""PURE: every episode's steps and tokens in loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reference.outcome import mean
from reference.returns import whiten


@dataclass(frozen=True)
class Episode:
    """What PURE knows of an episode of T tokens.

    Attributes:
        group: what it is compared in.
        trained: of every token.
        ends: one past the last token of every step; steps tile the tokens, tokens after the last are in none.
        scores: of every step.
        verified: the verifiable reward.
        divergence: of every token.
    """

    group: int
    trained: list[bool]
    ends: list[int]
    scores: list[float]
    verified: float = 0.0
    divergence: list[float] = field(default_factory=list)

    def places(self) -> list[list[int]]:
        """The trained tokens of every step."""
        return [
            [t for t in range(start, end) if self.trained[t]]
            for start, end in zip([0, *self.ends], self.ends, strict=False)
        ]


def soft_minimum(scores: Sequence[float], temperature: float) -> list[float]:
    """``softmax(-r / T) r``"""
    low = min(scores)
    weights = [math.exp((low - r) / temperature) for r in scores]
    return [r * w / math.fsum(weights) for r, w in zip(scores, weights, strict=True)]


def minimum(scores: Sequence[float], temperature: float) -> list[float]:
    """What every step's minimum over it and later steps adds to that of the next."""
    return [min(scores[j:]) - (min(scores[j + 1 :]) if j + 1 < len(scores) else 0.0) for j in range(len(scores))]


def plain(scores: Sequence[float], temperature: float) -> list[float]:
    """The scores."""
    return list(scores)


TRANSFORMS: dict[str, Callable[[Sequence[float], float], list[float]]] = {
    "approx_min": soft_minimum,
    "strict_min": minimum,
    "sum": plain,
}


def transformed(episode: Episode, transform: str, temperature: float) -> list[float]:
    """Rewards of steps; 0 of those without trained tokens, which are left out."""
    own = [j for j, place in enumerate(episode.places()) if place]
    rewards = [0.0] * len(episode.scores)
    if own:
        for j, reward in zip(own, TRANSFORMS[transform]([episode.scores[j] for j in own], temperature), strict=True):
            rewards[j] = reward
    return rewards


def pure(
    episodes: Sequence[Episode],
    *,
    transform: str = "approx_min",
    temperature: float = 0.1,
    baseline: str = "max_len",
    limit: int,
    vr_coef: float = 1.0,
    kl_coef: float = 0.0,
    whitened: bool = False,
    zero_step_ends: bool = False,
) -> list[list[float]]:
    """Advantage of every token; 0 in groups of one."""
    process = [transformed(e, transform, temperature) for e in episodes]
    lengths = [sum(e.trained) for e in episodes]

    def others(i: int) -> list[int]:
        return [k for k, e in enumerate(episodes) if e.group == episodes[i].group and k != i]

    def tokens_of(i: int, rewards: Sequence[float], verified: float) -> list[float]:
        """Returns from every token on."""
        e = episodes[i]
        placed = [0.0] * len(e.trained)
        for place, reward in zip(e.places(), rewards, strict=True):
            if place:
                placed[place[-1]] += reward
        inside = [t for t, train in enumerate(e.trained) if train]
        if inside:
            placed[inside[-1]] += verified
        for t in inside:
            placed[t] -= kl_coef * (e.divergence[t] if e.divergence else 0.0)
        return [math.fsum(placed[t:]) if e.trained[t] else 0.0 for t in range(len(placed))]

    returns = [
        tokens_of(i, process[i], vr_coef * e.verified if sum(e.trained) else 0.0) for i, e in enumerate(episodes)
    ]
    result, live = [], []
    for i, e in enumerate(episodes):
        rest = others(i)
        live.append([train and bool(rest) for train in e.trained])
        if not rest:
            result.append([0.0] * len(e.trained))
            continue
        if baseline == "max_len":
            b = mean([math.fsum(returns[k]) for k in rest]) / max(limit, 1)
            row = [g - b for g in returns[i]]
        else:
            if baseline == "tokens":
                length = math.fsum(lengths[k] for k in rest)
                a = math.fsum(math.fsum(process[k]) for k in rest) / length if length else 0.0
                lowered = [r - a * (len(place) - 1) for r, place in zip(process[i], e.places(), strict=True)]
            else:
                counts = [max(sum(bool(p) for p in episodes[k].places()), 1) for k in rest]
                b = mean([math.fsum(process[k]) / n for k, n in zip(rest, counts, strict=True)])
                lowered = [r - b for r in process[i]]
            expected = mean([episodes[k].verified for k in rest])
            row = tokens_of(i, lowered, vr_coef * (e.verified - expected))
        result.append([a if train else 0.0 for a, train in zip(row, e.trained, strict=True)])
    if whitened and any(any(mask) for mask in live):
        result = whiten(result, live)
    if zero_step_ends:
        for e, row in zip(episodes, result, strict=True):
            for place in e.places():
                if place:
                    row[place[-1]] = 0.0
    return result
