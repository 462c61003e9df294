"""A reward model of utterances: it sees the past alone, and learns what a judge attributed in hindsight."""

from __future__ import annotations

import torch

from apportion.credit import Stage
from apportion.credit.algebra import last_of_row
from apportion.models.reward_model import RewardModel
from apportion.objectives import Objective
from apportion.rollouts import Rollouts, steps
from apportion.training.gradient import measure, micro_batches
from apportion.training.learner import Learner, UpdateSettings


class UtteranceRewardLearner(Learner):
    """A reward model that regresses rewards of utterances.

    Targets are made of the whole batch, before minibatches are cut, since every dimension's range is the batch's.

    Args:
        model: what learns.
        objective: what it minimises.
        settings: how it is updated.
        labels: makes the targets, as the detail ``utterance_rewards``.
        component: name of the reward it makes.
    """

    model: RewardModel

    def __init__(
        self, model: RewardModel, objective: Objective, settings: UpdateSettings, labels: Stage, component: str
    ) -> None:
        super().__init__(component, model, objective, settings)
        self.labels = labels

    def annotate(self, rollouts: Rollouts) -> Rollouts:
        table, name = steps(rollouts), self.model.name
        step_N = table.step_of_token
        parts = micro_batches(rollouts, self.settings.micro_batch_tokens)
        score_N = measure(self.model, rollouts, [name], parts)[name]
        last = last_of_row(step_N, rollouts.trained & (step_N >= 0)).nonzero().squeeze(1)
        # What the policy did not write earned it nothing.
        values = torch.zeros(len(table), dtype=torch.float64, device=rollouts.device)
        values[step_N[last]] = score_N[last].double()
        target = self.labels(rollouts, unscored="drop").columns[f"{table.level}:credit/utterance_rewards"]
        rollouts = rollouts.with_column(
            f"{table.level}:target/utterance", target.values, target.present, maker=self.name
        )
        return rollouts.with_reward(self.name, values, level=table.level, maker=self.name)
