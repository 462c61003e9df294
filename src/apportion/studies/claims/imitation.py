"""Imitation as a warm start (no paper's; the objective that begins a run): a few imperfect demonstrations, then RL.

World: one answer of eight tokens out of four is right, so that a policy that knows nothing finds it once in 65536
draws. A teacher gets every token right with probability 0.7, and so the answer once in 17.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained, rewarded, sample
from apportion.training.seeds import torch_generator

TOKENS, LENGTH, SKILL = 4, 8, 0.7
DEMONSTRATIONS, IMITATED, STEPS, RESPONSES, RATE = 64, 50, 100, 64, 0.1
ANSWER = (0,) * LENGTH
"""Which it is makes no difference to a table."""


def _reward(prompt: int, tokens: tuple[int, ...]) -> float:
    return float(tokens == ANSWER)


def success(policy: TabularPolicy) -> float:
    """Probability of the answer.

    Example:
        >>> success(TabularPolicy(TOKENS, LENGTH)) == 0.25**8
        True
    """
    places = torch.arange(LENGTH)
    rows = [policy.state(torch.tensor([0]), torch.zeros((1, int(place)), dtype=torch.int64)) for place in places]
    with torch.no_grad():
        return float(policy.logits[torch.cat(rows)].softmax(1)[:, 0].prod())


def _teacher() -> TabularPolicy:
    teacher = TabularPolicy(TOKENS, LENGTH)
    with torch.no_grad():
        teacher.logits.copy_(torch.tensor([SKILL, *[(1 - SKILL) / (TOKENS - 1)] * (TOKENS - 1)]).log())
    return teacher


def _imitate(policy: TabularPolicy, demonstrations: Rollouts) -> None:
    trained = Trained(policy, "none", "imitation", learning_rate=RATE, optimizer="adamw")
    for _ in range(IMITATED):
        trained.step(demonstrations)


def _reinforce(policy: TabularPolicy, seed: int) -> None:
    generator = torch_generator("cpu", seed, "imitation", "sampling")
    trained = Trained(policy, "grpo", "clip", learning_rate=RATE, optimizer="adamw", seed=seed)
    for _ in range(STEPS):
        trained.step(rewarded(sample(policy, [0], RESPONSES, generator), _reward))


def _measure(seed: int) -> Mapping[str, float]:
    generator = torch_generator("cpu", seed, "imitation", "demonstrations")
    demonstrations = sample(_teacher(), [0], DEMONSTRATIONS, generator)
    cold, warm = TabularPolicy(TOKENS, LENGTH), TabularPolicy(TOKENS, LENGTH)
    _imitate(warm, demonstrations)
    figures = {"imitation alone": success(warm)}
    _reinforce(warm, seed)
    _reinforce(cold, seed)
    figures |= {"imitation, then grpo": success(warm), "grpo alone": success(cold)}
    return {"effect": success(warm) - max(figures["imitation alone"], figures["grpo alone"]), **figures}


CLAIMS = (
    Claim(
        "imitation",
        "a warm start",
        "Imitating a few imperfect demonstrations lets reinforcement find what it would not find, and surpass them.",
        "One right answer of eight tokens out of four; 64 demonstrations that are right in each token with probability "
        "0.7, 50 updates of imitation, then 100 steps of grpo with 64 responses, AdamW 0.1. Effect: exact success, "
        "minus the larger of imitation alone and of grpo alone.",
        "Either alone succeeds as often.",
        0.2,
        _measure,
    ),
)
