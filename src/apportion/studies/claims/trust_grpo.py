"""Trust-GRPO (arXiv 2505.17018): a judge that prefers wrong answers on some prompts is trusted less there.

A table of one choice among four answers a prompt. On most prompts right answers think best; on *inverted* ones the
judge likes a flashy wrong answer (0.9) more than the right one (0.2); on *ambiguous* ones two answers are right and one
is better reasoned.

Suffix legend: E episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.speed import saved, updates_to
from apportion.studies.tabular import Trained, sample

STEPS, GROUP = 300, 8
NEVER = 10**9
"""Steps over which the thinking reward decays where it is not to decay."""

Kind = tuple[tuple[float, ...], ...]

PLAIN: Kind = ((1, 0, 0, 0), (0.8, 0.2, 0.2, 0.2))
INVERTED: Kind = ((1, 0, 0, 0), (0.2, 0.9, 0.2, 0.2))
AMBIGUOUS: Kind = ((1, 1, 0, 0), (0.9, 0.3, 0.3, 0.3))
"""Outcome of every answer, and the judge's mean score of its thinking."""

MIXED = [PLAIN] * 14 + [INVERTED] * 6
FRESH = 30_000
"""Seeds that were not looked at, neither with other rates or beginnings nor to choose rates by."""
REASONED = 0.9
"""Share of the better reasoned answer among the right ones, to be reached."""


def _scored(rollouts: Rollouts, kinds: list[Kind], generator: torch.Generator) -> Rollouts:
    """Outcomes and thinking scores; the judge errs by a tenth."""
    table = torch.tensor(kinds, dtype=torch.float64)
    outcome_E, thinking_E = table[rollouts.group_of_episode, :, rollouts.ids].unbind(1)
    noise_E = torch.randn(len(thinking_E), generator=generator, dtype=torch.float64)
    rollouts = rollouts.with_reward("outcome", outcome_E)
    return rollouts.with_reward("thinking", (thinking_E + 0.1 * noise_E).clamp(0, 1))


def _course(method: str, kinds: list[Kind], rate: float, seed: int) -> list[Tensor]:
    """Probabilities of the answers to every prompt before the first update and after each."""
    generator = torch.Generator().manual_seed(seed)
    policy = TabularPolicy(vocabulary=4, depth=1, prompts=len(kinds))
    learner, found = Trained(policy, method, learning_rate=rate, total_steps=STEPS), [policy.logits.detach().softmax(1)]
    for step in range(STEPS):
        rollouts = _scored(sample(policy, range(len(kinds)), GROUP, generator), kinds, generator)
        outcome_E, thinking_E = (rollouts.column(f"reward/{name}") for name in ("outcome", "thinking"))
        # What trust is compared with: the same reward, as though every group could be trusted, faded or as it is.
        rollouts = rollouts.with_reward("blended", outcome_E + math.exp(-step / STEPS) * thinking_E)
        learner.step(rollouts.with_reward("sum", outcome_E + thinking_E))
        found.append(policy.logits.detach().softmax(1))
    return found


TRUSTED = "trust_grpo(alpha=1.0)"
BLENDED = "grpo(component='blended')"
STAYING = f"trust_grpo(alpha=1.0, total_steps={NEVER})"
SUM = "grpo(component='sum')"
INVERTED_RATES = {TRUSTED: 64.0, BLENDED: 64.0, STAYING: 64.0}
"""Where each is most accurate on inverted prompts."""
REASONED_RATES = {TRUSTED: 64.0, SUM: 64.0}
"""Where each is soonest at the better reasoned answers."""


def on_inverted(seed: int, control: str) -> Mapping[str, float]:
    """Accuracy on inverted prompts of trust_grpo less that of a control, and what both are on the others."""
    figures: dict[str, float] = {}
    for name, method in (("trust_grpo", TRUSTED), ("control", control)):
        right = _course(method, MIXED, INVERTED_RATES[method], FRESH + seed)[-1][:, 0]
        figures |= {f"{name}_inverted": float(right[14:].mean()), f"{name}_plain": float(right[:14].mean())}
    return {"effect": figures["trust_grpo_inverted"] - figures["control_inverted"], **figures}


def better_reasoned(seed: int) -> Mapping[str, float]:
    """Updates until nine right answers in ten are the better reasoned one."""
    shares = {
        method: [
            float((p[:, 0] / p[:, :2].sum(1)).mean()) for p in _course(method, [AMBIGUOUS] * 20, rate, FRESH + seed)
        ]
        for method, rate in REASONED_RATES.items()
    }
    return {
        "effect": saved(REASONED, slow=shares[SUM], fast=shares[TRUSTED]),
        "trust_grpo_updates": updates_to(REASONED, shares[TRUSTED]),
        "sum_updates": updates_to(REASONED, shares[SUM]),
    }


_TUNED = "each at the rate of 4, 16, 64 and 256 that was most accurate there on seeds from 50000 on"

CLAIMS = (
    Claim(
        "trust_grpo",
        "trust",
        "Damping a group's thinking reward where wrong answers out-score right ones protects against a judge that is "
        "wrong there.",
        "20 prompts of 4 answers, equally likely at first, 6 of them inverted, alpha 1, 300 steps in groups of 8; "
        f"trust_grpo against GRPO on the same annealed sum without trust, {_TUNED} (64 for both). Effect: accuracy on "
        "the inverted prompts. At rate 0.5 for both it was 0.8 points, and 11 where right answers begin at a tenth, "
        "but neither had learnt all it would; these are other seeds.",
        "Accuracy on inverted prompts no higher by two points than without trust.",
        0.02,
        partial(on_inverted, control=BLENDED),
    ),
    Claim(
        "trust_grpo",
        "annealing",
        "Fading the thinking reward out lets the outcome decide in the end.",
        f"The same; weight exp(-step/300) against a constant weight, trust in both, {_TUNED} (64 for both). Effect: "
        "accuracy on the inverted prompts. At rate 0.5 for both it was 0.6 points, and 10 where right answers begin "
        "at a tenth; these are other seeds.",
        "Accuracy on inverted prompts no higher by two points than with a constant weight.",
        0.02,
        partial(on_inverted, control=STAYING),
    ),
    Claim(
        "trust_grpo",
        "better reasoned",
        "Trust and fading leave the thinking reward its use where the outcome cannot tell answers apart: sound "
        "reasoning rises as soon as by the plain sum of both rewards.",
        "20 prompts with two right answers, one better reasoned (0.9 against 0.3), all equally likely at first, groups "
        "of 8; trust_grpo against GRPO on outcome plus thinking score, each at the rate of 4, 16, 64 and 256 that was "
        "soonest on seeds from 50000 on (64 for both). Effect: share of the updates saved until nine right answers in "
        "ten are the better reasoned one. At first the control was GRPO on the outcome, which is blind to reasoning: a "
        "share of it 0.43 larger; these are other seeds.",
        "More than a tenth more updates than by the plain sum.",
        -0.1,
        better_reasoned,
    ),
)
