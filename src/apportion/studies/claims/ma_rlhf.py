"""MA-RLHF (arXiv 2410.02743): a late reward comes back over macro actions in fewer decisions than over tokens.

World: responses of 40 binary tokens; the reward, at the end, is the share of ones among eight of them, every fifth
from the third on. Policy and critic know the position alone. Generalised advantages with lambda 0.95, so that what the
first token earned comes back with 0.95 to the number of decisions in between.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from apportion.annotations import ANNOTATORS
from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy
from apportion.studies.speed import saved, updates_to
from apportion.studies.tabular import Trained, sample

LENGTH = 40
KEYS = tuple(range(2, LENGTH, 5))
COPIES, GROUP, UPDATES, LEVEL = 16, 8, 80, 0.9
TOKENS, MACROS = 1, 5
"""Tokens a macro action."""
RATES = {TOKENS: 8.0, MACROS: 4.0}
"""Where each needs fewest updates, by tokens a macro action."""
CRITIC_RATE = 0.2
"""Of a position's value, towards the mean return of the batch."""


def _place(prompt: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
    return prompt * LENGTH + prefix.shape[1]


def curve(size: int, rate: float, seed: int) -> list[float]:
    """Exact expected reward over training, of as many tables as there are copies.

    Args:
        size: tokens a macro action; 1 makes the method token-level estimation.
        rate: of SGD, a position.
        seed: of the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    policy = SharedPolicy(2, LENGTH, states=LENGTH * COPIES, prompts=COPIES, state_of=_place)
    learner = Trained(
        policy,
        "ma_rlhf(kl_coefficient=0.0)",
        learning_rate=rate * COPIES * LENGTH,
        learners=(f"critic(learning_rate={CRITIC_RATE * COPIES * LENGTH})",),
    )
    mark = ANNOTATORS["macro_actions"](rule=f"fixed(n={size})")

    def reward() -> float:
        likely = policy.logits.detach().softmax(1)[:, 1].view(COPIES, LENGTH)
        return float(likely[:, list(KEYS)].mean())

    found = [reward()]
    for _ in range(UPDATES):
        rollouts = sample(policy, range(COPIES), GROUP, generator)
        share = rollouts.ids.view(-1, LENGTH)[:, list(KEYS)].double().mean(1)
        learner.step(mark.apply(rollouts.with_reward("outcome", share), policy))
        found.append(reward())
    return found


def speed(seed: int) -> Mapping[str, float]:
    """Updates to reward 0.9."""
    tokens, macros = (curve(size, rate, seed) for size, rate in RATES.items())
    return {
        "effect": saved(LEVEL, slow=tokens, fast=macros),
        "token_updates": updates_to(LEVEL, tokens),
        "macro_updates": updates_to(LEVEL, macros),
    }


CLAIMS = (
    Claim(
        "ma_rlhf",
        "fewer updates",
        "Estimating advantages over macro actions needs fewer updates than over tokens.",
        "16 tables learn side by side, batches of 8 each, a critic beside each, SGD; ma_rlhf with macro actions of 5 "
        "tokens against 1, each at the rate of 4, 8, 16, 32 and 64 that was fastest on seeds 100 and 101 (8 for "
        "tokens, 4 for macro actions). Effect: share of the updates to reward 0.9 that macro actions save; the "
        "paper's is 0.4 to 0.5. The world looked at first had three deciding tokens and batches of 32, and either "
        "needed little more than one update.",
        "Less than a fifth of the updates saved.",
        0.2,
        speed,
    ),
)
