"""Trust-GRPO (arXiv 2505.17018): a judge that prefers wrong answers on some prompts is trusted less there.

A table of one choice among four answers a prompt. On most prompts right answers think best; on *inverted* ones the
judge likes a flashy wrong answer (0.9) more than the right one (0.2); on *ambiguous* ones two answers are right and one
is better reasoned.

Suffix legend: E episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import Trained, sample

STEPS, GROUP, RATE = 300, 8, 0.5
NEVER = 10**9
"""Steps over which the thinking reward decays where it is not to decay."""

Kind = tuple[tuple[float, ...], ...]

PLAIN: Kind = ((1, 0, 0, 0), (0.8, 0.2, 0.2, 0.2))
INVERTED: Kind = ((1, 0, 0, 0), (0.2, 0.9, 0.2, 0.2))
AMBIGUOUS: Kind = ((1, 1, 0, 0), (0.9, 0.3, 0.3, 0.3))
"""Outcome of every answer, and the judge's mean score of its thinking."""

MIXED = [PLAIN] * 14 + [INVERTED] * 6
RARE = (0.1, 0.3, 0.3, 0.3)
"""What the policy begins with where it is to be led astray: with a right answer in four, the judge costs an untrusting
learner 1.4 points, less than the threshold."""
EVEN = (0.25, 0.25, 0.25, 0.25)
FRESH = 100
"""Seeds that were not looked at before the beginning was chosen."""


def _scored(rollouts: Rollouts, kinds: list[Kind], generator: torch.Generator) -> Rollouts:
    """Outcomes and thinking scores; the judge errs by a tenth."""
    table = torch.tensor(kinds, dtype=torch.float64)
    outcome_E, thinking_E = table[rollouts.group_of_episode, :, rollouts.ids].unbind(1)
    noise_E = torch.randn(len(thinking_E), generator=generator, dtype=torch.float64)
    rollouts = rollouts.with_reward("outcome", outcome_E)
    return rollouts.with_reward("thinking", (thinking_E + 0.1 * noise_E).clamp(0, 1))


def _trained(method: str, kinds: list[Kind], begin: tuple[float, ...], seed: int) -> Tensor:
    """Probabilities of the answers to every prompt after training."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(vocabulary=4, depth=1, prompts=len(kinds))
    with torch.no_grad():
        policy.logits[:] = torch.tensor(begin, dtype=torch.float64).log()
    learner = Trained(policy, method, learning_rate=RATE, total_steps=STEPS)
    for step in range(STEPS):
        rollouts = _scored(sample(policy, range(len(kinds)), GROUP, generator), kinds, generator)
        outcome_E, thinking_E = (rollouts.column(f"reward/{name}") for name in ("outcome", "thinking"))
        # What trust is compared with: the same reward, as though every group could be trusted.
        learner.step(rollouts.with_reward("blended", outcome_E + math.exp(-step / STEPS) * thinking_E))
    return policy.logits.detach().softmax(1)


def trust(seed: int) -> Mapping[str, float]:
    """Accuracy on inverted prompts with trust and without, and what it is on the others."""
    arms = {
        "trust": "trust_grpo(alpha=1.0)",
        "no_trust": "grpo(component='blended')",
        "outcome_only": "grpo",
    }
    found = {name: _trained(method, MIXED, RARE, FRESH + seed) for name, method in arms.items()}
    figures = {f"{name}_inverted": float(p[14:, 0].mean()) for name, p in found.items()}
    figures |= {f"{name}_plain": float(p[:14, 0].mean()) for name, p in found.items()}
    return {"effect": figures["trust_inverted"] - figures["no_trust_inverted"], **figures}


def annealing(seed: int) -> Mapping[str, float]:
    """Accuracy on inverted prompts with a thinking reward that fades and with one that stays, both trusted alike."""
    fading = float(_trained("trust_grpo(alpha=1.0)", MIXED, RARE, FRESH + seed)[14:, 0].mean())
    staying = float(_trained(f"trust_grpo(alpha=1.0, total_steps={NEVER})", MIXED, RARE, FRESH + seed)[14:, 0].mean())
    return {"effect": fading - staying, "fading": fading, "staying": staying}


def better_reasoned(seed: int) -> Mapping[str, float]:
    """Share of the better reasoned answer among the right ones, with and without thinking reward."""
    shares = {}
    for name, method in (("trust_grpo", "trust_grpo(alpha=1.0)"), ("grpo", "grpo")):
        right = _trained(method, [AMBIGUOUS] * 20, EVEN, seed)[:, :2]
        shares[name] = float((right[:, 0] / right.sum(1)).mean())
    return {"effect": shares["trust_grpo"] - shares["grpo"], **shares}


CLAIMS = (
    Claim(
        "trust_grpo",
        "trust",
        "Damping a group's thinking reward where wrong answers out-score right ones protects against a judge that is "
        "wrong there.",
        "20 prompts of 4 answers, 6 of them inverted, alpha 1, 300 steps in groups of 8; trust_grpo against GRPO on "
        "the same annealed sum without trust. Effect: accuracy on the inverted prompts. Right answers begin at a "
        "tenth: at a quarter, looked at first, a judge without trust costs 1.4 points and trust gave back 0.8.",
        "Accuracy on inverted prompts no higher by two points than without trust.",
        0.02,
        trust,
    ),
    Claim(
        "trust_grpo",
        "annealing",
        "Fading the thinking reward out lets the outcome decide in the end.",
        "The same; weight exp(-step/300) against a constant weight, trust in both. Effect: accuracy on the inverted "
        "prompts. At a quarter right to begin with it was 0.6 points.",
        "Accuracy on inverted prompts no higher by two points than with a constant weight.",
        0.02,
        annealing,
    ),
    Claim(
        "trust_grpo",
        "better reasoned",
        "The thinking reward raises sound reasoning where the outcome cannot tell answers apart.",
        "20 prompts with two right answers, one better reasoned (0.9 against 0.3); trust_grpo against outcome-only "
        "GRPO. Effect: share of the better reasoned among right answers.",
        "A share no larger by a tenth than under outcome-only GRPO.",
        0.1,
        better_reasoned,
    ),
)
