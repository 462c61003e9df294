"""GRPO (arXiv 2402.03300), Dr.GRPO (arXiv 2503.20783) and RLOO (arXiv 2402.14740): what comparing with a group is for.

Worlds: a prompt of nine answers of which one is right; prompts from hard to easy; and a prompt whose answer is followed
by as many tokens that mean nothing as the policy likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

import torch

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.clarity import noise, samples_saved
from apportion.studies.tabular import Reward, Trained, every_response, expected, gradient, rewarded, sample, update
from apportion.training.seeds import torch_generator

WRONG, RIGHT, END = 0, 1, 2
COPIES = 64
"""Tables that learn side by side; their mean is one repeat."""

# GRPO against learning from right answers alone

ANSWERS, GROUP, UPDATES = 9, 8, 40
RATES = {"compared": 4.0, "right answers": 8.0}


def luck(prompt: int, tokens: tuple[int, ...]) -> float:
    """Probability that an answer is found right: from 0.1 for the worst to 0.9 for the best of nine."""
    return 0.1 + 0.1 * tokens[0]


def alone(rollouts: Rollouts) -> Rollouts:
    """Every response in a group of its own."""
    return replace(rollouts, group_ids=torch.arange(rollouts.n_episodes))


def learned(arm: str, rate: float, seed: int) -> list[float]:
    """Probability of being found right before the first update and after each, over the tables."""
    generator = torch_generator("cpu", seed, "grpo")
    policy = TabularPolicy(ANSWERS, 1, COPIES)
    every = every_response(policy, luck)
    trained = Trained(policy, "grpo" if arm == "compared" else "grpo(singleton='raw')", learning_rate=rate * COPIES)
    found = [expected(policy, every)]
    for _ in range(UPDATES):
        rollouts = rewarded(sample(policy, range(COPIES), GROUP, generator), luck)
        likely = rollouts.column("episode:reward/outcome")
        dice = torch.rand(len(likely), generator=generator, dtype=torch.float64)
        rollouts = rollouts.with_reward("outcome", (dice < likely).double())
        trained.step(rollouts if arm == "compared" else alone(rollouts))
        found.append(expected(policy, every))
    return found


def more_often_right(seed: int) -> Mapping[str, float]:
    """Probability of being right, over the whole of training."""
    found = {arm: fmean(learned(arm, rate, seed)) for arm, rate in RATES.items()}
    return {"effect": found["compared"] - found["right answers"], **found}


# RLOO against a baseline of the whole batch

PROMPTS, FEW, BATCHES = 8, 4, 100
DIFFICULTY = (0.05, 0.1, 0.25, 0.5, 0.5, 0.75, 0.9, 0.95)
"""Probabilities of being right, where rewards are 0 and 1."""
FRESH_SEEDS = 30_000
"""Added to the seed: others were looked at."""


def _right(prompt: int, tokens: tuple[int, ...]) -> float:
    return float(tokens[0] == RIGHT)


def graded(prompt: int, tokens: tuple[int, ...]) -> float:
    """A reward model's score: 1 up or down by the answer, and up to 1.5 up or down by the prompt."""
    return 2 * _right(prompt, tokens) - 1 + 3 * prompt / (PROMPTS - 1) - 1.5


def clearer(seed: int, chances: Sequence[float], reward: Reward) -> dict[str, float]:
    """Share of the samples spared by comparing with the prompt's others, and the noise of updates of either kind."""
    generator = torch_generator("cpu", seed + FRESH_SEEDS, "rloo")
    policy = TabularPolicy(2, 2, PROMPTS)
    with torch.no_grad():
        odds = torch.tensor(chances, dtype=torch.float64).logit()
        policy.logits[torch.arange(PROMPTS) * int(policy.starts[-1]), RIGHT] = odds
    exact = gradient(policy, every_response(policy, reward)).flatten()
    by_prompt, by_batch = [], []
    for _ in range(BATCHES):
        rollouts = rewarded(sample(policy, range(PROMPTS), FEW, generator), reward)
        by_prompt.append(update(policy, "rloo", rollouts).flatten())
        together = replace(rollouts, group_ids=torch.zeros_like(rollouts.group_ids))
        by_batch.append(update(policy, "rloo", together).flatten())
    own, control = torch.stack(by_prompt), torch.stack(by_batch)
    return {
        "effect": samples_saved(own, control, exact),
        "noise, prompt": noise(own, exact),
        "noise, batch": noise(control, exact),
    }


# Dr.GRPO against GRPO: the length of wrong answers

DEPTH, LENGTH_UPDATES, LEARNED = 8, 400, 0.8
LENGTH_ARMS = {
    "GRPO": ("grpo", "clip(aggregate='seq_mean_token_mean')", 0.25),
    "Dr.GRPO": ("dr_grpo", f"clip(aggregate='seq_mean_token_sum_norm(length={DEPTH})')", 1.5),
}


