"""Several rewards as one: weighted means of scores, and utterances' shares of a dialogue's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reference.outcome import deviation, mean


def weighted_mean(
    scores: Sequence[Sequence[float]],
    weights: Sequence[float],
    low: float,
    high: float,
    groups: Sequence[int] | None = None,
    eps: float = 0.0,
) -> list[float]:
    """One reward from the scores of every response; with ``groups``, of scores standardised in their group."""
    scaled = [[(x - low) / (high - low) for x in row] for row in scores]
    if groups is not None:
        scaled = [
            [
                _standard(x, [other[d] for other, g in zip(scaled, groups, strict=True) if g == group], eps)
                for d, x in enumerate(row)
            ]
            for row, group in zip(scaled, groups, strict=True)
        ]
    return [sum(w * x for w, x in zip(weights, row, strict=True)) / sum(weights) for row in scaled]


def _standard(value: float, members: Sequence[float], eps: float) -> float:
    return (value - mean(members)) / (deviation(members) + eps) if max(members) > min(members) else 0.0


def attributed(
    method: str,
    scores: Sequence[int],
    episode_score: float,
    *,
    most: int = 3,
    discount: float = 0.9,
    key: int = 0,
) -> list[float]:
    """The rewards of one dialogue's utterances on one dimension."""
    count, total = len(scores), sum(scores)
    rewards = []
    for t, a in enumerate(scores):
        if method == "direct":
            rewards.append(-1.0 if a == -1 else a / most * episode_score)
        elif method == "scaled":
            rewards.append(a / total * episode_score if total else 0.0)
        elif method == "uniform":
            rewards.append(episode_score)
        elif method == "discounted":
            rewards.append(discount ** (count - 1 - t) * episode_score)
        else:
            assert method == "singular"
            rewards.append(episode_score if t == key else 0.0)
    return rewards


def aggregated(
    dimensions: Mapping[str, Sequence[float]], weights: Mapping[str, float], output_scale: float
) -> tuple[dict[str, list[float]], list[float]]:
    """Every dimension between its smallest and largest, and the weighted mean of utterances."""
    normalised = {}
    for name, values in dimensions.items():
        low, high = min(values, default=0.0), max(values, default=0.0)
        normalised[name] = [(v - low) / (high - low) if high > low else 0.0 for v in values]
    count = len(next(iter(dimensions.values())))
    rewards = [
        output_scale * sum(weights[name] * normalised[name][t] for name in dimensions) / len(dimensions)
        for t in range(count)
    ]
    return normalised, rewards
