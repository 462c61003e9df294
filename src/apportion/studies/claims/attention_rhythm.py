"""Attention rhythm (arXiv 2510.13554): more credit for the tokens that attention marks.

World: responses of ten binary tokens, four of which decide: each must be a certain token; the verifier errs with
probability 0.1. Logits are linear in six random features of the position, so that what is learnt of tokens that decide
nothing disturbs what is learnt of those that do. Attention is planted: its influence on later tokens (FAI) is 1 at
tokens that decide and 0 at others, with a normal error of 0.5 at every place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean

import torch
from torch import Tensor

from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy
from apportion.studies.tabular import Trained, sample
from apportion.training.seeds import torch_generator

LENGTH, DECIDING, FEATURES = 10, 4, 6
MISJUDGED, FAI_ERROR = 0.1, 0.5
COPIES, GROUP, UPDATES = 32, 8, 80
METHOD = "attention_rhythm(rhythm='global')"
RATES = {"grpo": 16.0, METHOD: 16.0}
"""Where each learns most."""

Attention = Callable[[Tensor, torch.Generator], Tensor]
"""From which places decide ``[prompts, LENGTH]`` to what attention says of them."""


def _place(prompt: Tensor, prefix: Tensor) -> Tensor:
    return prompt * LENGTH + prefix.shape[1]


def planted(decides: Tensor, generator: torch.Generator) -> Tensor:
    """Attention goes to what decides, with errors."""
    return decides.double() + FAI_ERROR * torch.randn(decides.shape, generator=generator, dtype=torch.float64)


def at_random(decides: Tensor, generator: torch.Generator) -> Tensor:
    """Attention has nothing to do with what decides."""
    return torch.rand(decides.shape, generator=generator, dtype=torch.float64)


def training(method: str, rate: float, seed: int, attention: Attention = planted) -> list[float]:
    """Exact probability of deciding rightly over training, of as many policies as there are copies."""
    world, generator = (torch_generator("cpu", seed, "attention_rhythm", of) for of in ("world", "samples"))
    blocks = torch.randn((COPIES, LENGTH, FEATURES), generator=world, dtype=torch.float64)
    blocks = blocks / blocks.norm(dim=2, keepdim=True)
    decides = torch.rand((COPIES, LENGTH), generator=world).argsort(1) < DECIDING
    wanted = torch.randint(2, (COPIES, LENGTH), generator=world)
    fai = attention(decides, world)
    features = torch.block_diag(*blocks)
    policy = SharedPolicy(2, LENGTH, features, prompts=COPIES, state_of=_place)
    learner = Trained(policy, method, learning_rate=rate * COPIES)

    def rightly() -> float:
        with torch.no_grad():
            likely = (features @ policy.logits).softmax(1).view(COPIES, LENGTH, 2)
        good = likely.gather(2, wanted[:, :, None]).squeeze(2)
        return float(torch.where(decides, good, 1.0).prod(1).mean())

    found = [rightly()]
    for _ in range(UPDATES):
        rollouts = sample(policy, range(COPIES), GROUP, generator)
        y = rollouts.ids.view(COPIES, GROUP, LENGTH)
        right = ((y == wanted[:, None]) | ~decides[:, None]).all(2).flatten()
        right ^= torch.rand(len(right), generator=generator, dtype=torch.float64) < MISJUDGED
        rollouts = rollouts.with_reward("outcome", right.double())
        learner.step(rollouts.with_statistic("fai/old", fai.repeat_interleave(GROUP, 0).flatten(), "planted"))
        found.append(rightly())
    return found


def curve(method: str, rate: float, seed: int) -> list[float]:
    """With planted attention."""
    return training(method, rate, seed)


def learning(seed: int) -> Mapping[str, float]:
    """Mean over training, against GRPO."""
    plain, rhythm = (fmean(curve(method, rate, seed)) for method, rate in RATES.items())
    return {"effect": rhythm - plain, "rhythm": rhythm, "grpo": plain}


def structure(seed: int) -> Mapping[str, float]:
    """Mean over training, against marks at random."""
    random, rhythm = (fmean(training(METHOD, RATES[METHOD], seed, attention)) for attention in (at_random, planted))
    return {"effect": rhythm - random, "rhythm": rhythm, "random": random}


_HOW = (
    "32 policies learn side by side, groups of 8, SGD, attention planted, a factor of 1.5 on the 4 of 10 tokens with "
    "the largest FAI; "
)

CLAIMS = (
    Claim(
        "attention_rhythm",
        "learning",
        "More credit for the tokens that attention marks learns more than the same credit for all.",
        _HOW + "against grpo, each at the rate of 4, 8, 16 and 32 that learnt most on seeds from 100 on (16 for both). "
        "Effect: probability of deciding rightly, mean over 80 updates.",
        "A mean probability higher by less than 0.02.",
        0.02,
        learning,
    ),
    Claim(
        "attention_rhythm",
        "marks that mean something",
        "What helps is which tokens are marked, not that some are.",
        _HOW + "against the same with as many tokens marked at random, at the same rate. Effect: probability of "
        "deciding rightly, mean over 80 updates.",
        "A mean probability higher by less than 0.02.",
        0.02,
        structure,
    ),
)
