"""What is added to, or cut off, the policy gradient: PPO's clip (arXiv 1707.06347), DAPO's higher one (arXiv
2503.14476), the divergence from a reference (arXiv 2402.03300) and the entropy bonus (Williams and Peng 1991).

Worlds: answers that are found right by chance; a rare answer that is better than a common one; a reward that pays more
for what is not meant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Reward, Trained, every_response, expected, rewarded, sample
from apportion.training.seeds import torch_generator

COPIES = 64
"""Tables that learn side by side; their mean is one repeat."""


def table(chances: Sequence[float], prompts: int = COPIES) -> TabularPolicy:
    """A table of answers of one token, drawn with these chances at every prompt."""
    policy = TabularPolicy(len(chances), 1, prompts)
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(chances, dtype=torch.float64).log().expand_as(policy.logits))
    return policy


def by_chance(rollouts: Rollouts, generator: torch.Generator) -> Rollouts:
    """Rewards of 0 or 1, right with the probability that the reward was."""
    likely = rollouts.column("episode:reward/outcome")
    dice = torch.rand(len(likely), generator=generator, dtype=torch.float64)
    return rollouts.with_reward("outcome", (dice < likely).double())


# PPO: several passes over a batch

ANSWERS, PASSES, BATCHES, GROUP = 9, 8, 20, 8
CLIPPED = {"clipped": "clip(low=0.2)", "unclipped": "clip(low=1e9)"}
RATES = {"clipped": 8.0, "unclipped": 0.5}


def luck(prompt: int, tokens: tuple[int, ...]) -> float:
    """Probability that an answer is found right: from 0.1 for the worst to 0.9 for the best of nine."""
    return 0.1 + 0.1 * tokens[0]


def learned(arm: str, rate: float, seed: int) -> float:
    """Probability of being found right, mean over training by eight passes over every batch."""
    generator = torch_generator("cpu", seed, "clip")
    policy = table([1 / ANSWERS] * ANSWERS)
    every = every_response(policy, luck)
    trained = Trained(policy, "grpo", CLIPPED[arm], learning_rate=rate * COPIES, epochs=PASSES)
    found = [expected(policy, every)]
    for _ in range(BATCHES):
        trained.step(by_chance(rewarded(sample(policy, range(COPIES), GROUP, generator), luck), generator))
        found.append(expected(policy, every))
    return fmean(found)


def safer_passes(seed: int) -> Mapping[str, float]:
    """What the clip adds, each arm at its own best rate; beside it, at four times that of the unclipped."""
    found = {arm: learned(arm, rate, seed) for arm, rate in RATES.items()}
    fast = {arm: learned(arm, 4 * RATES["unclipped"], seed) for arm in RATES}
    return {
        "effect": found["clipped"] - found["unclipped"],
        **found,
        "effect at four times the rate": fast["clipped"] - fast["unclipped"],
    }


# DAPO: a higher upper bound

RARE, RARE_BATCHES, RARE_RATE = 0.01, 40, 4.0
FRESH_SEEDS = 30_000
"""Added to the seed of the claim on the higher bound."""


def _rare(prompt: int, tokens: tuple[int, ...]) -> float:
    return 1.0 if tokens[0] == 0 else 0.2


def grown(high: float, rate: float, seed: int) -> dict[str, float]:
    """Probability of an answer that was rare and is the best, after training by a bound, and the entropy left."""
    generator = torch_generator("cpu", seed + FRESH_SEEDS, "clip higher")
    policy = table([RARE, *[(1 - RARE) / 7] * 7])
    objective = f"clip(low=0.2, high={high})"
    trained = Trained(policy, "grpo", objective, learning_rate=rate * COPIES, epochs=PASSES)
    for _ in range(RARE_BATCHES):
        trained.step(by_chance(rewarded(sample(policy, range(COPIES), 16, generator), _rare), generator))
    likely = policy.logits.detach().softmax(1)
    return {
        f"best, {high}": float(likely[:, 0].mean()),
        f"entropy, {high}": float(torch.special.entr(likely).sum(1).mean()),
    }


def rare_answers(seed: int) -> Mapping[str, float]:
    """What the higher bound adds to the best answer, each bound at its best rate, which is the same."""
    found = grown(0.2, RARE_RATE, seed) | grown(0.28, RARE_RATE, seed)
    return {"effect": found["best, 0.28"] - found["best, 0.2"], **found}


# A reward that is not what is meant

GOOD, HACK = 1, 2
KL_BATCHES, KL_RATE, COEFFICIENT = 200, 8.0, 0.2
DRAWN = (0.55, 0.4, 0.05)
"""Chances of a poor answer, a good one, and one that only looks better."""


def _looks(prompt: int, tokens: tuple[int, ...]) -> float:
    return {GOOD: 1.0, HACK: 1.3}.get(tokens[0], 0.0)


def _is(prompt: int, tokens: tuple[int, ...]) -> float:
    return float(tokens[0] == GOOD)


def _trained_on(reward: Reward, objective: Sequence[str], seed: int) -> TabularPolicy:
    generator = torch_generator("cpu", seed, "kl")
    policy = table(DRAWN)
    trained = Trained(policy, "dr_grpo", objective, learning_rate=KL_RATE * COPIES)
    for _ in range(KL_BATCHES):
        trained.step(rewarded(sample(policy, range(COPIES), GROUP, generator), reward))
    return policy


def close_to_the_reference(seed: int) -> Mapping[str, float]:
    """How good answers are that were trained to look good, with the penalty and without."""
    held = _trained_on(_looks, ("clip", f"kl(coefficient={COEFFICIENT})"), seed)
    reverse = _trained_on(_looks, ("clip", f"kl(coefficient={COEFFICIENT}, estimator='k2')"), seed)
    free = _trained_on(_looks, ("clip",), seed)
    good, looks = every_response(held, _is), every_response(held, _looks)
    return {
        "effect": expected(held, good) - expected(free, good),
        "good, with": expected(held, good),
        "good, without": expected(free, good),
        "looks good, with": expected(held, looks),
        "looks good, without": expected(free, looks),
        "good, with k2": expected(reverse, good),
        "good, at first": DRAWN[GOOD],
    }


def penalised(seed: int) -> Mapping[str, float]:
    """The reward less the exact divergence, which training by either estimate is to raise."""
    found = {}
    for estimator in ("k3", "k2"):
        policy = _trained_on(_looks, ("clip", f"kl(coefficient={COEFFICIENT}, estimator='{estimator}')"), seed)
        log_probs = policy.logits.detach().log_softmax(1)
        divergence = (log_probs.exp() * (log_probs - torch.tensor(DRAWN, dtype=torch.float64).log())).sum(1).mean()
        found[estimator] = expected(policy, every_response(policy, _looks)) - COEFFICIENT * float(divergence)
    tilted = sum(p * math.exp(_looks(0, (answer,)) / COEFFICIENT) for answer, p in enumerate(DRAWN))
    return {"effect": found["k3"] - found["k2"], **found, "largest": COEFFICIENT * math.log(tilted)}


# A common answer that pays, a rare one that pays more

BONUS, SEARCH_BATCHES = 0.05, 300
COMMON, BEST = 0.6, 1.0


def _deceptive(prompt: int, tokens: tuple[int, ...]) -> float:
    return {0: COMMON, 1: BEST}.get(tokens[0], 0.0)


def longer_search(seed: int) -> Mapping[str, float]:
    """Exact reward after training, with the bonus and without."""
    found: dict[str, float] = {}
    for arm, objective in (("with", ("clip", f"entropy_bonus(coefficient={BONUS})")), ("without", ("clip",))):
        generator = torch_generator("cpu", seed, "entropy")
        policy = table([0.3, 0.03, *[0.67 / 6] * 6])
        trained = Trained(policy, "dr_grpo", objective, learning_rate=8.0 * COPIES)
        for _ in range(SEARCH_BATCHES):
            trained.step(rewarded(sample(policy, range(COPIES), GROUP, generator), _deceptive))
        found[arm] = expected(policy, every_response(policy, _deceptive))
        found[f"best, {arm}"] = float(policy.logits.detach().softmax(1)[:, 1].mean())
    return {"effect": found["with"] - found["without"], **found}


CLAIMS = (
    Claim(
        "clip",
        "several passes",
        "The clipped ratio lets a batch be used for several passes, where the unclipped surrogate moves too far.",
        "Nine answers that are found right with probabilities 0.1 to 0.9; 64 tables learn side by side by grpo from "
        "groups of 8, 20 batches with eight passes over each, clipped at 0.2 and not at all; each at the rate of 1/8 "
        "to 16 that was best on seeds from 10000 on (8 and 0.5). Effect: probability of being right, mean over "
        "training, less the unclipped's. Beside it, both at four times the rate of the unclipped.",
        "A gain of less than 0.02.",
        0.02,
        safer_passes,
    ),
    Claim(
        "clip",
        "higher for the rare",
        "A higher upper bound (DAPO's clip-higher, 0.28 for 0.2) lets a rare good answer grow faster.",
        "An answer that is drawn one time in a hundred is always right, seven common ones one time in five; 64 tables "
        "learn side by side by grpo from groups of 16, 40 batches with eight passes, each bound at the rate of 1/8 to "
        "8 that was best on seeds 80000 to 80002 (4 for both). Effect: probability of the rare answer in the end, less "
        "that by the symmetric clip. (At first both learned at 1/4, where the symmetric clip is slow and the bound "
        "binds: +0.20; these are other seeds.)",
        "A gain of less than 0.05.",
        0.05,
        rare_answers,
    ),
    Claim(
        "kl",
        "a reward that is gamed",
        "A penalty on the divergence from the reference keeps a policy from what only looks good.",
        "A poor answer, a good one (0.4 at first) and one that looks better than the good one but is worth nothing "
        "(0.05 at first); 64 tables learn from looks by dr_grpo through 200 batches, with kl(0.2), which is k3, and "
        "without. Effect: probability of the good answer in the end, less that without. Beside it, with k2.",
        "A gain of less than 0.1.",
        0.1,
        close_to_the_reference,
    ),
    Claim(
        "kl",
        "k3 is the divergence",
        "k3 estimates the divergence without bias, so that a penalty on it in the loss penalises the divergence.",
        "The same tables and batches. What a penalty on the divergence makes best is known: the reward less 0.2 times "
        "the exact divergence from the reference. Effect: that figure after training by k3, less that after training "
        "by k2, whose gradient is the divergence's. Beside it, the largest there is. (The gradient of k3 is that of "
        "the divergence of the reference from the policy, which asks for less.)",
        "A figure lower by 0.02 or more.",
        -0.02,
        penalised,
    ),
    Claim(
        "entropy_bonus",
        "longer search",
        "A bonus for entropy keeps a policy from settling on the first answer that pays.",
        "A common answer that pays 0.6, a rare one (0.03) that pays 1, six that pay nothing; 64 tables learn side by "
        "side by dr_grpo through 300 batches, with a bonus of 0.05 and without. (At first the rare one had 0.01, and "
        "neither found it on seed 10000, which is none of these.) Effect: exact reward in the end, less that without.",
        "A gain of less than 0.05.",
        0.05,
        longer_search,
    ),
)
