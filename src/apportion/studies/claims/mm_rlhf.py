"""MM-RLHF (arXiv 2502.10391): a DPO whose temperature follows a reward model's margin.

World: 40 prompts with five answers of known worth. Preferences are noisy where two answers are worth nearly the same;
a reward model sees every worth with noise and says each pair's margin.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion import objectives
from apportion.models.tabular import TabularPolicy
from apportion.objectives import Objective
from apportion.objectives.margin_scaling import scaled_beta
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained
from apportion.training.seeds import torch_generator

PROMPTS, ANSWERS, PAIRS = 40, 5, 20
BETA, SCALE, STEEPNESS = 0.1, 1.0, 0.5
UPDATES, RATE = 120, 320.0
RM_NOISE = 0.5


def _preferences(worth: Tensor, generator: torch.Generator) -> Rollouts:
    """Pairs of different answers to every prompt, preferred with probability sigmoid(2 difference), and margins.

    Args:
        worth: of every answer ``[PROMPTS, ANSWERS]``.
        generator: of everything random.
    """
    prompt = torch.arange(PROMPTS).repeat_interleave(PAIRS)
    first = torch.randint(0, ANSWERS, prompt.shape, generator=generator)
    second = (first + torch.randint(1, ANSWERS, prompt.shape, generator=generator)) % ANSWERS
    difference = worth[prompt, first] - worth[prompt, second]
    agrees = torch.rand(prompt.shape, generator=generator, dtype=torch.float64) < (2 * difference).sigmoid()
    chosen, rejected = torch.where(agrees, first, second), torch.where(agrees, second, first)
    seen = worth + RM_NOISE * torch.randn(worth.shape, generator=generator, dtype=torch.float64)
    every = torch.arange(PROMPTS * ANSWERS)
    rollouts = Rollouts.from_lists(
        [[a] for _ in range(PROMPTS) for a in range(ANSWERS)],
        groups=(every // ANSWERS).tolist(),
        prompts=[[p] for p in (every // ANSWERS).tolist()],
    )
    rollouts = rollouts.with_pairs(prompt * ANSWERS + chosen, prompt * ANSWERS + rejected)
    margin = seen[prompt, chosen] - seen[prompt, rejected]
    return rollouts.with_column("pair:margin", margin, maker="given")


def _learn(objective: Objective, pairs: Rollouts, worth: Tensor) -> float:
    """Exact expected worth of what is trained from a uniform policy."""
    policy = TabularPolicy(ANSWERS, 1, PROMPTS)
    trained = Trained(policy, "none", objective, learning_rate=RATE)
    for _ in range(UPDATES):
        trained.step(pairs)
    with torch.no_grad():
        return float((policy.logits.softmax(1) * worth).sum(1).mean())


def _measure(seed: int) -> Mapping[str, float]:
    generator = torch_generator("cpu", seed, "mm_rlhf")
    worth = torch.randn((PROMPTS, ANSWERS), generator=generator, dtype=torch.float64)
    pairs = _preferences(worth, generator)
    betas = scaled_beta(pairs.column("pair:margin"), BETA, SCALE, STEEPNESS, 1e-3)
    dpo = objectives.OBJECTIVES["dpo"]
    arms = {
        "mm_dpo": objectives.OBJECTIVES["mm_dpo"](beta=BETA, w=SCALE, k=STEEPNESS, imitate=0.0),
        "dpo, same mean beta": dpo(beta=float(betas.mean())),
        "dpo": dpo(beta=BETA),
    }
    figures = {name: _learn(objective, pairs, worth) for name, objective in arms.items()}
    return {"effect": figures["mm_dpo"] - max(figures["dpo"], figures["dpo, same mean beta"]), **figures}


CLAIMS = (
    Claim(
        "mm_dpo",
        "clear pairs count more",
        "Scaling DPO's temperature by a reward model's margin learns better from pairs whose labels are noisy where "
        "answers are close.",
        "40 prompts with five answers of known worth, 20 pairs a prompt preferred with probability sigmoid(2 "
        "difference), margins from worths seen with noise 0.5; 120 updates of SGD 320, mm_dpo with w=1, k=0.5 and no "
        "imitation. Controls: dpo with beta 0.1, and with the mean of the scaled betas, because a larger beta alone is "
        "a larger step. Effect: exact expected worth, minus the larger of the controls'.",
        "A DPO of the same mean beta does as well.",
        0.01,
        _measure,
    ),
)
