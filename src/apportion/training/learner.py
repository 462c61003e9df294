"""A model that learns: parameters, what they minimise, the optimiser that does it, and the columns it makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from apportion.credit import Clock, Credit
from apportion.errors import RunStopped
from apportion.models.policy import Model
from apportion.objectives import Objective
from apportion.rollouts import Rollouts
from apportion.training.config import TrainConfig
from apportion.training.gradient import accumulate, measure, micro_batches
from apportion.training.seeds import numpy_generator


@dataclass(frozen=True)
class UpdateSettings:
    """How a model is updated; the fields are those of :class:`~apportion.training.config.TrainConfig`."""

    optimizer: str
    learning_rate: float
    warmup_steps: int
    decay: str
    beta1: float
    beta2: float
    weight_decay: float
    max_grad_norm: float
    epochs: int
    minibatches: int
    micro_batch_tokens: int
    seed: int

    @staticmethod
    def of(config: TrainConfig) -> UpdateSettings:
        """The policy's."""
        return UpdateSettings(
            optimizer=config.optimizer,
            learning_rate=config.learning_rate,
            warmup_steps=config.warmup_steps,
            decay=config.decay,
            beta1=config.beta1,
            beta2=config.beta2,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            epochs=config.epochs,
            minibatches=config.minibatches,
            micro_batch_tokens=config.micro_batch_tokens,
            seed=config.seed,
        )

    def at(self, learning_rate: float) -> UpdateSettings:
        """The same with another learning rate."""
        return replace(self, learning_rate=learning_rate)


def adamw(parameters: Sequence[Parameter], settings: UpdateSettings) -> Optimizer:
    """Adam with decoupled weight decay: the length of the gradient does not change the length of the step."""
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)


def sgd(parameters: Sequence[Parameter], settings: UpdateSettings) -> Optimizer:
    r"""Gradient descent without momentum: :math:`\theta \leftarrow \theta - \eta (g + \lambda \theta)`.

    Without moments a penalty in the gradient and a decay beside it are the same, so weight decay means what it means
    for :func:`adamw`.
    """
    return torch.optim.SGD(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


OPTIMIZERS: dict[str, Callable[[Sequence[Parameter], UpdateSettings], Optimizer]] = {"adamw": adamw, "sgd": sgd}
"""By the names that :class:`~apportion.training.config.TrainConfig` accepts."""


class Learner:
    """A model with its objective and its optimiser.

    Args:
        name: of its checkpoint folder and in front of its metrics.
        model: what learns.
        objective: what it minimises; its ``now`` is the model's own.
        settings: optimiser, learning rate and its schedule, clipping, epochs, minibatches.
        makes: columns to add to every batch, and the model's statistics they hold.
        order: whether it is updated ``before`` its columns are made (it may then not need ``credit/*``) or ``after``
            credit was assigned from the columns of the model as it was.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        objective: Objective,
        settings: UpdateSettings,
        makes: Mapping[str, str] | None = None,
        order: Literal["before", "after"] = "after",
    ) -> None:
        self.name, self.model, self.objective, self.settings = name, model, objective, settings
        self.makes, self.order = dict(makes or {}), order
        self.parameters = [p for _, p in model.named_parameters()]
        self.optimiser = OPTIMIZERS[settings.optimizer](self.parameters, settings)

    def annotate(self, rollouts: Rollouts) -> Rollouts:
        """Add the columns it makes."""
        if not self.makes:
            return rollouts
        names = list(dict.fromkeys(self.makes.values()))
        parts = micro_batches(rollouts, self.settings.micro_batch_tokens, self.model.prefix_sharing)
        values = measure(self.model, rollouts, names, parts)
        for column, statistic in self.makes.items():
            rollouts = rollouts.with_statistic(column, values[statistic], self.name)
        return rollouts

    def update(self, credit: Credit, clock: Clock) -> dict[str, float]:
        """Train on one batch: every epoch goes through it once, cut by whole groups into minibatches.

        Raises:
            RunStopped: the loss or the gradient is not finite; the parameters of the failing step are untouched.
        """
        values: dict[str, list[float]] = {}
        for epoch in range(self.settings.epochs):
            rng = numpy_generator(self.settings.seed, self.name, "minibatches", clock.step, epoch)
            for part in split_by_groups(credit, self.settings.minibatches, rng):
                for name, value in self._step(part, clock).items():
                    values.setdefault(name, []).append(value)
        # A metric is a mean over the minibatches that have it: one without stored rows has nothing to say of them.
        return {name: sum(each) / len(each) for name, each in values.items()}

    def _step(self, credit: Credit, clock: Clock) -> dict[str, float]:
        settings = self.settings
        rate = settings.learning_rate * schedule(clock, settings.warmup_steps, settings.decay)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        parts = micro_batches(credit.rollouts, settings.micro_batch_tokens, self.model.prefix_sharing)
        loss = accumulate(self.model, self.objective, credit.rollouts, credit, parts, clock)
        limit = settings.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_([p for p in self.parameters if p.grad is not None], limit))
        if not (math.isfinite(float(loss.value)) and math.isfinite(norm)):
            groups = sorted(set(credit.rollouts.group_ids.tolist()))
            raise RunStopped(
                f"the loss of the {self.name} is {float(loss.value)} and its gradient's norm {norm} at step "
                f"{clock.step + 1}, on the rollouts of groups {groups[0]} to {groups[-1]}: weights and checkpoints are "
                "as before this step; try a lower learning rate, or look at those rollouts."
            )
        self.optimiser.step()
        metrics = {name: float(value) for name, value in loss.metrics.items()}
        return {"loss": float(loss.value), "grad_norm": norm, "learning_rate": rate, **metrics}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {"optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.optimiser.load_state_dict(dict(state["optimiser"]))


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
