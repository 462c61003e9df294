"""TP-GRPO (arXiv 2507.23317): a judge finds the thoughts that were taken back, and they lose some of the outcome's
advantage.

World: four steps of thinking, a token each, sound or mistaken at even odds to begin with, and an answer, put down
rightly with 0.9. One mistake can be taken back: the response is right if at most one step is mistaken and the answer
is put down rightly; the verifier errs with probability 0.1. The judge labels mistakes ``incorrect`` in right responses
and ``match`` in wrong ones, and errs with probability 0.1 a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.speed import saved, updates_to
from apportion.studies.tabular import Trained, every_response, probabilities, sample
from apportion.training.seeds import torch_generator

THINKING, DEPTH, PUT_DOWN = 4, 5, 0.9
MISJUDGED, MISLABELLED = 0.1, 0.1
COPIES, GROUP, UPDATES, LEVEL = 16, 8, 80, 0.9
RATES = {"grpo": 64.0, "tp_grpo": 64.0}
"""Where each needs fewest updates."""
SMALL_RATE = 8.0
SOLVED_RATES = {"grpo(component='sound')": 32.0, "tp_grpo": 512.0}
"""The same where every response is right, so that GRPO on outcomes learns nothing."""
FRESH_SEEDS = 30_000
"""Added to the seed there: others were looked at."""
WORDS = {(True, True): "correct", (True, False): "incorrect", (False, True): "uncertain", (False, False): "match"}
"""By whether the response is right and whether the step is sound."""


def labelled(rollouts: Rollouts, outcome_E: Tensor, generator: torch.Generator) -> Rollouts:
    """Every token as a step with the judge's label, the last of which goes with the outcome, and the share of thinking
    that is labelled sound as a reward."""
    place = torch.arange(rollouts.n_tokens)
    mistaken = torch.rand(rollouts.n_tokens, generator=generator, dtype=torch.float64) < MISLABELLED
    sound = ((rollouts.ids == 1) ^ mistaken).view(-1, DEPTH)
    sound[:, -1] = outcome_E
    labels = [WORDS[right, step] for right, row in zip(outcome_E.tolist(), sound.tolist(), strict=True) for step in row]
    rollouts = rollouts.with_spans("step", place, place + 1).with_column("step:label", labels)
    rollouts = rollouts.with_reward("sound", sound[:, :THINKING].double().mean(1))
    return rollouts.with_reward("outcome", outcome_E.double())


def is_right(tokens: Sequence[int]) -> bool:
    """At most one mistake in thinking, and the answer put down rightly."""
    return sum(tokens[:THINKING]) >= THINKING - 1 and tokens[-1] == 1


def course(method: str, rate: float, seed: int, easy: bool, updates: int = UPDATES) -> list[tuple[float, float]]:
    """Accuracy and the share of mistaken steps, before the first update and after each, means of the tables.

    Args:
        method: of credit.
        rate: of SGD, a table.
        seed: of everything drawn.
        easy: every response is right, and said to be.
        updates: how many.
    """
    generator, judge = (torch_generator("cpu", seed, "tp_grpo", of) for of in ("samples", "judge"))
    policy = TabularPolicy(2, DEPTH, COPIES)
    row = torch.arange(len(policy.logits)) % int(policy.starts[-1])
    with torch.no_grad():
        policy.logits[row >= int(policy.starts[THINKING]), 1] = math.log(PUT_DOWN / (1 - PUT_DOWN))
    every = every_response(policy, lambda prompt, tokens: float(is_right(tokens)))
    right, mistakes = every.column("reward/outcome"), 1 - every.ids.view(-1, DEPTH)[:, :THINKING].double().mean(1)
    learner = Trained(policy, method, learning_rate=rate * COPIES)

    def look() -> tuple[float, float]:
        likely = probabilities(policy, every).detach() / COPIES
        return float(likely @ right), float(likely @ mistakes)

    found = [look()]
    for _ in range(updates):
        rollouts = sample(policy, range(COPIES), GROUP, generator)
        said = torch.tensor([easy or is_right(row) for row in rollouts.ids.view(-1, DEPTH).tolist()])
        if not easy:
            said ^= torch.rand(len(said), generator=generator, dtype=torch.float64) < MISJUDGED
        learner.step(labelled(rollouts, said, judge))
        found.append(look())
    return found


def curve(method: str, rate: float, seed: int) -> list[float]:
    """Exact accuracy over training."""
    return [accuracy for accuracy, _ in course(method, rate, seed, easy=False)]


def speed(seed: int) -> Mapping[str, float]:
    """Updates to accuracy 0.9."""
    outcome, thoughts = (curve(method, rate, seed) for method, rate in RATES.items())
    slow, fast = (curve(method, SMALL_RATE, seed) for method in RATES)
    return {
        "effect": saved(LEVEL, slow=outcome, fast=thoughts),
        "grpo_updates": updates_to(LEVEL, outcome),
        "tp_grpo_updates": updates_to(LEVEL, thoughts),
        "saved_at_one_small_rate": saved(LEVEL, slow=slow, fast=fast),
    }


def soundness(method: str, rate: float, seed: int) -> list[float]:
    """Share of sound steps over training where every response is right."""
    return [1 - mistakes for _, mistakes in course(method, rate, seed, easy=True)]


def solved(seed: int) -> Mapping[str, float]:
    """Updates to nine sound steps in ten where every response is right."""
    shares, thoughts = (soundness(method, rate, seed + FRESH_SEEDS) for method, rate in SOLVED_RATES.items())
    return {
        "effect": saved(LEVEL, slow=shares, fast=thoughts),
        "share_updates": updates_to(LEVEL, shares),
        "tp_grpo_updates": updates_to(LEVEL, thoughts),
    }


CLAIMS = (
    Claim(
        "tp_grpo",
        "solved prompts",
        "Where all responses are right, blaming the thoughts that were taken back makes mistakes rare sooner than "
        "rewarding responses by how much of their thinking is sound.",
        "16 tables of the world in which every response is right, groups of 8, 80 updates by SGD; tp_grpo against grpo "
        "on the share of steps that the same judge labels correct, each at the rate of 4, 8, 16, ... 2048 "
        "that was fastest on seeds from 50000 on (512, no faster beyond, and 32). Effect: share of the updates to nine "
        "sound steps in ten that TP-GRPO saves. At first the control was GRPO on outcomes, which are all alike: half "
        "of the steps were mistaken less; these are other seeds.",
        "Less than a tenth of the updates saved.",
        0.1,
        solved,
    ),
    Claim(
        "tp_grpo",
        "fewer updates",
        "Crediting thoughts by the judge's labels needs fewer updates than GRPO.",
        "16 tables learn side by side, groups of 8, SGD, each method at the rate of 8, 16, 32, 64, 128 and 256 that "
        "was fastest on seeds from 100 on (64 for both). Effect: share of GRPO's updates to accuracy 0.9 that TP-GRPO "
        "saves; the paper's is five sixths. Beside it, the same at rate 8 for both.",
        "Less than a tenth of the updates saved.",
        0.1,
        speed,
    ),
)
