"""DPH-RL (arXiv 2509.07430): rehearsal by a divergence keeps what the policy could do, on prompts that share weights.

World: 16 prompts with random features under one linear softmax of 12 actions. Six are *mastered*: the base policy holds
each of two right actions at 0.45. Ten are *new*: one action is right, all are equally likely. What is learnt of the new
prompts moves the mastered ones, because features overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion import objectives
from apportion.objectives import Objective
from apportion.rollouts import Rollouts
from apportion.rollouts.joining import join
from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy
from apportion.studies.tabular import Trained, rewarded, sample
from apportion.training.seeds import torch_generator

MASTERED, NEW, ACTIONS = 6, 10, 12
HELD = 0.45
"""Probability of each of the two right actions of a mastered prompt."""
KEPT = 0.1
"""An action is a mode while it has this much."""
STEPS, RESPONSES, LEARNING_RATE = 400, 160, 0.03
STORED = 8
"""Samples of the base policy a mastered prompt, of which the right ones are rehearsed."""


@dataclass(frozen=True)
class _World:
    """The base policy, and which actions are right ``[prompts, actions]``."""

    base: SharedPolicy
    right: Tensor

    def reward(self, prompt: int, tokens: tuple[int, ...]) -> float:
        return float(self.right[prompt, tokens[0]])

    def modes_kept(self, policy: SharedPolicy) -> float:
        """Share of the right actions of mastered prompts that still are modes."""
        return float((self.likely(policy)[:MASTERED][self.right[:MASTERED]] >= KEPT).double().mean())

    def accuracy(self, policy: SharedPolicy) -> float:
        """On new prompts, exactly."""
        return float((self.likely(policy) * self.right)[MASTERED:].sum(1).mean())

    def likely(self, policy: SharedPolicy) -> Tensor:
        with torch.no_grad():
            prompts = torch.arange(MASTERED + NEW)
            return policy.next_logits(prompts, prompts[:, None][:, :0]).softmax(1)


def _world(seed: int) -> _World:
    generator = torch_generator("cpu", seed, "dph_rl", "world")
    prompts = MASTERED + NEW
    features = torch.randn((prompts, prompts), generator=generator, dtype=torch.float64)
    features = features / features.norm(dim=1, keepdim=True)
    order = torch.stack([torch.randperm(ACTIONS, generator=generator) for _ in range(prompts)])
    right = torch.zeros((prompts, ACTIONS), dtype=torch.bool).scatter_(1, order[:, :1], True)
    right[:MASTERED].scatter_(1, order[:MASTERED, 1:2], True)
    wrong = (1 - 2 * HELD) / (ACTIONS - 2)
    wanted = torch.zeros((prompts, ACTIONS), dtype=torch.float64)
    wanted[:MASTERED] = torch.where(right[:MASTERED], HELD, wrong).double().log()
    base = SharedPolicy(ACTIONS, 1, features, prompts=prompts)
    with torch.no_grad():
        base.logits.copy_(torch.linalg.solve(features, wanted))
    return _World(base, right)


def _rehearsal(world: _World, seed: int) -> Rollouts:
    """Right answers of the base policy to mastered prompts, with its log-probs."""
    generator = torch_generator("cpu", seed, "dph_rl", "rehearsal")
    drawn = rewarded(sample(world.base, range(MASTERED), STORED, generator), world.reward)
    drawn = drawn.select(drawn.column("episode:reward/outcome") > 0)
    drawn = drawn.with_statistic("log_probs/reference", drawn.column("log_probs/behaviour"), "given")
    drawn = drawn.with_column("response:origin", ["stored"] * drawn.n_responses)
    return drawn.with_groups(drawn.group_ids + MASTERED + NEW)


def _learn(world: _World, objective: Objective, seed: int, rehearsal: Rollouts | None = None) -> SharedPolicy:
    """Train a copy of the base policy, on new prompts where there is a rehearsal set and else on all of them."""
    policy = world.base.clone()
    prompts = range(MASTERED, MASTERED + NEW) if rehearsal is not None else range(MASTERED + NEW)
    generator = torch_generator("cpu", seed, "dph_rl", "sampling")
    trained = Trained(policy, "grpo", objective, learning_rate=LEARNING_RATE, optimizer="adamw", seed=seed)
    for _ in range(STEPS):
        rollouts = rewarded(sample(policy, prompts, RESPONSES // len(prompts), generator), world.reward)
        trained.step(rollouts if rehearsal is None else join([rollouts, rehearsal]))
    return policy


def _explore() -> Objective:
    return objectives.clip(low=0.2, high=0.28, dual=3.0)


def _against_none(seed: int) -> Mapping[str, float]:
    world = _world(seed)
    arms = {
        "js": _learn(world, objectives.OBJECTIVES["dph_rl"](kind="js", eta=0.2), seed, _rehearsal(world, seed)),
        "rl": _learn(world, _explore(), seed),
    }
    return _compared(world, arms, "js", "rl")


def _against_reverse(seed: int) -> Mapping[str, float]:
    world = _world(seed)
    rehearsed = objectives.mix(
        policy=_explore(), stored=objectives.OBJECTIVES["divergence"](kind="forward_kl", coefficient=0.05)
    )
    penalised = objectives.add(_explore(), objectives.kl(coefficient=0.05))
    arms = {
        "forward": _learn(world, rehearsed, seed, _rehearsal(world, seed)),
        "reverse": _learn(world, penalised, seed),
    }
    return _compared(world, arms, "forward", "reverse")


def _compared(world: _World, arms: Mapping[str, SharedPolicy], of: str, than: str) -> Mapping[str, float]:
    """Modes kept more, less what accuracy on new prompts that costs."""
    kept = {name: world.modes_kept(policy) for name, policy in arms.items()}
    right = {name: world.accuracy(policy) for name, policy in arms.items()}
    figures = {f"modes kept, {name}": share for name, share in kept.items()}
    figures |= {f"new accuracy, {name}": share for name, share in right.items()}
    return {"effect": kept[of] - kept[than] - max(0.0, right[than] - right[of]), **figures}


WORLD = (
    "A linear softmax of 12 actions on random features: 6 prompts whose base policy holds two right actions at 0.45 "
    "each, 10 new ones with one right action; 400 steps of 160 responses, AdamW 0.03 for both."
)

CLAIMS = (
    Claim(
        "dph_rl",
        "modes kept",
        "A Jensen-Shannon rehearsal of what the initial policy solves keeps its ways of solving it, at no cost to what "
        "is new.",
        f"{WORLD} dph_rl with stored right answers of the base policy against the same surrogate without a divergence "
        "on all 16 prompts. Effect: share of base modes with probability 0.1 or more, minus the control's, less any "
        "accuracy lost on new prompts.",
        "RL without a divergence keeps as many modes, or the rehearsal costs accuracy on new prompts.",
        0.1,
        _against_none,
    ),
    Claim(
        "divergence",
        "forward against reverse KL",
        "A mass-covering divergence keeps modes that a reverse KL penalty of the same weight loses.",
        f"{WORLD} forward_kl (0.05) on stored answers against kl (k3, 0.05) on the policy's own, on all 16 prompts. "
        "Effect: share of base modes with probability 0.1 or more, minus the control's, less any accuracy lost on new "
        "prompts.",
        "The reverse KL penalty keeps as many modes, or the rehearsal costs accuracy on new prompts.",
        0.1,
        _against_reverse,
    ),
)
