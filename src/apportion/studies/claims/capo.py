"""CAPO (arXiv 2508.02298): critiques say which steps are wrong, they vote, and wrong steps lose a fixed penalty.

World: responses of four steps, a token each, right or wrong at even odds to begin with; the answer is right if the
last two steps are, and the verifier errs with probability 0.1. Four critiques of a response call every right step
wrong and every wrong step right with probability 0.15.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.speed import saved, updates_to
from apportion.studies.tabular import Trained, every_response, probabilities, sample
from apportion.training.seeds import torch_generator

STEPS, CRITIQUES, ERROR = 4, 4, 0.15
MISJUDGED = 0.1
"""Answers of which the verifier says the opposite."""
COPIES, GROUP, UPDATES, LEVEL = 16, 16, 150, 0.95
RULE = "capo(w_process=0.0)"
RATES = {RULE: 64.0, "capo": 64.0}
"""Where each needs fewest updates and no table is lost for good."""
FRESH_SEEDS = 200
"""Added to the seed: the first were looked at with larger rates."""
SMALL_RATE = 4.0
BESIDE_RATES = {"grpo(component='summed')": 8.0, "capo": 16.0}
"""Where the steps beside the point are right after fewest updates."""
UNSEEN = 30_000
"""Added to the seed there: others were looked at with GRPO on the rule alone as control."""


def critiqued(rollouts: Rollouts, generator: torch.Generator, error: float = ERROR) -> Rollouts:
    """Every token as a step with its critiques."""
    place = torch.arange(rollouts.n_tokens)
    wrong = (rollouts.ids == 0)[:, None].expand(-1, CRITIQUES)
    mistaken = torch.rand(wrong.shape, generator=generator, dtype=torch.float64) < error
    return rollouts.with_spans("step", place, place + 1).with_reward(
        "critique", (wrong ^ mistaken).double(), level="step"
    )


def with_sum(rollouts: Rollouts) -> Rollouts:
    """Reward ``summed``: 2 r less the steps that a critique calls wrong on average, as CAPO counts them, but not which.

    Example:
        >>> two = Rollouts.from_lists([[0, 1, 1, 1], [1, 1, 1, 1]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> with_sum(critiqued(two, torch.Generator(), error=0.0)).column("reward/summed").tolist()
        [1.0, 0.0]
    """
    wrong = rollouts.column("reward/critique").mean(1).view(-1, STEPS).sum(1)
    return rollouts.with_reward("summed", 2 * rollouts.column("reward/outcome") - wrong)


@dataclass
class Course:
    """Figures before the first update and after each, means of the tables."""

    accuracy: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    """Of the two steps on which the answer does not depend, the share that is right."""


def course(method: str, rate: float, seed: int, updates: int = UPDATES) -> Course:
    """Training of as many tables as there are copies."""
    generator, judge = (torch_generator("cpu", seed, "capo", of) for of in ("samples", "judge"))
    policy = TabularPolicy(2, STEPS, COPIES)
    every = every_response(policy, lambda prompt, tokens: float(tokens[2] and tokens[3]))
    steps, right = every.ids.view(-1, STEPS).double(), every.column("episode:reward/outcome")
    learner = Trained(policy, method, learning_rate=rate * COPIES)
    result = Course()

    def look() -> None:
        likely = probabilities(policy, every).detach() / COPIES
        result.accuracy.append(float(likely @ right))
        result.beside.append(float(likely @ steps[:, :2].mean(1)))

    look()
    for _ in range(updates):
        rollouts = sample(policy, range(COPIES), GROUP, generator)
        y = rollouts.ids.view(-1, STEPS)
        misjudged = torch.rand(len(y), generator=generator, dtype=torch.float64) < MISJUDGED
        rollouts = rollouts.with_reward("outcome", ((y[:, 2:] == 1).all(1) ^ misjudged).double())
        rollouts = critiqued(rollouts, judge)
        learner.step(with_sum(rollouts))
        look()
    return result


def curve(method: str, rate: float, seed: int) -> list[float]:
    """Exact accuracy over training."""
    return course(method, rate, seed).accuracy


def process(seed: int) -> Mapping[str, float]:
    """Updates until the steps on which the answer does not depend are right."""
    flat, critic = (course(method, rate, seed + UNSEEN).beside for method, rate in BESIDE_RATES.items())
    return {
        "effect": saved(LEVEL, slow=flat, fast=critic),
        "summed_updates": updates_to(LEVEL, flat),
        "capo_updates": updates_to(LEVEL, critic),
    }


def speed(seed: int) -> Mapping[str, float]:
    """Updates to accuracy 0.95."""
    rule, critic = (curve(method, rate, seed + FRESH_SEEDS) for method, rate in RATES.items())
    slow, fast = (curve(method, SMALL_RATE, seed + FRESH_SEEDS) for method in RATES)
    return {
        "effect": saved(LEVEL, slow=rule, fast=critic),
        "rule_updates": updates_to(LEVEL, rule),
        "capo_updates": updates_to(LEVEL, critic),
        "saved_at_one_small_rate": saved(LEVEL, slow=slow, fast=fast),
    }


_WORLD = "16 tables learn side by side from groups of 16, 150 updates by SGD; capo by intersection against "

CLAIMS = (
    Claim(
        "capo",
        "right steps",
        "Penalising the very steps that are voted wrong makes right also those that the outcome says nothing of, "
        "sooner than taking their number off the outcome.",
        _WORLD + "GRPO on the outcome, worth 2, less the steps that critiques call wrong, summed over the response; "
        "each at the rate of 4, 8, 16, ... 512 that was fastest on seeds from 50000 on (16 and 8). Effect: share of "
        "the updates that the vote by steps saves until a step beside the point is right with probability 0.95. At "
        "first the control was the rule alone, blind to those steps: a probability 0.49 higher; these are other seeds.",
        "Less than a tenth of the updates saved.",
        0.1,
        process,
    ),
    Claim(
        "capo",
        "fewer updates",
        "Penalising voted wrong steps makes answers right sooner than the outcome alone.",
        _WORLD
        + "itself without penalty (GRPO on the rule), each at the rate of 4, 8, 16 and so on that was fastest on seeds "
        "from 100 on (64 for both). Effect: share of the updates to accuracy 0.95 that the penalty saves. Beside it, "
        "the same at rate 4 for both. Looked at first at 128 and 256, where most seeds are faster and some tables "
        "never learn; these are other seeds.",
        "Less than a tenth of the updates saved.",
        0.1,
        speed,
    ),
)
