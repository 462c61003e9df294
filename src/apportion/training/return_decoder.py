"""A model that learns rewards of decisions from returns, and the decisions it draws to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from apportion.credit import Clock, Credit
from apportion.credit.decisions import trained_sizes
from apportion.models.return_decoder import ReturnDecoder
from apportion.objectives import Objective
from apportion.objectives.return_decomposition import draw
from apportion.rollouts import Rollouts, steps
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.seeds import torch_generator


class ReturnDecoderLearner(Learner):
    """A decoder of latent factors into rewards of decisions, trained on returns.

    Args:
        model: what learns.
        objective: what it minimises.
        settings: how it is updated.
        order: whether a batch's rewards come from the decoder after or before it learned from that batch.
        reward: the component it makes.
        sampled_steps: decisions drawn of every episode for an update; None: all are used.
    """

    model: ReturnDecoder

    def __init__(
        self,
        model: ReturnDecoder,
        objective: Objective,
        settings: UpdateSettings,
        order: Literal["before", "after"],
        reward: str,
        sampled_steps: int | None,
    ) -> None:
        super().__init__("return_decoder", model, objective, settings, order=order)
        self.reward, self.sampled_steps, self.updates = reward, sampled_steps, 0

    def annotate(self, rollouts: Rollouts) -> Rollouts:
        with torch.no_grad():
            latent = self.model.latent(rollouts)
            decoded = self.model.decode(latent) if len(latent) else latent.new_zeros(0)
        # What the policy did not write earned it nothing.
        own = trained_sizes(steps(rollouts, self.model.level)) > 0
        values = torch.where(own, decoded.double(), 0.0)
        return rollouts.with_reward(self.reward, values, level=self.model.level, maker=self.name)

    def _step(self, credit: Credit, clock: Clock) -> dict[str, float]:
        if self.sampled_steps is not None:
            generator = torch_generator("cpu", self.settings.seed, self.name, "drawn", self.updates)
            drawn = draw(credit.rollouts, credit, self.model.level, self.sampled_steps, generator)
            rollouts = credit.rollouts.with_column(f"{self.model.level}:drawn", drawn, maker=self.name)
            credit = replace(credit, rollouts=rollouts)
        self.updates += 1
        return super()._step(credit, clock)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "updates": self.updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.updates = state["updates"]
