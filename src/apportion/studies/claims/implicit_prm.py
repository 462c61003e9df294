"""The reward model of OPRL (arXiv 2509.19199): preferences between trajectories alone say which step was good.

World: four decisions out of three tokens, a policy and a set of right answers drawn at random; every token is a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.credit import METHODS, Clock
from apportion.credit.soft_optimal import backward_induction
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.studies.claim import Claim
from apportion.studies.tabular import sample
from apportion.training.annotate import annotate
from apportion.training.config import TrainConfig
from apportion.training.learner import UpdateSettings
from apportion.training.learners import LEARNERS
from apportion.training.seeds import torch_generator

TOKENS, LENGTH, RIGHT = 3, 4, 0.4
GROUPS, GROUP, BATCHES = 16, 8, 60


class _World:
    """A policy, and which of its responses are right ``[TOKENS ** LENGTH]`` in lexicographic order.

    Args:
        seed: of both.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch_generator("cpu", seed, "implicit_prm")
        self.policy = TabularPolicy(TOKENS, LENGTH)
        with torch.no_grad():
            self.policy.logits.copy_(torch.randn(self.policy.logits.shape, generator=self.generator))
        self.right = torch.rand(TOKENS**LENGTH, generator=self.generator) < RIGHT

    def draw(self, groups: int) -> Rollouts:
        """Groups with outcomes and the policy's log-probs, every token a turn."""
        drawn = sample(self.policy, [0] * groups, GROUP, self.generator)
        weights = TOKENS ** torch.arange(LENGTH - 1, -1, -1)
        number = (drawn.ids.reshape(-1, LENGTH) * weights).sum(1)
        every = torch.arange(drawn.n_tokens)
        drawn = drawn.with_reward("outcome", self.right[number].double()).with_spans("turn", every, every + 1)
        return annotate(drawn, {"old": self.policy}, {"old": ["log_probs"]}, 1 << 20)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """Exact, of every token ``[N]``."""
        sizes = [TOKENS**depth for depth in range(LENGTH)]
        likely = list(self.policy.logits.detach().softmax(1).split(sizes))
        rewards = [torch.zeros_like(rows) for rows in likely]
        rewards[-1] = self.right.double().reshape(-1, TOKENS)
        q, value = backward_induction(rewards, lambda q_SV, depth: (likely[depth] * q_SV).sum(1))
        table = torch.cat([q_SV - v_S[:, None] for q_SV, v_S in zip(q, value, strict=True)])
        return table[self.policy.states_of(rollouts), rollouts.ids]


def _measure(seed: int) -> Mapping[str, float]:
    world = _World(seed)
    settings = UpdateSettings.of(TrainConfig(seed=seed, micro_batch_tokens=1 << 20))
    learner = LEARNERS["implicit_prm"](learning_rate=0.05).make(world.policy, settings)
    for step in range(BATCHES):
        batch = world.draw(GROUPS)
        learner.update(METHODS["none"](component="outcome")(batch), Clock(step, BATCHES))
    fresh = learner.annotate(world.draw(GROUPS * 8))
    truth = world.advantages(fresh)
    figures = {
        "process reward": _correlation(fresh.column("log_probs/prm") - fresh.column("log_probs/old"), truth),
        "outcome": _correlation(METHODS["rloo"]()(fresh).advantages, truth),
    }
    return {"effect": figures["process reward"] - figures["outcome"], **figures}


def _correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1])


CLAIMS = (
    Claim(
        "implicit_prm",
        "steps out of trajectories",
        "A model trained to prefer successful trajectories scores their steps better than the outcome does.",
        "Four steps of one token out of three, a random policy and random right answers; the reward model learns from "
        "60 batches of 16 groups of 8 (AdamW 0.05, defaults). Effect: on fresh steps, the correlation of its log-ratio "
        "with the exact advantage, minus that of leave-one-out outcome credit.",
        "The outcome spread over the steps is as close to their advantages.",
        0.1,
        _measure,
    ),
)
