"""HICRA (arXiv 2509.03646): more praise and less blame for planning tokens.

World: a first token chooses one of eight strategies, two of which are right and together have 0.1; three tokens carry
it out, each as it should be with 0.97. The answer is right if the strategy is and all three are. The strategy is
marked as planning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.speed import saved, updates_to
from apportion.studies.tabular import Trained, sample
from apportion.training.seeds import torch_generator

STRATEGIES, RIGHT, LIKELY = 8, 2, 0.1
DEPTH, SURE = 4, 0.97
COPIES, GROUP, UPDATES, LEVEL = 32, 8, 80, 0.9
BASE = "grpo(norm_by_std=False)"
RATE = 16.0
"""A table. Both methods' gradients are about as long; at any rate from 8 to 1024 they need about as many updates."""


def _start() -> TabularPolicy:
    policy = TabularPolicy(STRATEGIES, DEPTH, COPIES)
    right = torch.arange(STRATEGIES) < RIGHT
    strategy = torch.where(right, LIKELY / RIGHT, (1 - LIKELY) / (STRATEGIES - RIGHT))
    carried_out = torch.full((STRATEGIES,), (1 - SURE) / (STRATEGIES - 1))
    carried_out[0] = SURE
    with torch.no_grad():
        policy.logits[:] = carried_out.log()
        policy.logits[_roots(policy)] = strategy.log().double()
    return policy


def _roots(policy: TabularPolicy) -> Tensor:
    return torch.arange(policy.prompts) * int(policy.starts[-1])


@torch.no_grad()
def success(policy: TabularPolicy) -> float:
    """Exact probability of a right answer, over prompts."""
    prompt = torch.arange(policy.prompts)
    total = torch.zeros(policy.prompts, dtype=torch.float64)
    for strategy in range(RIGHT):
        path = torch.tensor([strategy] + [0] * (DEPTH - 1)).expand(policy.prompts, -1)
        likely = [policy.next_logits(prompt, path[:, :t]).softmax(1)[prompt, path[:, t]] for t in range(DEPTH)]
        total += torch.stack(likely).prod(0)
    return float(total.mean())


def first_token(rollouts: Rollouts, generator: torch.Generator) -> Tensor:
    """The strategy plans ``[N]``."""
    marked = torch.zeros(rollouts.n_tokens, dtype=torch.bool)
    marked[rollouts.token_offsets[:-1]] = True
    return marked


def any_other(rollouts: Rollouts, generator: torch.Generator) -> Tensor:
    """A placebo: one of the other tokens of every response, at random ``[N]``."""
    marked = torch.zeros(rollouts.n_tokens, dtype=torch.bool)
    place = torch.randint(1, DEPTH, (rollouts.n_responses,), generator=generator)
    marked[rollouts.token_offsets[:-1] + place] = True
    return marked


@dataclass
class Course:
    """Figures before the first update and after each, means of the tables."""

    success: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)


def course(
    method: str,
    rate: float,
    seed: int,
    plans: Callable[[Rollouts, torch.Generator], Tensor] = first_token,
    updates: int = UPDATES,
) -> Course:
    """Training: probability of a right answer, and entropy of the strategy as a share of the largest there is."""
    generator, marks = torch.Generator().manual_seed(seed), torch_generator("cpu", seed, "hicra", "placebo")
    policy = _start()
    learner = Trained(policy, method, learning_rate=rate * COPIES)
    result = Course()

    def look() -> None:
        likely = policy.logits.detach()[_roots(policy)].softmax(1)
        result.entropy.append(float(-torch.special.xlogy(likely, likely).sum(1).mean()) / math.log(STRATEGIES))
        result.success.append(success(policy))

    look()
    for _ in range(updates):
        rollouts = sample(policy, range(COPIES), GROUP, generator)
        y = rollouts.ids.view(-1, DEPTH)
        right = (y[:, 0] < RIGHT) & (y[:, 1:] == 0).all(1)
        rollouts = rollouts.with_reward("outcome", right.double())
        learner.step(rollouts.with_column("planning/grams", plans(rollouts, marks)))
        look()
    return result


def speed(seed: int) -> Mapping[str, float]:
    """Updates to being right nine times in ten."""
    base, hicra = (course(method, RATE, seed).success for method in (BASE, "hicra"))
    placebo = course("hicra", RATE, seed, plans=any_other).success
    return {
        "effect": saved(LEVEL, slow=base, fast=hicra),
        "base_updates": updates_to(LEVEL, base),
        "hicra_updates": updates_to(LEVEL, hicra),
        "placebo_updates": updates_to(LEVEL, placebo),
    }


def exploration(seed: int) -> Mapping[str, float]:
    """Entropy of the strategy, over training."""
    base, hicra = (fmean(course(method, RATE, seed).entropy) for method in (BASE, "hicra"))
    return {"effect": hicra - base, "hicra": hicra, "base": base}


_HOW = (
    "32 tables learn side by side from groups of 8, 80 updates by SGD at one rate; hicra, the strategy marked as "
    "planning, against the advantages it starts from. "
)

CLAIMS = (
    Claim(
        "hicra",
        "fewer updates",
        "Raising the advantages of planning tokens makes the policy find right strategies sooner.",
        _HOW + "Effect: share of the updates to being right 9 times in 10 that HICRA saves. Beside it, a placebo: "
        "another token of every response marked, at random.",
        "Less than a twentieth of the updates saved.",
        0.05,
        speed,
    ),
    Claim(
        "hicra",
        "exploration",
        "Raising the advantages of planning tokens sustains the exploration of strategies.",
        _HOW + "Effect: entropy of the strategy as a share of the largest, mean over training, less that of the base.",
        "Entropy no higher by 0.02.",
        0.02,
        exploration,
    ),
)
