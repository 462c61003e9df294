"""The gradient of an objective, exact under any cut of the update batch.

Two paths, equal up to rounding. An objective of scope ``token`` is a sum over tokens, so every micro-batch adds its
share while its logits exist (*fused*). Any other is evaluated once on the statistics of the whole update batch; its
gradient with respect to them is then pushed through the model, micro-batch by micro-batch (*pushed through*).

Suffix legend: N tokens, n some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apportion.credit import Clock, Credit
from apportion.models.measuring import measure as measure
from apportion.models.measuring import micro_batches as micro_batches
from apportion.models.policy import Model
from apportion.objectives import Loss, Objective, bind
from apportion.rollouts import Rollouts


def accumulate(
    policy: Model,
    objective: Objective,
    rollouts: Rollouts,
    credit: Credit,
    parts: Sequence[Tensor],
    clock: Clock | None = None,
    fused: bool | None = None,
) -> Loss:
    """Add the gradient of an objective on one update batch to the parameters' ``grad``.

    Args:
        policy: being trained.
        objective: what is minimised.
        rollouts: the update batch.
        credit: its credit.
        parts: micro-batches covering all responses once, in any cut.
        clock: for objectives that read one.
        fused: which path; None: fused where the scope allows.

    Returns:
        the loss of the whole batch and its metrics, detached.
    """
    batch = rollouts.with_column("trained", credit.trained, maker="credit")
    if objective.scope == "token" and fused is not False:
        return _fused(policy, objective, batch, credit, parts)
    return _pushed_through(policy, objective, batch, credit, parts, clock)


def _fused(policy: Model, objective: Objective, batch: Rollouts, credit: Credit, parts: Sequence[Tensor]) -> Loss:
    bound = bind(objective, batch, credit)
    values: list[Tensor] = []
    shares: dict[str, Tensor] = {}

    def loss(now: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        watched = {name: now[name].detach() for name in objective.watches}
        value, metrics = bound({**now, **watched}, tokens)
        values.append(value.detach())
        for name, share in metrics.items():
            shares[name] = shares[name] + share if name in shares else share
        return value

    for part in parts:
        policy.accumulate(batch, part, _names(objective), loss)
    return Loss(torch.stack(values).sum() if values else torch.zeros((), device=batch.device), shares)


def _names(objective: Objective) -> list[str]:
    return list(dict.fromkeys([*objective.now, *objective.watches]))


def _pushed_through(
    policy: Model,
    objective: Objective,
    batch: Rollouts,
    credit: Credit,
    parts: Sequence[Tensor],
    clock: Clock | None,
) -> Loss:
    now = dict(measure(policy, batch, _names(objective), parts))
    for name in objective.now:
        now[name].requires_grad_()
    loss = objective(now, batch, credit, clock)
    if loss.value.requires_grad:
        leaves = [now[name] for name in objective.now]
        gradients = torch.autograd.grad(loss.value, leaves, allow_unused=True)
        slopes = {n: g for n, g in zip(objective.now, gradients, strict=True) if g is not None}

        def push(part_now: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
            return torch.stack([(slopes[n][tokens] * part_now[n]).sum() for n in slopes]).sum()

        for part in parts:
            policy.accumulate(batch, part, list(slopes), push)
    return Loss(loss.value.detach(), {name: value.detach() for name, value in loss.metrics.items()})
