"""Subgoals as options, decision after decision, and returns of decisions against those of others at the same turn."""

from __future__ import annotations

from collections.abc import Sequence

from reference.outcome import mean
from reference.returns import discounted

Verdicts = Sequence[Sequence[bool | None]]


def terminations(verdicts: Verdicts, once: bool, ordered: bool) -> list[list[int]]:
    """The subgoals that end at every decision."""
    ended: set[int] = set()
    active, result = 0, []
    for row in verdicts:
        now = []
        for g, verdict in enumerate(row):
            eligible = not (once and g in ended)
            if ordered:
                eligible = g == active and not now
            if verdict is True and eligible:
                now.append(g)
        ended |= set(now)
        if ordered and now:
            active = active + 1 if once else (active + 1) % len(row)
        result.append(now)
    return result


def shaped(
    rewards: Sequence[float],
    verdicts: Verdicts,
    *,
    bonus: float,
    gamma: float,
    once: bool,
    ordered: bool,
    potential: bool = False,
) -> list[float]:
    """The rewards of one episode's decisions with what subgoals pay."""
    counts = [len(ended) for ended in terminations(verdicts, once, ordered)]
    if not potential:
        return [r + bonus * n for r, n in zip(rewards, counts, strict=True)]
    phi = [bonus * sum(counts[:t]) for t in range(len(counts))]
    after = [*phi[1:], 0.0]
    return [r + gamma * b - a for r, a, b in zip(rewards, phi, after, strict=True)]


def returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """What is still to come."""
    return discounted(rewards, [gamma] * len(rewards))


def against_the_turn(returns_of: Sequence[Sequence[float]], groups: Sequence[int]) -> list[list[float]]:
    """Every return less the mean of the others' at the same turn; 0 in groups of one attempt."""
    result = []
    for i, row in enumerate(returns_of):
        others = [r for j, r in enumerate(returns_of) if groups[j] == groups[i] and j != i]
        result.append([(g - mean([r[t] for r in others if len(r) > t])) if others else 0.0 for t, g in enumerate(row)])
    return result


def quality(predictions: Sequence[bool | None], annotations: Sequence[bool]) -> dict[str, float]:
    """How good verdicts are."""
    said_and_so = said = so = right = 0
    for prediction, annotation in zip(predictions, annotations, strict=True):
        yes = prediction is True
        said, so, said_and_so = said + yes, so + annotation, said_and_so + (yes and annotation)
        right += yes == annotation
    precision, recall = said_and_so / said if said else 0.0, said_and_so / so if so else 0.0
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "accuracy": right / len(annotations),
        "invalid": sum(prediction is None for prediction in predictions),
    }
