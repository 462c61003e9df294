"""Models trained beside the policy, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from apportion import objectives
from apportion.models.critic import Critic, critic_for
from apportion.objectives import Objective
from apportion.rollouts import Rollouts
from apportion.training.gradient import micro_batches
from apportion.training.learner import Learner, UpdateSettings


@dataclass(frozen=True, eq=False)
class LearnerFactory:
    """Makes a learner out of the policy, once that is ready: a model that starts from the policy's weights must not
    start from what they were before the warm start.

    Attributes:
        name: of the learner.
        objective: what it will minimise.
        makes: full names of the columns it will make.
        make: ``(policy, settings of the policy's updates) -> learner``.
    """

    name: str
    objective: Objective
    makes: tuple[str, ...]
    make: Callable[[Any, UpdateSettings], Learner]


class CriticLearner(Learner):
    """A critic: values of states, and of the states that truncated episodes end in."""

    model: Critic

    def annotate(self, rollouts: Rollouts) -> Rollouts:
        rollouts = super().annotate(rollouts)
        head = next(iter(self.makes)).removeprefix("values/")
        values = torch.zeros(rollouts.n_responses, dtype=torch.float64, device=rollouts.device)
        for part in micro_batches(rollouts, self.settings.micro_batch_tokens):
            values[part] = self.model.end_values(rollouts, part).double()
        # A finished episode is worth nothing more; one that hit a limit would have gone on.
        truncated = rollouts.column("response:truncated", reader="the critic").bool()
        ends = torch.where(truncated, values, 0.0)
        return rollouts.with_column(f"response:values_end/{head}", ends, maker=self.name)


def critic(learning_rate: float = 1e-3, clip: float = 0.5, head: str = "critic") -> LearnerFactory:
    """A critic that regresses the returns of credit method ``gae``.

    Args:
        learning_rate: of the critic.
        clip: how far a value may move from what it was, see objective ``value``.
        head: name of the value head; makes ``values/<head>`` and ``response:values_end/<head>``.
    """

    objective = objectives.OBJECTIVES["value"](clip=clip, head=head)

    def make(policy: Any, settings: UpdateSettings) -> Learner:
        makes = {f"values/{head}": f"values/{head}"}
        return CriticLearner(head, critic_for(policy, head), objective, settings.at(learning_rate), makes)

    return LearnerFactory(head, objective, (f"values/{head}", f"response:values_end/{head}"), make)


def implicit_prm(
    learning_rate: float = 1e-4, beta: float = 0.05, traj_score: str = "mean", threshold: float = 0.0
) -> LearnerFactory:
    """An implicit process reward model, a copy of the policy trained to prefer successes to failures.

    Its rewards come from the model as it was before this batch's update; see credit method ``oprl``.

    Args:
        learning_rate: of the reward model.
        beta: scale of the log-ratios.
        traj_score: how a trajectory's decisions are put together, see objective ``implicit_prm``.
        threshold: episodes rewarded more than this are successes.
    """

    objective = objectives.OBJECTIVES["implicit_prm"](beta=beta, traj_score=traj_score, threshold=threshold)

    def make(policy: Any, settings: UpdateSettings) -> Learner:
        return Learner("prm", policy.clone(), objective, settings.at(learning_rate), {"log_probs/prm": "log_probs"})

    return LearnerFactory("prm", objective, ("log_probs/prm",), make)


LEARNERS: dict[str, Callable[..., LearnerFactory]] = {"critic": critic, "implicit_prm": implicit_prm}
