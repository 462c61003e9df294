"""LOOP (arXiv 2502.01600): leave-one-out credit for long agent episodes, and ratios of tokens rather than of
trajectories.

World: an agent is paid the share of its turns that went right, as an app's unit tests do, whatever it did before;
turns go right with even odds to begin with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.studies.claim import Claim
from apportion.studies.clarity import noise
from apportion.studies.tabular import Trained, every_response, gradient, rewarded, sample, update
from apportion.studies.walks import END, Walk
from apportion.training.seeds import torch_generator

GROUP = 6
SHORT, BATCHES = 5, 120
SKILLS = tuple((i + 0.5) / 8 for i in range(8))
"""How likely a turn goes right, task by task."""
FRESH_SEEDS = 30_000
"""Added to the seed of the claim on variance."""
TURNS, TASKS, MINIBATCHES, EPOCHS, UPDATES = 40, 16, 4, 2, 20
RATES = {"trajectory": 0.5, "token": 0.2}
"""Of AdamW, where each learns most."""
SMALL_RATE = 0.02


def agents(skills: Sequence[float]) -> TabularPolicy:
    """A task of turns for every chance that one of its turns goes right."""
    policy = TabularPolicy(2, SHORT, len(skills))
    with torch.no_grad():
        odds = torch.tensor(skills, dtype=torch.float64).logit()
        policy.logits[:, 1] = odds.repeat_interleave(len(policy.logits) // len(skills))
    return policy


def _share(task: int, turns: tuple[int, ...]) -> float:
    return sum(turns) / SHORT


def spared(skills: Sequence[float], seed: int) -> Mapping[str, float]:
    """Share by which the noise of an update is less by a task's other attempts than by those of all tasks."""
    generator = torch_generator("cpu", seed + FRESH_SEEDS, "loop, variance")
    policy = agents(skills)
    exact = gradient(policy, every_response(policy, _share)).flatten()
    updates: dict[str, list[Tensor]] = {"loop": [], "reinforce_pp": []}
    for _ in range(BATCHES):
        rollouts = rewarded(sample(policy, range(len(skills)), GROUP, generator), _share)
        for method, found in updates.items():
            found.append(update(policy, method, rollouts).flatten())
    noises = {method: noise(torch.stack(found), exact) for method, found in updates.items()}
    return {"effect": 1 - noises["loop"] / noises["reinforce_pp"], **{f"noise, {m}": v for m, v in noises.items()}}


def variance(seed: int) -> Mapping[str, float]:
    """On tasks of different difficulty; beside it, where all are as difficult as each other."""
    return {**spared(SKILLS, seed), "effect, equal tasks": spared((0.5,) * len(SKILLS), seed)["effect"]}


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
        "Eight tasks of 5 turns that go right with chances from 0.06 to 0.94, 6 attempts at each; loop against the "
        "mean of the attempts at all tasks as the baseline, which is reinforce_pp, on the same attempts. Effect: share "
        "by which what is not the exact gradient in an update, as a multiple of what is, is less, from 120 batches. "
        "Beside it, the same where all turns have even odds. (At first the control was no baseline at all, which "
        "measures where rewards have their 0: +0.82; these are other seeds.)",
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
