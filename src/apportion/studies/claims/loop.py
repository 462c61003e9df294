"""LOOP (arXiv 2502.01600): leave-one-out credit for long agent episodes, and ratios of tokens rather than of
trajectories.

World: an agent is paid the share of its turns that went right, as an app's unit tests do, whatever it did before;
turns go right with even odds to begin with.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import torch

from apportion import credit
from apportion.evals.calibration.estimators import total_return
from apportion.evals.calibration.groups import sampled
from apportion.evals.calibration.measure import measure
from apportion.evals.calibration.tree import Tree
from apportion.evals.calibration.worlds import World, product
from apportion.models.tabular import TabularPolicy
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained
from apportion.studies.walks import END, Walk

GROUP = 6
SHORT, GROUPS, REPEATS = 5, 600, 30
TURNS, TASKS, MINIBATCHES, EPOCHS, UPDATES = 40, 16, 4, 2, 20
RATES = {"trajectory": 0.5, "token": 0.2}
"""Of AdamW, where each learns most."""
SMALL_RATE = 0.02


def variance(seed: int) -> Mapping[str, float]:
    """Variance of the gradient from a response, as a multiple of its squared expectation, without and with others."""
    tree = Tree(product([{0: 0.5, 1: 0.5}] * SHORT, lambda y: sum(y) / SHORT))
    world = World("share of turns", "the share of turns that went right", tree)
    groups = sampled(tree, GROUP, GROUPS, torch.Generator().manual_seed(seed))
    stages = {
        "none": total_return(),
        "loop": credit.build("loop"),
        "whole": credit.build("loop(baseline='leave_none_out')"),
    }
    found = {name: measure(stage, tree, world.leaves, groups, REPEATS) for name, stage in stages.items()}
    noise = {name: each.variance or 0.0 for name, each in found.items()}
    scale = {f"{name}_scale": each.scale.value if each.scale else 0.0 for name, each in found.items()}
    return {"effect": 1 - noise["loop"] / noise["none"], **{f"{n}_noise": v for n, v in noise.items()}, **scale}


def curve(action: str, rate: float, seed: int) -> list[float]:
    """Exact expected reward over training with ratios of tokens, or of trajectories."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.arange(TURNS)
    to = torch.where(turn == TURNS - 1, END, turn + 1)[:, None].expand(-1, 2).clone()
    walk = Walk(to, torch.tensor([0.0, 1 / TURNS], dtype=torch.float64).expand(TURNS, -1).clone(), TURNS)
    policy = TabularPolicy(vocabulary=2, depth=1, prompts=TURNS)
    learner = Trained(
        policy,
        "loop",
        f"loop(action={action!r})",
        learning_rate=rate,
        optimizer="adamw",
        epochs=EPOCHS,
        minibatches=MINIBATCHES,
        seed=seed,
    )
    found = [walk.expected(policy)]
    for _ in range(UPDATES):
        learner.step(walk.sample(policy, torch.zeros(TASKS, dtype=torch.int64), GROUP, generator))
        found.append(walk.expected(policy))
    return found


def granularity(seed: int) -> Mapping[str, float]:
    """Mean reward over training."""
    trajectory, token = (curve(action, rate, seed) for action, rate in RATES.items())
    slow = {action: fmean(curve(action, SMALL_RATE, seed)) for action in RATES}
    return {
        "effect": fmean(token) - fmean(trajectory),
        "token": fmean(token),
        "trajectory": fmean(trajectory),
        "token_at_small_rate": slow["token"],
        "trajectory_at_small_rate": slow["trajectory"],
    }


CLAIMS = (
    Claim(
        "loop",
        "variance",
        "The mean of a task's other attempts, as a baseline, lowers the variance of the gradient.",
        "5 turns, 600 groups of 6; loop against the whole return without a baseline, on the same attempts. Effect: "
        "share by which the variance from one attempt, as a multiple of the gradient's squared length, is lower. "
        "Beside it, the whole group's mean as a baseline, which shortens the gradient by a sixth.",
        "A variance lower by less than a half.",
        0.5,
        variance,
    ),
    Claim(
        "loop",
        "ratios of tokens",
        "Importance ratios of tokens learn more from a batch than those of trajectories, most of which are clipped.",
        "40 turns, batches of 16 groups of 6, 2 epochs of 4 minibatches, 20 updates, objective loop by token against "
        "by trajectory, AdamW, each at the rate of 0.02, 0.05, 0.1, 0.2 and 0.5 that learnt most on seeds from 100 on "
        "(0.2, and 0.5 for trajectories). Effect: expected reward, mean over training, from 0.5 at the start to 1 at "
        "most. Beside it, both at 0.02.",
        "A mean reward higher by less than 0.02.",
        0.02,
        granularity,
    ),
)
