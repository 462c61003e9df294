"""Models trained beside the policy, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from apportion import objectives
from apportion.credit import Clock, Credit
from apportion.credit.sotopia_rl import DIMENSIONS, utterance_rewards
from apportion.errors import InputError, unknown_name
from apportion.models.critic import Critic, critic_for
from apportion.models.return_decoder import ReturnDecoder
from apportion.models.reward_model import RewardModel, reward_model_for
from apportion.objectives import Objective
from apportion.objectives.b_coder import check_value_steps
from apportion.objectives.score_regression import score_regression
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import qualify
from apportion.training.gradient import micro_batches
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.return_decoder import ReturnDecoderLearner
from apportion.training.seeds import derive
from apportion.training.utterance_reward import UtteranceRewardLearner


@dataclass(frozen=True, eq=False)
class LearnerFactory:
    """Makes a learner out of the policy, once that is ready: a model that starts from the policy's weights must not
    start from what they were before the warm start.

    Attributes:
        name: of the learner.
        objective: what it will minimise.
        makes: full names of the columns it will make.
        make: ``(policy, settings of the policy's updates) -> learner``.
        needs: columns that the model itself reads.
    """

    name: str
    objective: Objective
    makes: tuple[str, ...]
    make: Callable[[Any, UpdateSettings], Learner]
    needs: tuple[str, ...] = ()


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


def critic(
    learning_rate: float = 1e-3, clip: float = 0.5, head: str = "critic", returns: str = "returns"
) -> LearnerFactory:
    """A critic that regresses the returns of a credit method, such as ``gae``.

    Args:
        learning_rate: of the critic.
        clip: how far a value may move from what it was, see objective ``value``.
        head: name of the value head; makes ``values/<head>`` and ``response:values_end/<head>``.
        returns: the credit's detail to regress, see objective ``value``.
    """

    objective = objectives.OBJECTIVES["value"](clip=clip, head=head, returns=returns)

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


class PretrainedValue(Learner):
    """A critic that is fitted during the first steps of a run, and frozen from then on.

    Args:
        model: what learns.
        objective: what it minimises.
        settings: how it is updated.
        value_steps: how many steps it learns.
        scale: settings of the objective; the column records them and ``value_steps``, so that a reader that needs
            others refuses it.
    """

    def __init__(
        self, model: Critic, objective: Objective, settings: UpdateSettings, value_steps: int, scale: Mapping[str, Any]
    ) -> None:
        super().__init__("pretrained", model, objective, settings, {"values/pretrained": "values/pretrained"})
        self.value_steps, self.recorded = value_steps, {**scale, "value_steps": value_steps}

    def update(self, credit: Credit, clock: Clock) -> dict[str, float]:
        return super().update(credit, clock) if clock.step < self.value_steps else {}

    def annotate(self, rollouts: Rollouts) -> Rollouts:
        rollouts = super().annotate(rollouts)
        for name in self.makes:
            column = rollouts.columns[qualify(name)]
            rollouts = rollouts.with_column(name, column.values, column.present, column.maker, **self.recorded)
        return rollouts


def pretrained_value(
    learning_rate: float = 1e-3,
    value_steps: int = 20,
    alpha: float = 1.0,
    gamma: float = 0.999,
    cap_values: bool = False,
    r_max: float = 1.0,
) -> LearnerFactory:
    """Stage 1 of objective ``b_coder``: a critic fitted to the values of the checkpoint, then frozen.

    Args:
        learning_rate: of the critic.
        value_steps: how many steps it is fitted; the policy waits for it.
        alpha: as in the objective, like the rest.
        gamma: discount a token.
        cap_values: keep Q at or below ``r_max``.
        r_max: the largest reward there is.
    """

    scale = {"alpha": alpha, "gamma": gamma, "cap_values": cap_values, "r_max": r_max}
    objective = objectives.OBJECTIVES["b_coder_value"](**scale)
    check_value_steps(value_steps)

    def make(policy: Any, settings: UpdateSettings) -> Learner:
        model = critic_for(policy, "pretrained")
        return PretrainedValue(model, objective, settings.at(learning_rate), value_steps, scale)

    return LearnerFactory("pretrained", objective, ("values/pretrained",), make)


class RewardLearner(Learner):
    """A reward model: scores of whole episodes."""

    model: RewardModel

    def annotate(self, rollouts: Rollouts) -> Rollouts:
        last = rollouts.response_offsets[1:] - 1
        values = torch.zeros(rollouts.n_responses, dtype=torch.float64, device=rollouts.device)
        for part in micro_batches(rollouts, self.settings.micro_batch_tokens):
            values[part] = self.model.end_scores(rollouts, part).double()
        return rollouts.with_reward(self.name, values[last], maker=self.name)


def reward_model(
    learning_rate: float = 1e-4,
    reward_weight: float = 1.0,
    tie_weight: float = 1.0,
    center_coefficient: float = 0.01,
    critic_weight: float = 0.0,
    margin: bool = False,
) -> LearnerFactory:
    """A reward model, a copy of the policy with a score head, trained on the pairs of every batch.

    Makes ``episode:reward/rm``, the score after the last token, from the model as it was before this batch's update:
    learn from it by a credit such as ``grpo(component='rm')``.

    Args:
        learning_rate: of the reward model.
        reward_weight: see objective ``reward_model``, as all below.
        tie_weight: of ties.
        center_coefficient: draws scores to 0.
        critic_weight: of critiques, which the rollouts must then bring.
        margin: lead by the pair column ``margin``.
    """

    objective = objectives.OBJECTIVES["reward_model"](
        reward_weight=reward_weight,
        tie_weight=tie_weight,
        center_coefficient=center_coefficient,
        critic_weight=critic_weight,
        margin=margin,
    )

    def make(policy: Any, settings: UpdateSettings) -> Learner:
        return RewardLearner("rm", reward_model_for(policy), objective, settings.at(learning_rate))

    return LearnerFactory("rm", objective, ("reward/rm", "episode:reward/rm"), make)


def return_decoder(
    factors: int = 4,
    loss: str = "rd",
    sampled_steps: int = 64,
    hidden: int = 256,
    layers: int = 3,
    learning_rate: float = 3e-4,
    epochs: int = 8,
    order: Literal["before", "after"] = "before",
    level: str = "step",
    reward: str = "proxy",
    component: str = "outcome",
) -> LearnerFactory:
    """A network that turns the factors of annotator ``latent_reward`` into rewards of decisions, for credit ``lare``.

    The paper trains on a replay of past episodes and the newest; here every batch is the fresh one, gone through
    several times.

    Args:
        factors: how many there are of a decision.
        loss: ``rd``, ``rrd`` or ``rrd_unbiased``, see objective ``return_decomposition``.
        sampled_steps: decisions drawn of every episode for ``rrd`` and ``rrd_unbiased``; others do not read it.
        hidden: width of the network.
        layers: its linear maps; 1: a linear decoder.
        learning_rate: of the decoder.
        epochs: passes over every batch.
        order: ``before`` (the paper): rewards come from the decoder that has learned from this batch's returns too;
            ``after``: from the one that has not seen them.
        level: what the decisions are: a kind of span, or ``response``.
        reward: the component it makes, one a decision.
        component: the return it learns from.
    """
    objective = objectives.OBJECTIVES["return_decomposition"](loss=loss, level=level, component=component)
    drawn = f"{level}:drawn"
    draws = drawn in objective.needs
    if min(epochs, sampled_steps) < 1:
        raise InputError(f"epochs={epochs}, sampled_steps={sampled_steps}: expected both at least 1.")
    if order not in ("before", "after"):
        raise unknown_name("order", order, ("before", "after"))
    sized = partial(ReturnDecoder, factors, hidden, layers, level)
    sized()

    def make(policy: Any, settings: UpdateSettings) -> Learner:
        model = sized(device=policy.device, seed=derive(settings.seed, "return_decoder"))
        own = replace(settings.at(learning_rate), epochs=epochs)
        return ReturnDecoderLearner(model, objective, own, order, reward, sampled_steps if draws else None)

    makes = (f"reward/{reward}", f"{level}:reward/{reward}", *((drawn,) if draws else ()))
    return LearnerFactory("return_decoder", objective, makes, make, needs=(f"{level}:latent",))


def utterance_reward_model(
    dimensions: Sequence[str] = DIMENSIONS,
    method: str = "direct",
    scale: str = "default",
    weights: Sequence[float] | Mapping[str, float] | None = None,
    output_scale: float = 10.0,
    discount: float = 0.9,
    learning_rate: float = 1e-4,
) -> LearnerFactory:
    """Sotopia-RL's reward model: from what came before an utterance and its words to what a judge attributed to it.

    Makes ``reward/utterance_rm`` of decisions, the score after their last token, from the model as it was before this
    batch's update. The paper fits it first and then compares utterances by it: a run does so with credit
    ``apportion.credit.step_returns:step_relative(component='utterance_rm', gamma=0.0, norm_by_std=True)``.

    Args:
        dimensions: rewards of episodes; these and what the method reads are needed as for credit ``sotopia_rl``.
        method: how a score is shared out, see there, as all below.
        scale: of the judge.
        weights: by dimension.
        output_scale: of the targets.
        discount: of ``discounted``.
        learning_rate: of the reward model.
    """
    labels = utterance_rewards(dimensions, method, scale, weights, output_scale, discount)
    objective, name = score_regression(), "utterance_rm"

    def make(policy: Any, settings: UpdateSettings) -> Learner:
        model = reward_model_for(policy)
        return UtteranceRewardLearner(model, objective, settings.at(learning_rate), labels, name)

    makes = [f"{level}:{column}" for level in ("turn", "response") for column in (f"reward/{name}", "target/utterance")]
    return LearnerFactory(name, objective, (f"reward/{name}", *objective.needs, *makes), make, needs=labels.needs)


LEARNERS: dict[str, Callable[..., LearnerFactory]] = {
    "critic": critic,
    "implicit_prm": implicit_prm,
    "return_decoder": return_decoder,
    "pretrained_value": pretrained_value,
    "reward_model": reward_model,
    "utterance_reward_model": utterance_reward_model,
}
