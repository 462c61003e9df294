"""The reward model of OPRL (arXiv 2509.19199): preferences between trajectories alone say which step was good.

World: six decisions out of eight tokens. A response is right if its score, a sum of random scores of neighbouring
tokens, is among the highest fifth of those that the policy draws. Policy and reward model know the place and the last
token only, which is what scores depend on: what is learnt of some trajectories is said of others, whose prefixes may
never have been seen. Every token is a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.credit import METHODS, Clock
from apportion.credit.prefixes import prefix_tree
from apportion.credit.soft_optimal import backward_induction
from apportion.models.tabular import TabularPolicy
from apportion.rollouts import Rollouts
from apportion.rollouts.joining import join
from apportion.studies.claim import Claim
from apportion.studies.shared import SharedPolicy
from apportion.studies.tabular import sample
from apportion.training.annotate import annotate
from apportion.training.config import TrainConfig
from apportion.training.learner import UpdateSettings
from apportion.training.learners import LEARNERS
from apportion.training.seeds import torch_generator

TOKENS, LENGTH, RIGHT = 8, 6, 0.2
GROUPS, GROUP, BATCHES = 4, 8, 30
RATE = 0.003
FRESH = 30_000
"""Seeds that were not looked at."""


def _state(prompt: Tensor, prefix: Tensor) -> Tensor:
    """Place and last token."""
    last = prefix[:, -1] if prefix.shape[1] else torch.zeros_like(prompt)
    return prefix.shape[1] * TOKENS + last


class _World:
    """A policy, and which of its responses are right ``[TOKENS ** LENGTH]`` in lexicographic order.

    Args:
        seed: of both.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch_generator("cpu", seed, "implicit_prm")
        self.policy = SharedPolicy(TOKENS, LENGTH, states=LENGTH * TOKENS, state_of=_state)
        scores = torch.randn(self.policy.logits.shape, generator=self.generator, dtype=torch.float64)
        with torch.no_grad():
            self.policy.logits.copy_(torch.randn(scores.shape, generator=self.generator))
        likely = self.along(self.policy.logits.detach().log_softmax(1)).exp()
        score, order = self.along(scores).sort(descending=True)
        cut = score[int((likely[order].cumsum(0) < RIGHT).sum())]
        self.right = self.along(scores) >= cut

    def along(self, table: Tensor) -> Tensor:
        """Sums of a table ``[states, TOKENS]`` along every response ``[TOKENS ** LENGTH]``."""
        total = torch.zeros(1, dtype=torch.float64)
        for depth, rows in enumerate(table.view(LENGTH, TOKENS, TOKENS)):
            last = rows[:1] if depth == 0 else rows.repeat(TOKENS ** (depth - 1), 1)
            total = (total[:, None] + last).flatten()
        return total

    def draw(self) -> Rollouts:
        """Groups with outcomes and the policy's log-probs, every token a turn."""
        drawn = sample(self.policy, [0] * GROUPS, GROUP, self.generator)
        weights = TOKENS ** torch.arange(LENGTH - 1, -1, -1)
        number = (drawn.ids.reshape(-1, LENGTH) * weights).sum(1)
        every = torch.arange(drawn.n_tokens)
        drawn = drawn.with_reward("outcome", self.right[number].double()).with_spans("turn", every, every + 1)
        return annotate(drawn, {"old": self.policy}, {"old": ["log_probs"]}, 1 << 20)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """Exact, of every token ``[N]``."""
        table = self.policy.logits.detach().softmax(1).view(LENGTH, TOKENS, TOKENS)
        likely = [table[0][:1], *(rows.repeat(TOKENS ** (depth - 1), 1) for depth, rows in enumerate(table) if depth)]
        rewards = [torch.zeros_like(rows) for rows in likely]
        rewards[-1] = self.right.double().reshape(-1, TOKENS)
        q, value = backward_induction(rewards, lambda q_SV, depth: (likely[depth] * q_SV).sum(1))
        exact = torch.cat([q_SV - v_S[:, None] for q_SV, v_S in zip(q, value, strict=True)])
        tree = TabularPolicy(TOKENS, LENGTH)  # its states are the prefixes
        return exact[tree.states_of(rollouts), rollouts.ids]


def _measure(seed: int) -> Mapping[str, float]:
    world = _World(FRESH + seed)
    settings = UpdateSettings.of(TrainConfig(seed=seed, micro_batch_tokens=1 << 20))
    learner = LEARNERS["implicit_prm"](learning_rate=RATE).make(world.policy, settings)
    batches = [world.draw() for _ in range(BATCHES)]
    for step, batch in enumerate(batches):
        learner.update(METHODS["none"](component="outcome")(batch), Clock(step, BATCHES))
    drawn = learner.annotate(join(batches))
    truth = world.advantages(drawn)
    together = drawn.with_groups(torch.zeros_like(drawn.group_ids))
    tree = prefix_tree(together)
    figures = {
        "process reward": _correlation(drawn.column("log_probs/prm") - drawn.column("log_probs/old"), truth),
        "prefix means": _correlation(METHODS["tree_td"]()(together).advantages, truth),
        "prefix means and outcome": _correlation(METHODS["tempo"]()(together).advantages, truth),
        "outcome": _correlation(METHODS["rloo"]()(drawn).advantages, truth),
    }
    means = max(figures["prefix means"], figures["prefix means and outcome"])
    repeated = float((tree.visits[tree.after] > 1).double().mean())
    return {"effect": figures["process reward"] - means, **figures, "steps with a prefix seen twice": repeated}


def _correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1])


CLAIMS = (
    Claim(
        "implicit_prm",
        "steps out of trajectories",
        "A model trained to prefer successful trajectories scores their steps better than means over them do.",
        "Six steps of one token out of eight; right is a high sum of scores of neighbouring tokens, which policy and "
        "reward model can tell. The reward model learns from 30 batches of 4 groups of 8 (AdamW 0.003, best of 0.001 "
        "to 0.1 on other seeds). Effect: on those steps, the correlation of its log-ratio with the exact advantage, "
        "minus that of differences of prefix means over the same trajectories, with or without the outcome (tempo, "
        "tree_td), whichever does better. At first the control was the outcome alone, in a world of 81 responses: "
        "+0.28. With four times the trajectories of five tokens, where nine prefixes in ten repeat, prefix means were "
        "closer (0.89 against 0.70); here two in three do, and seeds are others.",
        "Means over prefixes are as close to the advantages.",
        0.1,
        _measure,
    ),
)
