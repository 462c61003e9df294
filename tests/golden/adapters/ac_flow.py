"""AC-Flow: from rewards to weights, the actor's loss, and the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from apportion.objectives import flow_matching as flow


def run(**given: Any) -> dict[str, Any]:
    """One of the two kinds of case."""
    return on_path(**given) if "slope" in given else on_samples(**given)


def on_samples(
    *,
    group_ids: Sequence[int],
    tau: float,
    adv_clip: float,
    w2_coef: float,
    weighting: str,
    normalize_weights: bool,
    warmup_iterations: int,
    iteration: int,
    delta: float,
    **tables: Any,
) -> dict[str, Any]:
    at = {name: torch.tensor(values, dtype=torch.float64) for name, values in tables.items()}
    shaped = flow.shaped_returns(at["rewards"], torch.tensor(group_ids), delta)
    x, u = flow.interpolate(at["noise"], at["samples"], at["times"])
    advantages = flow.clipped_advantages(shaped, at["values"], adv_clip)
    weights = flow.weights_of(advantages, weighting, tau, normalize_weights)
    active = flow.actor_active(iteration, warmup_iterations)
    loss = flow.actor_loss(at["velocity"], u, at["ref_velocity"], weights, w2_coef, active)
    return {
        "shaped_rewards": shaped,
        "interpolants": x,
        "target_velocity": u,
        "advantages": advantages,
        "weights": weights,
        "critic_loss": flow.critic_loss(at["values"], shaped),
        "flow_loss": loss.flow,
        "w2_surrogate": loss.w2,
        "actor_active": active,
        "actor_loss": loss.value,
    }


def on_path(*, noise: Sequence[float], slope: float, offset: float, n_steps: int) -> dict[str, Any]:
    start = torch.tensor(noise, dtype=torch.float64)
    times, path = flow.euler(lambda x, t: slope * x + offset, start, n_steps)
    return {"times": times, "path": path}