def talkative() -> TabularPolicy:
    """Right one time in five; then it goes on or ends with equal probability, whatever it has answered."""
    policy = TabularPolicy(3, DEPTH, COPIES, end_ids=(END,))
    with torch.no_grad():
        policy.logits[:, RIGHT] = -torch.inf
        first = torch.arange(COPIES) * int(policy.starts[-1])
        policy.logits[first] = torch.tensor([0.8, 0.2, 0.0], dtype=torch.float64).log()
    return policy


@torch.no_grad()
def chances(policy: TabularPolicy) -> float:
    """Probability of a right answer, over the tables."""
    first = torch.arange(COPIES) * int(policy.starts[-1])
    return float(policy.logits[first].softmax(1)[:, RIGHT].mean())


@torch.no_grad()
def length_after(policy: TabularPolicy, answer: int) -> float:
    """Expected length of responses that begin with an answer, over the tables.

    Example:
        >>> round(length_after(talkative(), WRONG), 3)  # 1 + 1 + 1/2 + ... + 1/64
        2.984
    """
    prompts = torch.arange(COPIES)
    prefix = torch.full((COPIES, 1), answer)
    going, length = torch.ones(COPIES, dtype=torch.float64), torch.ones(COPIES, dtype=torch.float64)
    for _ in range(DEPTH - 1):
        length = length + going
        going = going * policy.logits[policy.state(prompts, prefix)].softmax(1)[:, WRONG]
        prefix = torch.cat([prefix, torch.full((COPIES, 1), WRONG)], 1)
    return float(length.mean())


def shorter(seed: int) -> Mapping[str, float]:
    """Length of wrong answers when four in five are right."""
    found: dict[str, float] = {}
    for arm, (method, objective, rate) in LENGTH_ARMS.items():
        generator = torch_generator("cpu", seed, "dr_grpo")
        policy = talkative()
        trained = Trained(policy, method, objective, learning_rate=rate * COPIES)
        updates = 0
        while chances(policy) < LEARNED and updates < LENGTH_UPDATES:
            rollouts = rewarded(sample(policy, range(COPIES), GROUP, generator), _right)
            trained.step(rollouts)
            updates += 1
        found |= {
            f"wrong, {arm}": length_after(policy, WRONG),
            f"right, {arm}": length_after(policy, RIGHT),
            f"updates, {arm}": updates,
            f"chance, {arm}": chances(policy),
        }
    return {"effect": found["wrong, GRPO"] - found["wrong, Dr.GRPO"], **found}


_OWN = "The mean of a prompt's other answers is a better baseline than one of the whole batch"
_ONE_GROUP = (
    "rloo with a prompt's answers as its group, and with the whole batch as one group. Effect: the share of samples "
    "spared for an equally clear gradient, from 100 batches."
)
_NONE_SPARED = "Less than a fifth of the samples spared."

CLAIMS = (
    Claim(
        "grpo",
        "more than right answers",
        "Comparing answers with their group learns more than repeating those that are right (Online RFT).",
        "Nine answers that are found right with probabilities 0.1 to 0.9; 64 tables learn side by side from groups of "
        "8 through 40 updates, by GRPO and by the same with every answer in a group of its own, which leaves the "
        "reward of 0 or 1; each at the rate of 1/4 to 32 that was best on seeds from 10000 on (4 and 8). Effect: "
        "probability of being right, mean over training, less the control's.",
        "A gain of less than 0.02.",
        0.02,
        more_often_right,
    ),
    Claim(
        "rloo",
        "clearer than a batch's baseline",
        _OWN + " where prompts pay differently.",
        "Eight prompts, four answers each, scored as by a reward model: 1 up or down by the answer, up to 1.5 up or "
        f"down by the prompt. {_ONE_GROUP} Chosen after rewards of 0 and 1, the claim below, where prompts differ less "
        "than in the paper; 0.35 on the first seeds, these are others.",
        _NONE_SPARED,
        0.2,
        partial(clearer, chances=(0.5,) * PROMPTS, reward=graded),
    ),
    Claim(
        "rloo",
        "clearer with rewards of 0 and 1",
        _OWN + " where a verifier says right or wrong.",
        f"Eight prompts right with chances from 0.05 to 0.95, four answers each. {_ONE_GROUP} On the first seeds it "
        "was -0.31, these are others.",
        _NONE_SPARED,
        0.2,
        partial(clearer, chances=DIFFICULTY, reward=_right),
    ),
    Claim(
        "dr_grpo",
        "wrong answers stay short",
        "GRPO's division by length and deviation makes wrong answers longer; without it their length stays.",
        "An answer, right one time in five, then up to seven tokens that mean nothing and that the policy ends when it "
        "likes: 2.98 tokens. 64 tables learn from groups of 8 until four in five answers are right, in about 40 "
        "updates either way: grpo averaged over tokens and then responses, and dr_grpo divided by a constant length. "
        "Effect: expected length of wrong answers then, GRPO's less Dr.GRPO's, in tokens.",
        "Less than 0.3 tokens, a tenth of their length at first.",
        0.3,
        shorter,
    ),
)
