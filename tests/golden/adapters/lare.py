"""LaRe: losses of return decomposition with a linear decoder, and the check of a function's factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from apportion.annotations.sandbox import shape_problem
from apportion.models.return_decoder import ReturnDecoder
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from golden.adapters._build import credit_of, rows


def run(*, kind: str, **given: Any) -> dict[str, Any]:
    return KINDS[kind](**given)


def loss(
    *,
    loss: str,
    latent: Sequence[Sequence[Sequence[float]]],
    weights: Sequence[float],
    bias: float,
    returns: Sequence[float],
    sampled_steps: Sequence[Sequence[int]] | None = None,
) -> dict[str, Any]:
    lengths = [len(episode) for episode in latent]
    rollouts = Rollouts.from_lists([range(n) for n in lengths], groups=range(len(lengths)), rewards=returns)
    tokens = torch.arange(rollouts.n_tokens)
    rollouts = rollouts.with_spans("step", tokens, tokens + 1)
    factors = torch.tensor([step for episode in latent for step in episode], dtype=torch.float64)
    rollouts = rollouts.with_column("step:latent", factors)
    if sampled_steps is not None:
        drawn = [float(chosen.count(t)) for n, chosen in zip(lengths, sampled_steps, strict=True) for t in range(n)]
        rollouts = rollouts.with_column("step:drawn", torch.tensor(drawn, dtype=torch.float64))

    decoder = ReturnDecoder(len(weights), layers=1, dtype=torch.float64)
    with torch.no_grad():
        for (_, parameter), value in zip(decoder.named_parameters(), ([list(weights)], [bias]), strict=True):
            parameter.copy_(torch.tensor(value, dtype=torch.float64))
    now = decoder.statistics(rollouts, torch.arange(rollouts.n_responses), ["proxy_reward"])
    value = OBJECTIVES["return_decomposition"](loss=loss)(now, rollouts, credit_of(rollouts)).value
    return {"proxy_rewards": rows(rollouts, now["proxy_reward"]), "loss": value.item()}


def verify(*, batch: int, factor_shapes: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {"passed": shape_problem(factor_shapes, batch) is None, "factors": len(factor_shapes)}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {"loss": loss, "verify": verify}
