"""The episode sampler: a policy acts in worlds, all of them one turn at a time.

One call of the policy is one response; an episode is the ordered responses of one attempt. A turn's prompt is what the
environment says then, so nothing is re-tokenised and prompts may change from turn to turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from apportion.environments import Environment, Observation, Outcome, World
from apportion.models.codec import Codec
from apportion.rollouts import Rollouts, ragged
from apportion.sampling.engine import Engine, SamplingSettings
from apportion.tasks.task import Task


@dataclass
class _Turn:
    prompt: list[int]
    ids: Tensor
    log_probs: Tensor
    cut: bool
    text: str
    observation: Observation
    outcome: Outcome
    statistics: Mapping[str, Tensor]


@dataclass
class _Attempt:
    task: Task
    group: int
    world: World
    observation: Observation
    turns: list[_Turn] = field(default_factory=list)

    @property
    def going(self) -> bool:
        return not self.turns or self.turns[-1].outcome.observation is not None


def sample_episodes(
    engine: Engine,
    codec: Codec,
    environment: Environment,
    tasks: Sequence[Task],
    group_size: int,
    settings: SamplingSettings,
    generator: torch.Generator,
    first_group: int = 0,
    policy_version: int = 0,
) -> Rollouts:
    """``group_size`` attempts at every task; the attempts at one task are a group.

    Returns:
        rollouts of one response a turn with, beside what the group sampler records, the response columns
        ``reward/step`` (unknown where the environment could not decide), ``state_key``, ``valid`` and
        ``terminated``; ``truncated`` is of the episode or of the response by its length; and the episode column
        ``reward/outcome``, the sum of the step rewards.
    """
    attempts = []
    for number, task in enumerate(tasks):
        for _ in range(group_size):
            world = environment.world(task)
            attempts.append(_Attempt(task, first_group + number, world, world.begin()))
    while going := [attempt for attempt in attempts if attempt.going]:
        _take_turns(engine, codec, going, settings, generator)
    return _rollouts(attempts, settings, policy_version)


def _take_turns(
    engine: Engine, codec: Codec, going: Sequence[_Attempt], settings: SamplingSettings, generator: torch.Generator
) -> None:
    prompts = [codec.encode(replace(attempt.task, prompt=attempt.observation.prompt)) for attempt in going]
    drawn = engine.generate(prompts, 1, settings, generator)
    for row, (attempt, prompt) in enumerate(zip(going, prompts, strict=True)):
        start, end = drawn.offsets[row : row + 2].tolist()
        ids = drawn.ids[start:end]
        text = codec.decode(ids.tolist())
        outcome = attempt.world.act(text)
        attempt.turns.append(
            _Turn(
                prompt,
                ids,
                drawn.log_probs[start:end],
                bool(drawn.truncated[row]),
                text,
                attempt.observation,
                outcome,
                {name: values[start:end] for name, values in drawn.statistics.items()},
            )
        )
        if outcome.observation is not None:
            attempt.observation = outcome.observation


def _rollouts(attempts: Sequence[_Attempt], settings: SamplingSettings, policy_version: int) -> Rollouts:
    turns = [turn for attempt in attempts for turn in attempt.turns]
    ids = torch.cat([turn.ids for turn in turns])
    device = ids.device
    prompt_ids, prompt_offsets = ragged.flatten([turn.prompt for turn in turns], torch.int64)
    of_turn = [attempt for attempt in attempts for _ in attempt.turns]

    def flags(values: Sequence[bool]) -> Tensor:
        return torch.tensor(values, dtype=torch.bool, device=device)

    rollouts = Rollouts(
        ids=ids,
        token_offsets=ragged.offsets_of(torch.tensor([len(turn.ids) for turn in turns], device=device)),
        response_offsets=ragged.offsets_of(torch.tensor([len(a.turns) for a in attempts], device=device)),
        group_ids=torch.tensor([attempt.group for attempt in attempts], device=device),
        prompt_ids=prompt_ids.to(device),
        prompt_offsets=prompt_offsets.to(device),
        prompts=torch.arange(len(turns), device=device),
    )
    last = [i == len(a.turns) - 1 for a in attempts for i in range(len(a.turns))]
    ends = [turn.outcome.observation is None for turn in turns]
    limits = [turn.outcome.truncated for turn in turns]
    temperature = torch.full((len(turns),), settings.temperature or 1.0, device=device)
    version = torch.full((len(turns),), policy_version, device=device)
    rollouts = (
        rollouts.with_statistic("log_probs/behaviour", torch.cat([turn.log_probs for turn in turns]), "sampling")
        .with_column("response:temperature", temperature, maker="sampling")
        .with_column("response:policy_version", version, maker="sampling")
        .with_column("response:cut", flags([turn.cut for turn in turns]), maker="sampling")
        .with_column(
            "response:truncated", flags([a and b for a, b in zip(last, limits, strict=True)]), maker="environment"
        )
        .with_column(
            "response:terminated",
            flags([e and not limit for e, limit in zip(ends, limits, strict=True)]),
            maker="environment",
        )
        .with_column("response:valid", flags([turn.outcome.valid for turn in turns]), maker="environment")
        .with_column("response:state_key", [turn.observation.state_key for turn in turns], maker="environment")
        .with_column("response:text", [turn.text for turn in turns], maker="sampling")
        .with_column("response:prompt_text", [turn.observation.prompt for turn in turns], maker="environment")
        .with_column("response:task_source", [a.task.source for a in of_turn], maker="tasks")
    )
    for name in turns[0].statistics:
        values = torch.cat([turn.statistics[name] for turn in turns])
        rollouts = rollouts.with_statistic(f"{name}/behaviour", values, "sampling")
    return _with_rewards(rollouts, [turn.outcome.reward for turn in turns])


def _with_rewards(rollouts: Rollouts, rewards: Sequence[float | None]) -> Rollouts:
    values = torch.tensor([reward or 0.0 for reward in rewards], dtype=torch.float64, device=rollouts.device)
    scored = torch.tensor([reward is not None for reward in rewards], device=rollouts.device)
    total = ragged.sum_rows(values, rollouts.response_offsets)
    known = ragged.sum_rows((~scored).long(), rollouts.response_offsets) == 0
    reasons = ["" if k else "a turn's reward is unknown" for k in known.tolist()]
    return (
        rollouts.with_reward("step", values, scored, level="response", maker="environment")
        .with_reward("outcome", total, known, maker="environment")
        .with_column("episode:reason", reasons, maker="environment")
    )
