"""Constrained RLHF (arXiv 2310.04373): rewards that are useful up to a point are held there by multipliers that learn.

A table of one choice among 40 answers, each with two proxy rewards drawn from 0 to 1. What is really wanted rises with
the mean v_i of each proxy up to its proxy point theta_i and falls twice as fast beyond:

    gold = sum_i v_i  where v_i <= theta_i,  theta_i - 2 (v_i - theta_i)  beyond

There is one state, so a critic's value is a constant, which standardising takes off: critics say 0.

Suffix legend: N tokens (one an episode), K proxies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from statistics import fmean

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts.columns import Column, qualify
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained, sample

ANSWERS, GROUP, STEPS, RATE = 40, 128, 600, 1.0
LATE = STEPS // 3
"""Steps at the end over which proxies are averaged."""

POINTS = (0.65, 0.60)
SETTINGS = f"components=('first', 'second'), thresholds={POINTS}"
EQUALITY = f"constrained_rlhf({SETTINGS}, constraint='equality')"
FIXED = f"constrained_rlhf({SETTINGS}, squash=False, start=1.0, lagrange_lr=0.0)"
"""The same credit with both proxies and the divergence at weight 1 throughout."""


def gold(values: Tensor) -> float:
    """What is really wanted at mean proxies ``[2]``.

    Example:
        >>> round(gold(torch.tensor([0.5, 0.7])), 3)
        0.9
    """
    point = torch.tensor(POINTS, dtype=values.dtype)
    return float(torch.where(values <= point, values, point - 2 * (values - point)).sum())


@cache
def _run(method: str, seed: int) -> Tensor:
    """Mean proxies after every step ``[STEPS, 2]``."""
    generator = torch.Generator().manual_seed(seed)
    proxies = torch.rand((ANSWERS, 2), generator=generator, dtype=torch.float64)
    policy = TabularPolicy(vocabulary=ANSWERS, depth=1)
    trained = Trained(policy, method, learning_rate=RATE, seed=seed)
    silent, known = Column(torch.zeros(GROUP, dtype=torch.float64)), Column(torch.ones(GROUP, dtype=torch.bool))
    values = []
    for _ in range(STEPS):
        rollouts = sample(policy, [0], GROUP, generator)
        columns = {f"values/{head}": silent for head in ("first", "second", "kl")}
        for name, reward in zip(("first", "second"), proxies[rollouts.ids].unbind(1), strict=True):
            columns |= {f"reward/{name}": Column(reward), f"scored/{name}": known}
        named = {qualify(name): column for name, column in columns.items()}
        trained.step(replace(rollouts, columns={**rollouts.columns, **named}))
        values.append(policy.logits.detach().softmax(1)[0] @ proxies)
    return torch.stack(values)


def _late_gold(values: Tensor) -> float:
    return fmean(gold(each) for each in values[-LATE:])


def no_overoptimisation(seed: int) -> Mapping[str, float]:
    """Gold with multipliers and with fixed weights, and what fixed weights had when they had most."""
    adapting, fixed = _run(EQUALITY, seed), _run(FIXED, seed)
    figures = {"constrained": _late_gold(adapting), "fixed": _late_gold(fixed)}
    figures |= {"fixed_at_its_best": max(gold(each) for each in fixed), "at_the_points": sum(POINTS)}
    return {"effect": figures["constrained"] - figures["fixed"], **figures}


def held(seed: int) -> Mapping[str, float]:
    """How much nearer than two percent to its proxy point the farther proxy is."""
    mean = _run(EQUALITY, seed)[-LATE:].mean(0)
    missed = (mean / torch.tensor(POINTS, dtype=mean.dtype) - 1).abs()
    return {"effect": 0.02 - float(missed.max()), "first": float(mean[0]), "second": float(mean[1])}


WORLD = (
    "40 answers with two proxies drawn from 0 to 1, proxy points 0.65 and 0.60, batches of 128, 600 steps; "
    "constrained_rlhf(constraint='equality'), means over the last 200 steps"
)

CLAIMS = (
    Claim(
        "constrained_rlhf",
        "no overoptimisation",
        "Weights that adapt hold every proxy where it is useful, and what is really wanted stays at its best, where "
        "fixed weights overshoot.",
        f"{WORLD}, against the same credit with all weights fixed at 1, at a learning rate that is kinder to the "
        "latter. Effect: difference in gold, which is 1.25 at best.",
        "Gold higher by less than a tenth.",
        0.1,
        no_overoptimisation,
    ),
    Claim(
        "constrained_rlhf",
        "thresholds hold",
        "Every reward ends at its threshold.",
        f"{WORLD}. Effect: 0.02 less the larger relative distance of a mean proxy from its point.",
        "A proxy off its point by two percent or more.",
        0.0,
        held,
    ),
)
