"""Methods that read judges: votes over steps, thoughts accumulated from the end, thinking scores by group."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from reference.outcome import deviation, grpo, mean

Spans = Sequence[Sequence[Sequence[int]]]


def penalty(said: Sequence[bool], vote: str) -> float:
    """The weight of a step from what the critiques that could be read say of it."""
    if not said:
        return 0.0
    wrong = len([verdict for verdict in said if verdict])
    if vote == "average":
        return wrong / len(said)
    needed = {"greedy": 1, "union": 1, "intersection": len(said), "majority": len(said) / 2}[vote]
    return 1.0 if wrong >= needed else 0.0


def token_rewards(
    lengths: Sequence[int],
    spans: Spans,
    weights: Sequence[Sequence[float]],
    right: Sequence[float],
    *,
    w_whole: float,
    w_process: float,
) -> list[list[float]]:
    """Outcome less the penalty of the step a token is in."""
    result = []
    for length, places, row, outcome in zip(lengths, spans, weights, right, strict=True):
        rewards = []
        for t in range(length):
            inside = [w for (start, end), w in zip(places, row, strict=True) if start <= t < end]
            rewards.append(outcome * w_whole - w_process * sum(inside))
        result.append(rewards)
    return result


def against_tokens(
    rewards: Sequence[Sequence[float]],
    trained: Sequence[Sequence[bool]],
    groups: Sequence[int],
    *,
    ddof: int,
    eps: float,
) -> list[list[float]]:
    """Rewards of trained tokens, standardised over those of the group; 0 where all are equal."""
    result = []
    for row, mask, group in zip(rewards, trained, groups, strict=True):
        pool = [
            r
            for others, masks, g in zip(rewards, trained, groups, strict=True)
            if g == group
            for r, train in zip(others, masks, strict=True)
            if train
        ]
        flat = not pool or max(pool) == min(pool)
        centre, scale = mean(pool), deviation(pool, ddof) + eps
        result.append([(r - centre) / scale if train and not flat else 0.0 for r, train in zip(row, mask, strict=True)])
    return result


def thoughts(labels: Sequence[str]) -> list[list[int]]:
    """Steps of equal label next to each other."""
    return [list(run) for _, run in itertools.groupby(range(len(labels)), key=lambda j: labels[j])]


def process_rewards(labels: Sequence[str], outcome: float, size: float) -> list[float]:
    """Of every thought; the last has none."""
    worth = {"correct": size, "incorrect": -size, "match": outcome, "uncertain": -outcome}
    return [worth[labels[thought[0]]] for thought in thoughts(labels)[:-1]] + [0.0] * bool(labels)


def standardised(right: Sequence[int], groups: Sequence[int], r: Sequence[float], ddof: int, eps: float) -> list[float]:
    """Outcomes ``r[0]`` of wrong and ``r[1]`` of right responses against their group."""
    result = []
    for mine, group in zip(right, groups, strict=True):
        worth = [r[bool(x)] for x, g in zip(right, groups, strict=True) if g == group]
        same = max(worth) == min(worth)
        result.append(0.0 if same else (r[bool(mine)] - mean(worth)) / (deviation(worth, ddof) + eps))
    return result


def solve_rate(right: Sequence[int], groups: Sequence[int], group: int) -> float:
    """Share of a group that is right."""
    return mean([float(x) for x, g in zip(right, groups, strict=True) if g == group])


def tp_grpo(
    right: Sequence[int],
    groups: Sequence[int],
    lengths: Sequence[int],
    spans: Spans,
    labels: Sequence[Sequence[str] | None],
    *,
    alpha: float,
    r_correct: float,
    r_incorrect: float,
    ddof: int,
    eps: float,
) -> list[list[float]]:
    """Advantage of every token: the outcome and the process rewards from its thought on, summed."""
    outcomes = standardised(right, groups, [r_incorrect, r_correct], ddof, eps)
    result = []
    for group, length, places, row, outcome in zip(groups, lengths, spans, labels, outcomes, strict=True):
        advantages = [outcome] * length
        if row is not None:
            rewards = process_rewards(row, outcome, alpha * solve_rate(right, groups, group))
            for number, thought in enumerate(thoughts(row)):
                for step in thought:
                    for t in range(*places[step]):
                        advantages[t] = outcome + math.fsum(rewards[number:])
        result.append(advantages)
    return result


def trust(outcomes: Sequence[float], thinking: Sequence[float | None]) -> float:
    """Of one group."""
    right = [t for r, t in zip(outcomes, thinking, strict=True) if t is not None and r >= 0.5]
    wrong = [t for r, t in zip(outcomes, thinking, strict=True) if t is not None and r < 0.5]
    if not right or not wrong or mean(right) >= mean(wrong):
        return 1.0
    return math.exp(mean(right) - mean(wrong))


def trusted(
    outcomes: Sequence[float],
    thinking: Sequence[float | None],
    groups: Sequence[int],
    *,
    alpha: float,
    step: int,
    total_steps: int,
    code: bool = False,
) -> tuple[list[float], list[float], list[float]]:
    """Trust, thinking score used and reward of every episode."""
    trusts, used, rewards = [], [], []
    for i, group in enumerate(groups):
        members = [j for j, g in enumerate(groups) if g == group]
        of_group = [outcomes[j] for j in members]
        scores = [thinking[j] for j in members]
        if code:
            scores = [0.0 if t is not None and r < 0.2 else t for r, t in zip(of_group, scores, strict=True)]
        mine, gamma = scores[members.index(i)] or 0.0, trust(of_group, scores)
        if code and (all(r >= 0.9 for r in of_group) or all(r <= 0.1 for r in of_group)):
            mine = gamma = 0.0
        trusts.append(gamma)
        used.append(mine)
        rewards.append(outcomes[i] + gamma * alpha * math.exp(-step / total_steps) * mine)
    return trusts, used, rewards


def trust_grpo(
    outcomes: Sequence[float],
    thinking: Sequence[float | None],
    groups: Sequence[int],
    *,
    eps: float,
    singleton: str = "zero",
    **settings: float | bool,
) -> list[float]:
    """Advantage of every episode."""
    rewards = trusted(outcomes, thinking, groups, **settings)[2]  # type: ignore[arg-type]
    return grpo(rewards, groups, norm_by_std=True, eps=eps, singleton=singleton)
