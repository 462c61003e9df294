"""DAPO (arXiv 2503.14476): dynamic sampling, which draws again until every group has something to compare, and the soft
penalty on what is too long. Its higher clip is in ``clip``.

Worlds: 64 questions of four answers that share parameters, so that what is learnt of one is said of others; and an
answer that is followed by tokens that mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import numpy as np
import torch

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy
from apportion.studies.speed import updates_to
from apportion.studies.tabular import Reward, Trained, every_response, expected, rewarded, sample
from apportion.training.dynamic import draw_contrasting
from apportion.training.seeds import torch_generator

QUESTIONS, FEATURES, ANSWERS = 64, 16, 4
PROMPTS, GROUP, ROUNDS = 16, 8, 8
UPDATES, LEVEL = 150, 0.9
AS_MANY = 54
"""Prompts an update of GRPO: as many as dapo draws for one of its own."""
ARMS = {"grpo": (False, 360.0), "dapo": (True, 64.0)}
"""Whether groups without a contrast are drawn anew, and the rate at which the fewest responses are needed."""
SAMPLING_SEEDS = 30_000
"""Added to the seed of the claim on sampling."""


def questions(generator: torch.Generator) -> tuple[SharedPolicy, Reward]:
    """A policy that knows nothing yet, and which answers are right: the likeliest under hidden parameters."""
    features = torch.randn((QUESTIONS, FEATURES), generator=generator, dtype=torch.float64) / FEATURES**0.5
    hidden = torch.randn((FEATURES, ANSWERS), generator=generator, dtype=torch.float64)
    answers = (features @ hidden).argmax(1).tolist()
    policy = SharedPolicy(ANSWERS, 1, features, prompts=QUESTIONS)
    return policy, lambda prompt, tokens: float(tokens[0] == answers[prompt])


def learned(method: str, anew: bool, rate: float, seed: int) -> tuple[float, float]:
    """Updates to an accuracy of 0.9, and the responses drawn for them."""
    generator = torch_generator("cpu", seed + SAMPLING_SEEDS, "dapo")
    policy, reward = questions(generator)
    every = every_response(policy, reward)
    trained = Trained(policy, method, learning_rate=rate)
    found, responses = [expected(policy, every)], [0.0]

    def draw(number: int, prompts: int = PROMPTS) -> Rollouts:
        chosen = torch.randperm(QUESTIONS, generator=generator)[:prompts].tolist()
        rollouts = rewarded(sample(policy, chosen, GROUP, generator), reward)
        return replace(rollouts, group_ids=rollouts.group_ids + number * prompts)

    while found[-1] < LEVEL and len(found) <= UPDATES:
        if anew:
            rollouts, drawn = draw_contrasting(draw, PROMPTS, ROUNDS)
            prompts = drawn["sampling_rounds"] * PROMPTS
        else:
            rollouts, prompts = draw(0, AS_MANY), AS_MANY
        trained.step(rollouts)
        found.append(expected(policy, every))
        responses.append(responses[-1] + prompts * GROUP)
    updates = updates_to(LEVEL, found)
    return updates, float(np.interp(updates, range(len(responses)), responses))


def fewer_responses(seed: int) -> Mapping[str, float]:
    """The share of responses to an accuracy of 0.9 that dynamic sampling saves."""
    arms = {method: learned(method, anew, rate, seed) for method, (anew, rate) in ARMS.items()}
    return {
        "effect": 1 - arms["dapo"][1] / arms["grpo"][1],
        **{f"updates, {method}": updates for method, (updates, _) in arms.items()},
        **{f"responses, {method}": responses for method, (_, responses) in arms.items()},
    }


# What is too long

RIGHT, WRONG, END = 1, 0, 2
DEPTH, COPIES, BATCHES = 8, 64, 30
LENGTH_ARMS = {"penalty": f"dapo(max_length={DEPTH}, buffer={DEPTH // 2})", "no penalty": "dapo"}
LENGTH_RATE, ENDS = 1.0, 0.1
FRESH_SEEDS = 100
"""Added to the seed: on the first six, answers in the end were looked at."""


def talkative() -> TabularPolicy:
    """Right half of the time; then it ends one time in ten, whatever it has answered."""
    policy = TabularPolicy(3, DEPTH, COPIES, end_ids=(END,))
    with torch.no_grad():
        policy.logits[:] = torch.tensor([1 - ENDS, 0.0, ENDS], dtype=torch.float64).log()
        first = torch.arange(COPIES) * int(policy.starts[-1])
        policy.logits[first] = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    return policy


def in_time(arm: str, rate: float, seed: int) -> tuple[float, float]:
    """Share of answers that are right and not cut off, and of those cut off, mean over training.

    A verifier finds nothing right in what was cut off.
    """
    generator = torch_generator("cpu", seed, "overlong")
    policy = talkative()
    trained = Trained(policy, LENGTH_ARMS[arm], learning_rate=rate * COPIES)
    right, cut = [], []
    for _ in range(BATCHES):
        rollouts = _checked(sample(policy, range(COPIES), GROUP, generator))
        right.append(float(rollouts.column("episode:reward/outcome").mean()))
        cut.append(float(rollouts.column("response:truncated").double().mean()))
        trained.step(rollouts)
    return fmean(right), fmean(cut)


def within_the_limit(seed: int) -> Mapping[str, float]:
    """What the penalty adds to answers that are right and in time."""
    found: dict[str, float] = {}
    for arm in LENGTH_ARMS:
        found[f"right, {arm}"], found[f"cut off, {arm}"] = in_time(arm, LENGTH_RATE, seed + FRESH_SEEDS)
    return {"effect": found["right, penalty"] - found["right, no penalty"], **found}


def _checked(rollouts: Rollouts) -> Rollouts:
    right = rewarded(rollouts, lambda prompt, tokens: float(tokens[0] == RIGHT)).column("episode:reward/outcome")
    return rollouts.with_reward("outcome", torch.where(rollouts.column("response:truncated").bool(), 0.0, right))


CLAIMS = (
    Claim(
        "dapo",
        "dynamic sampling",
        "Drawing again until every group has something to compare learns as much from fewer responses.",
        "64 questions of four answers under a linear policy of 16 features, groups of 8; dapo on 16 groups an update, "
        "drawn anew, for up to eight rounds, until 16 have different rewards, against grpo on 54 groups as they come, "
        "as many as dapo draws; each at the rate of 16, 32 and so on to 1024, and of those half-way beside the best, "
        "that needed the fewest responses on seeds 80000 to 80005 (64, and 360 for grpo). Effect: share of grpo's "
        "responses to an accuracy of 0.9, in 150 updates at most, that dapo saves. (At first grpo drew 16 groups, less "
        "than a third of dapo's, and updates were counted, both at 64: +0.52; these are other seeds.)",
        "Less than a tenth of the responses saved.",
        0.1,
        fewer_responses,
    ),
    Claim(
        "dapo",
        "a soft limit",
        "A penalty that grows before the length limit, in place of failure at it alone, makes more answers right.",
        "An answer, right half of the time at first, then tokens that mean nothing, of which the policy ends one in "
        "ten; what is longer than 8 tokens, about half, is cut off and not right. 64 tables learn side by side from "
        "groups of 8 through 30 batches by dapo at a rate of 1, with max_length=8 and a buffer of 4, and without; "
        "GRPO's division makes the steps of both as long. Effect: share of answers that are right and not cut off, "
        "mean over training, less that without. (At first one token in four ended a response, and on seeds 0 to 5 it "
        "was looked at after 60 batches, when hardly anything is cut off either way; these are other seeds.)",
        "A gain of less than 0.05.",
        0.05,
        within_the_limit,
    ),
)
