"""AC-Flow, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

Points = Sequence[Sequence[float]]


def shaped(rewards: Sequence[float], groups: Sequence[int], delta: float) -> list[float]:
    """Rewards in units of their group."""
    result = []
    for reward, group in zip(rewards, groups, strict=True):
        members = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        if min(members) == max(members):
            result.append(0.0)
            continue
        mean = math.fsum(members) / len(members)
        std = math.sqrt(math.fsum((r - mean) ** 2 for r in members) / len(members))
        result.append((reward - mean) / (std + delta))
    return result


def weights(advantages: Sequence[float], weighting: str, tau: float, normalise: bool) -> list[float]:
    """What samples count for."""
    raw = []
    for a in advantages:
        if weighting == "exp":
            raw.append(math.exp(min(tau * a, 20.0)))
        elif weighting == "relu":
            raw.append(max(a, 0.0))
        else:
            raw.append(1 / (1 + math.exp(-tau * a)))
    mean = math.fsum(raw) / len(raw)
    return [w / mean if mean else 0.0 for w in raw] if normalise else raw


def square(a: Sequence[float], b: Sequence[float]) -> float:
    """Squared distance."""
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def ac_flow(
    noise: Points,
    samples: Points,
    times: Sequence[float],
    velocity: Points,
    ref_velocity: Points,
    values: Sequence[float],
    rewards: Sequence[float],
    group_ids: Sequence[int],
    *,
    tau: float,
    adv_clip: float,
    w2_coef: float,
    weighting: str,
    normalize_weights: bool,
    warmup_iterations: int,
    iteration: int,
    delta: float,
) -> dict[str, object]:
    """All of a golden case."""
    n = len(rewards)
    target = shaped(rewards, group_ids, delta)
    advantages = [min(max(r - v, -adv_clip), adv_clip) for r, v in zip(target, values, strict=True)]
    of_samples = weights(advantages, weighting, tau, normalize_weights)
    pairs = list(zip(noise, samples, strict=True))
    directions = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairs]
    flow = [square(v, u) for v, u in zip(velocity, directions, strict=True)]
    w2 = math.fsum(square(v, r) for v, r in zip(velocity, ref_velocity, strict=True)) / n
    active = iteration >= warmup_iterations
    loss = math.fsum(w * f for w, f in zip(of_samples, flow, strict=True)) / n + w2_coef * w2
    return {
        "shaped_rewards": target,
        "interpolants": [
            [(1 - t) * a + t * b for a, b in zip(*pair, strict=True)] for t, pair in zip(times, pairs, strict=True)
        ],
        "target_velocity": directions,
        "advantages": advantages,
        "weights": of_samples,
        "critic_loss": math.fsum((v - r) ** 2 for v, r in zip(values, target, strict=True)) / n,
        "flow_loss": flow,
        "w2_surrogate": w2,
        "actor_active": active,
        "actor_loss": loss if active else 0.0,
    }


def euler(noise: Sequence[float], slope: float, offset: float, n_steps: int) -> dict[str, object]:
    """States of an affine flow in one dimension."""
    path = [list(noise)]
    for _ in range(n_steps):
        path.append([x + (slope * x + offset) / n_steps for x in path[-1]])
    return {"times": [k / n_steps for k in range(n_steps + 1)], "path": path}
