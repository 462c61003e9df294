"""A model that learns: parameters, what they minimise, and the optimiser that does it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from apportion.credit import Clock, Credit
from apportion.errors import RunStopped
from apportion.models.policy import Policy
from apportion.objectives import Objective
from apportion.training.config import TrainConfig
from apportion.training.gradient import accumulate, micro_batches
from apportion.training.seeds import numpy_generator


class Learner:
    """A policy with its objective and AdamW.

    Args:
        policy: what learns.
        objective: what it minimises.
        config: learning rate and its schedule, clipping, epochs, minibatches.
    """

    def __init__(self, policy: Policy, objective: Objective, config: TrainConfig) -> None:
        self.policy, self.objective, self.config = policy, objective, config
        self.parameters = [p for _, p in policy.named_parameters()]
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )

    def update(self, credit: Credit, clock: Clock) -> dict[str, float]:
        """Train on one batch: every epoch goes through it once, cut by whole groups into minibatches.

        Raises:
            RunStopped: the loss or the gradient is not finite; the parameters of the failing step are untouched.
        """
        totals: dict[str, float] = {}
        for epoch in range(self.config.epochs):
            rng = numpy_generator(self.config.seed, "minibatches", clock.step, epoch)
            for part in split_by_groups(credit, self.config.minibatches, rng):
                for name, value in self._step(part, clock).items():
                    totals[name] = totals.get(name, 0.0) + value
        updates = self.config.epochs * min(self.config.minibatches, credit.rollouts.n_groups)
        return {name: value / updates for name, value in totals.items()}

    def _step(self, credit: Credit, clock: Clock) -> dict[str, float]:
        rate = self.config.learning_rate * schedule(clock, self.config.warmup_steps, self.config.decay)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        parts = micro_batches(credit.rollouts, self.config.micro_batch_tokens)
        loss = accumulate(self.policy, self.objective, credit.rollouts, credit, parts, clock)
        limit = self.config.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_([p for p in self.parameters if p.grad is not None], limit))
        if not (math.isfinite(float(loss.value)) and math.isfinite(norm)):
            groups = sorted(set(credit.rollouts.group_ids.tolist()))
            raise RunStopped(
                f"the loss is {float(loss.value)} and the gradient's norm {norm} at step {clock.step + 1}, on the "
                f"rollouts of groups {groups[0]} to {groups[-1]}: weights and checkpoints are as before this step; "
                "try a lower learning rate, or look at those rollouts."
            )
        self.optimiser.step()
        metrics = {name: float(value) for name, value in loss.metrics.items()}
        return {"loss": float(loss.value), "grad_norm": norm, "learning_rate": rate, **metrics}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {"optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.optimiser.load_state_dict(state["optimiser"])


def schedule(clock: Clock, warmup_steps: int, decay: str) -> float:
    """Learning rate at a step as a share of its peak: a linear rise, then constant or linear to 0 after the last step.

    Example:
        >>> [round(schedule(Clock(s, 4), 2, "linear"), 3) for s in range(4)]
        [0.5, 1.0, 0.667, 0.333]
    """
    if clock.step < warmup_steps:
        return (clock.step + 1) / warmup_steps
    if decay == "constant":
        return 1.0
    start = max(warmup_steps - 1, 0)
    return (clock.total_steps - clock.step) / max(clock.total_steps - start, 1)


def split_by_groups(credit: Credit, parts: int, rng: np.random.Generator) -> list[Credit]:
    """Cut a batch into parts of whole groups, shuffled; one part is the batch itself."""
    if parts == 1:
        return [credit]
    order = torch.from_numpy(rng.permutation(credit.rollouts.n_groups)).to(credit.rollouts.device)
    chosen = [chunk for chunk in torch.tensor_split(order, parts) if len(chunk)]
    return [credit.select(torch.isin(credit.rollouts.group_of_episode, chunk)) for chunk in chosen]
