"""NSR, PSR and W-REINFORCE (arXiv 2506.01347): blame alone learns as well as praise alone and keeps more diversity.

World: prompts with 40 answers of one token, 20 of them right. On half of the prompts right answers lead by two logits,
so that the policy is right 0.88 of the time, on the others by nothing; 0.69 on average, where the paper's model begins
at 0.63. Beside that, logits start at random with standard deviation 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.studies.claim import Claim
from apportion.studies.speed import saved, updates_to
from apportion.studies.tabular import Trained, sample

ANSWERS, RIGHT, LEAD = 40, 20, 2.0
PROMPTS, GROUP, UPDATES, LEVEL = 16, 8, 800, 0.95
RATE = 0.5
"""A prompt. The methods share it: in expectation their gradients are equal."""
FRESH_SEEDS = 100
"""Added to the seed: the first were looked at with half the updates."""
RATES = {"nsr": 24.0, "psr": 128.0}
"""Where each is as accurate as the level after fewest updates."""
SMALL_RATE = 1.0
UNSEEN = 30_000
"""Added to the seed there: others were looked at."""


def _course(mode: str, rate: float, seed: int) -> Iterator[Tensor]:
    """Probabilities of the right answers to every prompt, before the first update and after each, without end."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(ANSWERS, 1, PROMPTS)
    with torch.no_grad():
        policy.logits.normal_(generator=generator)
        policy.logits[::2, :RIGHT] += LEAD
    learner = Trained(policy, f"nsr(mode={mode!r})", learning_rate=rate * PROMPTS)
    while True:
        yield policy.logits.detach().softmax(1)[:, :RIGHT]
        rollouts = sample(policy, range(PROMPTS), GROUP, generator)
        learner.step(rollouts.with_reward("outcome", (rollouts.ids < RIGHT).double()))


def trained(mode: str, seed: int) -> dict[str, float]:
    """Accuracy after training, and entropy over right answers as a share of the largest there is; over prompts.

    Args:
        mode: of the method.
        seed: of start and samples.
    """
    right = next(islice(_course(mode, RATE, seed + FRESH_SEEDS), UPDATES, None))
    share = right / right.sum(1, keepdim=True)
    entropy = -torch.special.xlogy(share, share).sum(1) / math.log(RIGHT)
    return {"accuracy": float(right.sum(1).mean()), "entropy": float(entropy.mean())}


def diversity(seed: int, mode: str) -> Mapping[str, float]:
    """Entropy over right answers under one mode less that under ``psr``."""
    found = {each: trained(each, seed) for each in (mode, "psr")}
    figures = {f"{each}_{name}": value for each, has in found.items() for name, value in has.items()}
    return {"effect": found[mode]["entropy"] - found["psr"]["entropy"], **figures}


def accuracies(mode: str, rate: float, seed: int) -> list[float]:
    """Accuracy over training, until it is at the level or all updates are done."""
    found = list[float]()
    for right in islice(_course(mode, rate, seed), 1 + UPDATES):
        found.append(float(right.sum(1).mean()))
        if found[-1] >= LEVEL:
            break
    return found


def speed(seed: int) -> Mapping[str, float]:
    """Updates to accuracy 0.95."""
    blame, praise = (accuracies(mode, rate, seed + UNSEEN) for mode, rate in RATES.items())
    fast, slow = (accuracies(mode, SMALL_RATE, seed + UNSEEN) for mode in RATES)
    return {
        "effect": saved(LEVEL, slow=praise, fast=blame),
        "nsr_updates": updates_to(LEVEL, blame),
        "psr_updates": updates_to(LEVEL, praise),
        "saved_at_one_small_rate": saved(LEVEL, slow=slow, fast=fast),
    }


_WORLD = "16 prompts of a table, groups of 8, "
_SHARED = _WORLD + "800 updates by SGD at one rate for all modes, whose expected gradients are equal; "
_ENTROPY = " against psr. Effect: difference of the entropy over right answers, as a share of the largest."
_NO_MORE = "Entropy no higher by 0.1 than under praise alone."

CLAIMS = (
    Claim(
        "nsr",
        "diversity",
        "Penalising wrong answers alone keeps the diversity of right ones that rewarding right answers alone destroys.",
        f"{_SHARED}nsr{_ENTROPY} Looked at first with 400 updates and with equal logits, where nsr keeps all of the "
        "entropy since it never touches one right answer alone; these are other seeds.",
        _NO_MORE,
        0.1,
        partial(diversity, mode="nsr"),
    ),
    Claim(
        "nsr",
        "accuracy",
        "Penalising wrong answers alone makes the policy accurate as soon as rewarding right answers alone.",
        f"{_WORLD}SGD; nsr against psr, each at the rate of 1, 2, 4, ... 1024 (nsr to 128, and 24) that was fastest on "
        "seeds from 50000 on (24 and 128, no faster beyond). Effect: share of psr's updates to accuracy 0.95 that nsr "
        "saves; beside it, the same at rate 1 for both. At first accuracy was compared at rate 0.5, 0.95 against 0.98 "
        "after 400 updates and no different after 800; these are other seeds.",
        "More than a tenth more updates than under praise alone.",
        -0.1,
        speed,
    ),
    Claim(
        "nsr",
        "a little praise",
        "W-REINFORCE, with a tenth of the praise and all of the blame, keeps diversity too.",
        f"{_SHARED}weighted{_ENTROPY}",
        _NO_MORE,
        0.1,
        partial(diversity, mode="weighted"),
    ),
)
