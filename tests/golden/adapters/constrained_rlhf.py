"""Constrained RLHF: advantages of several rewards, the step of their multipliers, and the search for thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from apportion.credit import METHODS
from apportion.curricula.nelder_mead import NelderMead
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts

Table = Sequence[Sequence[float]]


def run(*, step: str, **given: Any) -> dict[str, Any]:
    return STEPS[step](**given)


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def names_of(table: Table) -> tuple[str, ...]:
    """Names for the columns of ``[T][K]``."""
    return tuple(f"reward_{i}" for i in range(len(table[0])))


def gae(
    *,
    constraint_rewards: Table,
    kl_rewards: Sequence[float],
    constraint_values: Table,
    kl_values: Sequence[float],
    episode_starts: Sequence[int],
    last_done: bool,
    last_constraint_values: Sequence[float],
    last_kl_value: float,
    gamma: float,
    gae_lambda: float,
) -> dict[str, Any]:
    starts = [t for t in range(len(kl_rewards)) if t == 0 or episode_starts[t]]
    lengths = [b - a for a, b in zip(starts, [*starts[1:], len(kl_rewards)], strict=True)]
    rollouts = Rollouts.from_lists([range(n) for n in lengths], groups=range(len(lengths)))
    names = names_of(constraint_rewards)
    values, ends = double(constraint_values), [*last_constraint_values, last_kl_value]
    for i, name in enumerate(names):
        rollouts = rollouts.with_reward(name, double(constraint_rewards)[:, i], level="token")
        rollouts = rollouts.with_column(f"values/{name}", values[:, i])
    rollouts = rollouts.with_column("values/kl", double(kl_values))
    for name, end in zip((*names, "kl"), ends, strict=True):
        at_end = double([0.0] * (len(lengths) - 1) + [0.0 if last_done else end])
        rollouts = rollouts.with_column(f"response:values_end/{name}", at_end)
    credit = METHODS["constrained_rlhf"](
        names, [0.0] * len(names), gamma=gamma, lam=gae_lambda, kl_coefficient=1.0, whiten=False
    )(with_divergence(rollouts, double(kl_rewards)))

    def details(what: str, heads: Sequence[str]) -> Tensor:
        return torch.stack([credit.columns[f"token:credit/{what}/{head}"].tensor for head in heads], 1)

    return {
        "constraint_advantages": details("raw_advantages", names),
        "constraint_returns": details("returns", names),
        "constraint_reward_to_go": details("rewards_to_go", names),
        "kl_advantages": details("raw_advantages", ["kl"])[:, 0],
        "kl_returns": details("returns", ["kl"])[:, 0],
    }


def with_divergence(rollouts: Rollouts, rewards: Tensor) -> Rollouts:
    """Log-probs whose difference is minus these rewards."""
    old = torch.full_like(rewards, -32.0)
    return rollouts.with_column("log_probs/old", old).with_column("log_probs/reference", old + rewards)


def update(
    *,
    log_prob: Sequence[float],
    old_log_prob: Sequence[float],
    constraint_advantages: Table,
    kl_advantages: Sequence[float],
    constraint_reward_to_go: Table,
    lagrange_raw: Sequence[float],
    thresholds: Sequence[float],
    constraint: str,
    lagrange_lr: float,
    momentum: float,
    max_grad_norm: float,
    clip_range: float,
    n_updates: int,
) -> dict[str, Any]:
    """Every row is an episode of one token, whose value is its reward minus the given advantage."""
    names, rows = names_of(constraint_advantages), len(log_prob)
    rollouts = Rollouts.from_lists([[0]] * rows, groups=range(rows), log_probs_old=[[x] for x in old_log_prob])
    rollouts = rollouts.with_column("log_probs/reference", double(old_log_prob))
    rollouts = rollouts.with_column("values/kl", -double(kl_advantages))
    rewards, advantages = double(constraint_reward_to_go), double(constraint_advantages)
    for i, name in enumerate(names):
        rollouts = rollouts.with_reward(name, rewards[:, i])
        rollouts = rollouts.with_column(f"values/{name}", rewards[:, i] - advantages[:, i])
    method = METHODS["constrained_rlhf"](
        names,
        thresholds,
        constraint,
        lagrange_lr=lagrange_lr,
        momentum=momentum,
        max_grad_norm=max_grad_norm,
    )
    first = method.init()
    state = {**first, "raw": double(lagrange_raw)}
    clip = OBJECTIVES["clip"](low=clip_range, high=clip_range)
    result: dict[str, list[Any]] = {"multipliers": [], "policy_loss": [], "lagrange_raw_after": []}
    mixed = []
    for _ in range(n_updates):
        credit = method(rollouts, state)
        state = credit.state
        mixed.append(credit.advantages)
        result["multipliers"].append(credit.columns["episode:credit/multipliers"].tensor[0])
        result["policy_loss"].append(clip({"log_probs": double(log_prob)}, rollouts, credit).value.item())
        result["lagrange_raw_after"].append(state["raw"])
    return {**result, "mixed_advantages": mixed[0]}


def nelder_mead(
    *,
    initial_simplex: Table,
    optimum: Sequence[float],
    scale: Sequence[float],
    alpha: float,
    gamma: float,
    rho: float,
    sigma: float,
    tol: float,
    cache_tolerance: float,
    objective: str,
    n_simplices: int,
) -> dict[str, Any]:
    assert objective.startswith("sum(((x-optimum)/scale)**2)")
    search = NelderMead(
        initial_simplex,
        reflect=alpha,
        expand=gamma,
        contract=rho,
        shrink=sigma,
        tolerance=tol,
        cache=cache_tolerance,
        relative=False,
    )
    while len(search.simplices) < n_simplices and (point := search.ask()) is not None:
        search.tell(sum(((x - o) / s) ** 2 for x, o, s in zip(point, optimum, scale, strict=True)))
    return {"sorted_simplices": [list(map(list, simplex)) for simplex in islice(search.simplices, n_simplices)]}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {"gae": gae, "update": update, "nelder_mead": nelder_mead}
