"""One learner on a table, through the trainer's own parts, and the exact values of what it learns.

    policy = TabularPolicy(vocabulary=3, depth=2)
    trained = Trained(policy, "rloo", learning_rate=1.0)
    for step in range(20):
        rollouts = rewarded(sample(policy, [0], 8, generator), lambda prompt, tokens: float(tokens == (1, 1)))
        trained.step(rollouts)
    expected(policy, every_response(policy, reward))

Suffix legend: N tokens, E episodes, S states, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from apportion import credit, objectives, registry
from apportion.credit import Clock, Credit, Stage
from apportion.credit.baselines import none
from apportion.errors import InputError
from apportion.models.statistics import id_columns
from apportion.models.tabular import TabularPolicy
from apportion.models.value_heads import heads_in
from apportion.objectives import Objective
from apportion.rollouts import Rollouts, ragged
from apportion.sampling import SamplingSettings, engine_for, sample_groups
from apportion.training.annotate import annotate, sources_in
from apportion.training.config import TrainConfig
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.learners import LEARNERS

Reward = Callable[[int, tuple[int, ...]], float]
"""``(prompt, tokens of the response) -> reward``."""

MAX_RESPONSES = 1_000_000
"""As many responses are enumerated at most."""


def sample(
    policy: TabularPolicy,
    prompts: Sequence[int],
    group_size: int,
    generator: torch.Generator,
    max_new_tokens: int | None = None,
    record: Sequence[str] = (),
) -> Rollouts:
    """Draw responses from a table as a run draws them.

    Args:
        policy: what to sample from, at temperature 1.
        prompts: numbers below ``policy.prompts``; every entry is a group, the same number twice makes two.
        group_size: responses a group.
        generator: source of randomness.
        max_new_tokens: longest response; None: as long as the table is deep.
        record: statistics to keep of the distributions drawn from, such as ``entropy``.

    Returns:
        rollouts with ``log_probs/behaviour`` and without rewards.

    Raises:
        InputError: a prompt the table does not have.
    """
    for prompt in prompts:
        if not 0 <= prompt < policy.prompts:
            raise InputError(f"the prompt is {prompt}, expected a number from 0 to {policy.prompts - 1}.")
    settings = SamplingSettings(max_new_tokens or policy.depth, end_ids=policy.end_ids, record=tuple(record))
    return sample_groups(engine_for(policy), [[prompt] for prompt in prompts], group_size, settings, generator)


def rewarded(rollouts: Rollouts, reward: Reward, component: str = "outcome") -> Rollouts:
    """Rollouts with a reward an episode; episodes are of one response.

    Example:
        >>> pair = Rollouts.from_lists([[1], [0]], groups=[0, 0], prompts=[[0], [0]])
        >>> rewarded(pair, lambda prompt, tokens: 10.0 * tokens[0]).column("episode:reward/outcome").tolist()
        [10.0, 0.0]
    """
    prompts = rollouts.prompt_ids[rollouts.prompt_offsets[:-1]][rollouts.prompts].tolist()
    rows = ragged.unflatten(rollouts.ids, rollouts.token_offsets)
    values = [reward(prompt, tuple(row)) for prompt, row in zip(prompts, rows, strict=True)]
    return rollouts.with_reward(component, torch.tensor(values, dtype=torch.float64))


class Trained:
    """A table that learns by a credit method and an objective, through the parts a run is made of.

    A step is the trainer's own: statistics of the table as it is, further learners' columns, credit with its state and
    clock, updates. What the trainer would have to be told and a claim leaves alone is off: gradients are not cut to a
    length, learning rates stay constant.

    Args:
        policy: what learns, in place.
        method: a credit method or its spec.
        objective: an objective or its spec, or several specs to be summed.
        learning_rate: of the policy.
        optimizer: ``sgd`` or ``adamw``.
        epochs: passes over every batch.
        minibatches: optimiser steps a pass; a batch is cut by whole groups.
        seed: of the cut.
        total_steps: for methods that anneal.
        learners: specs of models trained beside the policy, such as ``critic``.

    Attributes:
        clock: of the next step.
        metrics: of the last step, by name.

    Raises:
        InputError: a spec or a setting that cannot be used.

    Example:
        >>> policy = TabularPolicy(vocabulary=2, depth=1)
        >>> rollouts = sample(policy, [0], 8, torch.Generator().manual_seed(1))
        >>> trained = Trained(policy, "rloo", "reinforce", learning_rate=1.0)
        >>> given = trained.step(rewarded(rollouts, lambda prompt, tokens: float(tokens[0])))
        >>> bool(policy.logits[0, 1] > policy.logits[0, 0])
        True
    """

    def __init__(
        self,
        policy: TabularPolicy,
        method: str | Stage,
        objective: str | Sequence[str] | Objective = "clip",
        *,
        learning_rate: float,
        optimizer: str = "sgd",
        epochs: int = 1,
        minibatches: int = 1,
        seed: int = 0,
        total_steps: int = 1000,
        learners: Sequence[str] = (),
    ) -> None:
        config = TrainConfig(
            optimizer=optimizer,
            learning_rate=learning_rate,
            epochs=epochs,
            minibatches=minibatches,
            max_grad_norm=0.0,
            micro_batch_tokens=1 << 20,
            seed=seed,
        )
        settings = UpdateSettings.of(config)
        self.policy, self.clock = policy, Clock(0, total_steps)
        self.method = credit.build(method) if isinstance(method, str) else method
        if not isinstance(objective, Objective):
            objective = objectives.build(*([objective] if isinstance(objective, str) else objective))
        for head in heads_in(objective.now):
            policy.add_value_head(head)
        self.learner = Learner("policy", policy, objective, settings)
        factories = [registry.build(spec, LEARNERS, "learner") for spec in learners]
        self.others = [factory.make(policy, settings) for factory in factories]
        needs = [name for factory in factories for name in factory.needs]
        read = [_reads(learner.objective) for learner in (self.learner, *self.others)]
        self._needs = [*self.method.needs, *needs, *itertools.chain(*read), "log_probs/old"]
        self.reference = policy.frozen_copy()
        self.metrics: Mapping[str, float] = {}
        self._state: object = None

    def step(self, rollouts: Rollouts) -> Credit:
        """Assign credit to a batch and train on it.

        Args:
            rollouts: with the rewards and columns the method reads; statistics ``<name>/old`` and ``<name>/reference``
                that they do not bring are measured.
        """
        rollouts = self.measured(rollouts)
        metrics: dict[str, float] = {}
        for learner in self.others:
            if learner.order == "before":
                metrics |= _named(learner, learner.update(none()(rollouts), self.clock))
            rollouts = learner.annotate(rollouts)
        given: Credit = self.method(rollouts, self._state, self.clock, unscored="drop")
        self._state = given.state
        metrics |= self.learner.update(given, self.clock)
        for learner in self.others:
            if learner.order == "after":
                metrics |= _named(learner, learner.update(given, self.clock))
        self.clock, self.metrics = Clock(self.clock.step + 1, self.clock.total_steps), metrics
        return given

    def measured(self, rollouts: Rollouts) -> Rollouts:
        """The rollouts with the statistics of policy and reference that credit and objectives read."""
        asked = sources_in([name for name in self._needs if not rollouts.has(name)])
        wanted = {source: [n for n in names if n in self.policy.provides] for source, names in asked.items()}
        models = {"old": self.policy, "reference": self.reference}
        return annotate(rollouts, models, wanted, self.learner.settings.micro_batch_tokens)


def update(
    policy: TabularPolicy, method: str | Stage, rollouts: Rollouts, objective: str | Objective = "reinforce"
) -> Tensor:
    """What a step of gradient descent at rate 1 would add to the logits ``[S, V]``; the policy stays as it is.

    Args:
        policy: of which the rollouts were drawn.
        method: a credit method or its spec.
        rollouts: with rewards.
        objective: an objective or its spec.
    """
    twin = policy.clone()
    Trained(twin, method, objective, learning_rate=1.0).step(rollouts)
    before, after = policy.logits.detach(), twin.logits.detach()
    return torch.where(before.isfinite(), after - before, 0.0)  # tokens that cannot be drawn stay so


def _reads(objective: Objective) -> list[str]:
    return [*objective.needs, *id_columns([*objective.now, *objective.watches])]


def _named(learner: Learner, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{learner.name}/{name}": value for name, value in metrics.items()}


def every_response(
    policy: TabularPolicy, reward: Reward, max_new_tokens: int | None = None, component: str = "outcome"
) -> Rollouts:
    """Every response to every prompt of a table, each once, a group a prompt.

    Args:
        policy: how many prompts and tokens there are, and which end a response.
        reward: of every response.
        max_new_tokens: longest response; None: as long as the table is deep.
        component: name of the reward.

    Raises:
        InputError: more than a million responses.
    """
    length = max_new_tokens or policy.depth
    if policy.prompts * policy.vocabulary**length > MAX_RESPONSES:
        raise InputError(
            f"{policy.prompts} prompts have {policy.vocabulary}^{length} responses each, expected at most "
            f"{MAX_RESPONSES} in all: take a smaller table."
        )
    rows = list(_responses(policy, length, ()))
    prompts = [prompt for prompt in range(policy.prompts) for _ in rows]
    ids, offsets = ragged.flatten(rows * policy.prompts, torch.int64)
    rollouts = Rollouts(
        ids=ids,
        token_offsets=offsets,
        response_offsets=torch.arange(len(prompts) + 1),
        group_ids=torch.tensor(prompts),
        prompt_ids=torch.arange(policy.prompts),
        prompt_offsets=torch.arange(policy.prompts + 1),
        prompts=torch.tensor(prompts),
    )
    return rewarded(rollouts, reward, component)


def _responses(policy: TabularPolicy, length: int, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for token in range(policy.vocabulary):
        row = (*prefix, token)
        if len(row) == length or token in policy.end_ids:
            yield row
        else:
            yield from _responses(policy, length, row)


def probabilities(policy: TabularPolicy, responses: Rollouts) -> Tensor:
    """How likely a table is to give each response to its prompt ``[E]``.

    Args:
        policy: the table.
        responses: episodes of one response, all of whose tokens are the policy's, such as :func:`every_response`.

    Raises:
        InputError: some tokens are not the policy's.
    """
    _refuse_others_tokens(responses)
    log_probs = policy.statistics(responses, _all_of(responses), ["log_probs"])["log_probs"]
    return ragged.sum_rows(log_probs, responses.episode_offsets).exp()


def expected(policy: TabularPolicy, responses: Rollouts, component: str = "outcome") -> float:
    """Exact expected reward of a table, prompts equally likely.

        J = 1/P sum_p sum_y pi(y | p) R(p, y)

    Args:
        policy: the table.
        responses: all there are, with their rewards: :func:`every_response`, or the leaves of a calibration world.
        component: which reward.

    Raises:
        InputError: some tokens are not the policy's, or probabilities do not sum to the number of prompts, so that
            responses are missing.

    Example:
        >>> policy = TabularPolicy(vocabulary=2, depth=2)
        >>> expected(policy, every_response(policy, lambda prompt, tokens: float(tokens == (1, 1))))
        0.25
    """
    likely = probabilities(policy, responses)
    prompts, total = len(torch.unique(responses.prompts)), float(likely.sum())
    if abs(total - prompts) > 1e-6:
        raise InputError(
            f"the responses have probability {total:.6f} in all, expected 1 for each of {prompts} prompts: give every "
            "response once."
        )
    return float((likely * _rewards(responses, component)).sum() / prompts)


def gradient(policy: TabularPolicy, responses: Rollouts, component: str = "outcome") -> Tensor:
    """The exact gradient of :func:`expected` by the logits ``[S, V]``; arguments are the same."""
    _refuse_others_tokens(responses)
    rewards, prompts = _rewards(responses, component), len(torch.unique(responses.prompts))

    def reward(now: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        likely = ragged.sum_rows(now["log_probs"], responses.episode_offsets).exp()
        return (likely * rewards).sum() / prompts

    twin = policy.clone()
    twin.accumulate(responses, _all_of(responses), ["log_probs"], reward)
    assert twin.logits.grad is not None  # every response has a token
    return twin.logits.grad


def _refuse_others_tokens(responses: Rollouts) -> None:
    if not bool(responses.trained.all()):
        raise InputError("some tokens are not the policy's, so it has no probability of the response: leave them out.")


def _all_of(responses: Rollouts) -> Tensor:
    return torch.arange(responses.n_responses)


def _rewards(responses: Rollouts, component: str) -> Tensor:
    """Of every episode ``[E]``."""
    rewards = responses.column(f"reward/{component}", reader="the expected reward").double()
    return rewards if len(rewards) == responses.n_episodes else ragged.sum_rows(rewards, responses.episode_offsets)
