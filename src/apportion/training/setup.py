"""From settings to the parts of a run, with everything that can be wrong found before the first step."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion import credit, objectives, registry
from apportion.annotations import ANNOTATORS, Annotator
from apportion.credit import Stage
from apportion.curricula.shuffled import Shuffled
from apportion.environments import ENVIRONMENTS
from apportion.errors import InputError, MissingColumn
from apportion.models import build_policy
from apportion.models.codec import Codec
from apportion.models.huggingface import HuggingFacePolicy
from apportion.models.measuring import measure, micro_batches
from apportion.models.packing.forward import Unsupported
from apportion.models.policy import Policy
from apportion.models.statistics import id_columns
from apportion.models.value_heads import HasValueHeads, heads_in
from apportion.objectives import Objective
from apportion.rewards import build_verifier
from apportion.rewards.branching import Measure
from apportion.rewards.collect import AnswerCollector, Collector, EpisodeCollector, TakesMoreRoom
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import qualify
from apportion.rollouts.makers import maker_of
from apportion.sampling import SamplingSettings, engine_for
from apportion.sampling.counting import CountingEngine, counting
from apportion.tasks import build_tasks, parts_of
from apportion.tasks.task import Task
from apportion.training.annotate import sources_in
from apportion.training.checks import check_device, check_placed, check_prompts, check_store
from apportion.training.config import TrainConfig
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.learners import LEARNERS, LearnerFactory
from apportion.training.recording import recording
from apportion.training.searched import Forgets, MakesColumns
from apportion.training.seeds import derive
from apportion.training.stored import StoredRollouts
from apportion.training.strategies import SAMPLING, Source
from apportion.training.warm_start import WARM_STARTS

MADE_BY_SAMPLING = (
    "reward/outcome",
    "episode:reward/outcome",
    "token:log_probs/behaviour",
    "response:temperature",
    "response:truncated",
    "response:text",
)
MADE_BY_ENVIRONMENTS = (
    "reward/step",
    "response:reward/step",
    "steps:state_key",
    "response:state_key",
    "response:valid",
)


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything a run is made of.

    Attributes:
        config: the settings.
        policy: what is trained.
        codec: how it reads and writes.
        engine: draws responses and counts their tokens.
        collect: samples flat groups and scores them, for evaluations.
        draw: samples and scores what is trained on.
        sampling: how to draw.
        curriculum: which tasks next.
        held_out: tasks to evaluate on.
        stored: rollouts from a file, or None.
        annotators: makers of columns.
        method: who earned the reward.
        learner: the policy with its objective and optimiser.
        others: makers of the models trained beside it.
        wanted: statistics to measure on every batch, by the policy that makes them.
        unshared: why prefixes that responses share are computed for each of them, if they are.
    """

    config: TrainConfig
    policy: Policy
    codec: Codec
    engine: CountingEngine
    collect: Collector
    draw: Collector
    sampling: SamplingSettings
    curriculum: Shuffled
    held_out: tuple[Task, ...]
    stored: StoredRollouts | None
    annotators: tuple[Annotator, ...]
    method: Stage
    learner: Learner
    others: tuple[LearnerFactory, ...]
    wanted: dict[str, list[str]]
    unshared: str | None


def set_up(config: TrainConfig, begun: bool = False) -> Parts:
    """Build every part of a run.

    Args:
        config: the settings.
        begun: the run has a checkpoint of its own, so that what it began with is read no more and may be gone.

    Raises:
        InputError: a setting names something unknown, or parts that do not fit together.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    check_store()
    recorded = recording(config.record)
    strategy = registry.build(config.sampling, SAMPLING, "sampling strategy")
    if recorded.sampled and (isinstance(strategy, Forgets) or not config.prompts_per_step):
        who = f"sampling {config.sampling!r} keeps" if config.prompts_per_step else "a run that samples nothing has"
        raise InputError(
            f"record names {', '.join(recorded.sampled)}, but {who} no probabilities of other tokens: leave it out."
        )
    if config.warm_start is not None and not begun:
        registry.build(config.warm_start, WARM_STARTS, "warm start")
    method = credit.build(config.credit)
    objective = objectives.build(*config.objective)
    _refuse_groups_of_one(config, method)
    _refuse_trees_without_branches(config, method)
    annotators = tuple(registry.build(spec, ANNOTATORS, "annotator") for spec in config.annotators)
    others = tuple(registry.build(spec, LEARNERS, "learner") for spec in config.learners)
    stored = None
    if config.rollouts is not None:
        stored = StoredRollouts(config.rollouts, config.rollouts_per_step, derive(config.seed, "stored"))

    if config.environment is not None and config.sampling != TrainConfig.sampling:
        raise InputError(
            f"sampling is {config.sampling!r} and environment {config.environment!r}, but an environment's episodes "
            "are drawn in groups only: leave one of them out."
        )
    environment = None
    if config.environment is not None:
        environment = registry.build(config.environment, ENVIRONMENTS, "environment")
        source = environment.source
    else:
        tasks_seed = config.seed if config.tasks_seed is None else config.tasks_seed
        source = build_tasks(config.tasks[0] if len(config.tasks) == 1 else config.tasks, seed=tasks_seed)
    tasks = parts_of(source)

    policy = make_policy(config, objective)
    unshared = _share_prefixes(policy, config.prefix_sharing)
    codec = policy.codec(config.instruction, config.chat)
    sampling = SamplingSettings(
        config.max_new_tokens, config.temperature, config.top_k, config.top_p, codec.end_ids, recorded.sampled
    )
    engine = counting(engine_for(policy, config.sampling_dtype))
    collect: Collector
    if environment is not None:
        draw = collect = EpisodeCollector(engine, codec, environment)
    else:
        verifiers = {part.name: build_verifier(config.verifier or part.verifier) for part in tasks}
        collect = AnswerCollector(engine, codec, verifiers)
        draw = strategy(Source(engine, codec, verifiers, _measure_by(policy, config.micro_batch_tokens)))
        context = getattr(policy, "context", None)
        check_prompts([*source.train, *source.held_out[: config.eval_prompts]], codec, context, config.max_new_tokens)
        if isinstance(draw, TakesMoreRoom):
            asked, longest = draw.longest(source.train, config.max_new_tokens)
            check_prompts(asked, codec, context, longest, "the longest response of this strategy,")

    settings = UpdateSettings.of(config)
    learner = Learner("policy", policy, objective, settings)
    made = [name for annotator in annotators for name in annotator.makes]
    made += [name for other in others for name in other.makes]
    made += strategy.makes if isinstance(strategy, MakesColumns) else ()
    made += MADE_BY_ENVIRONMENTS if environment is not None else ()
    made += stored.columns if stored is not None else ()
    return Parts(
        config,
        policy,
        codec,
        engine,
        collect,
        draw,
        sampling,
        Shuffled(tasks, derive(config.seed, "curriculum")),
        source.held_out[: config.eval_prompts],
        stored,
        annotators,
        method,
        learner,
        others,
        _wanted(config, method, objective, others, made, policy.provides),
        unshared,
    )


def make_policy(config: TrainConfig, objective: Objective) -> Any:
    """The policy as it is before any step: adapters and value heads included, weights of no checkpoint read yet.

    Raises:
        InputError: settings of the model that cannot be used, alone or with the objective.
    """
    policy: Any = build_policy(
        config.model,
        device=check_device(config.device),
        dtype=config.dtype,
        autocast=config.autocast,
        seed=derive(config.seed, "weights"),
    )
    check_placed(policy, config.device, config.model)
    if config.lora_rank:
        policy = _with_lora(policy, config)
    _add_value_heads(policy, objective, config)
    return policy


def _measure_by(policy: Any, max_tokens: int) -> Measure:
    """Statistics of a policy, of those it can give; with gradients nowhere."""

    def measured(rollouts: Rollouts, names: Sequence[str]) -> Mapping[str, Tensor]:
        given = [name for name in names if name in policy.provides]
        if not given:
            return {}
        return measure(policy, rollouts, given, micro_batches(rollouts, max_tokens, policy.prefix_sharing))

    return measured


def seed_everything(seed: int) -> None:
    """Seed the global generators, for code of others that draws from them; ours derives its own."""
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy") % 2**32)
    torch.manual_seed(derive(seed, "torch"))


def _wanted(
    config: TrainConfig,
    method: Stage,
    objective: Objective,
    others: Sequence[LearnerFactory],
    made_elsewhere: Sequence[str],
    provides: Sequence[str],
) -> dict[str, list[str]]:
    """Statistics to measure on every batch, by the policy that makes them.

    What annotators, learners or a file of stored rollouts make is not measured again.

    Raises:
        MissingColumn: something is read that nothing in this run makes.
    """
    readers = [(f"credit {config.credit!r}", method.needs)]
    readers.append((f"objective {' + '.join(config.objective)!r}", _read_by(objective)))
    readers += [(f"learner {other.name!r}", (*other.needs, *_read_by(other.objective))) for other in others]
    elsewhere = {name if name.startswith("reward/") else qualify(name) for name in made_elsewhere}
    needs = [name for _, names in readers for name in names if qualify(name) not in elsewhere]
    asked = sources_in([*needs, "log_probs/old", *(f"{name}/old" for name in recording(config.record).statistics)])
    wanted = {source: [name for name in names if name in provides] for source, names in asked.items()}
    made = elsewhere | {f"token:{name}/{source}" for source, names in wanted.items() for name in names}
    made |= set(MADE_BY_SAMPLING) | {qualify(name) for name in method.makes} | {"token:credit/advantages"}
    for reader, names in readers:
        for name in names:
            full = name if name.startswith("reward/") else qualify(name)
            if full not in made:
                raise MissingColumn(name, reader, f"this recipe does not make it; {maker_of(name)}")
    return wanted


def _read_by(objective: Objective) -> tuple[str, ...]:
    """Columns that an objective or a statistic it asks for reads."""
    return (*objective.needs, *id_columns([*objective.now, *objective.watches]))


def _add_value_heads(policy: Any, objective: Objective, config: TrainConfig) -> None:
    heads = heads_in(objective.now)
    if heads and not isinstance(policy, HasValueHeads):
        raise InputError(
            f"objective {' + '.join(config.objective)!r} trains a value head on the policy, and model {config.model!r} "
            "has no add_value_head: choose another model."
        )
    for head in heads:
        policy.add_value_head(head)


def _refuse_trees_without_branches(config: TrainConfig, method: Stage) -> None:
    if method.compares_branches and config.prompts_per_step and config.sampling == TrainConfig.sampling:
        raise InputError(
            f"credit {config.credit!r} compares branches, and sampling {config.sampling!r} draws none, so that it "
            "would be leave-one-out: add --sampling branching, or choose rloo."
        )


def _refuse_groups_of_one(config: TrainConfig, method: Stage) -> None:
    if config.group_size == 1 and method.compares_groups and config.prompts_per_step:
        raise InputError(
            f"group_size is 1, but credit {config.credit!r} compares the responses of a group: set group_size to at "
            "least 2, or choose a method without a group baseline."
        )


def _share_prefixes(policy: Any, wanted: bool | None) -> str | None:
    """Let a policy share prefixes if it can; why not, if it does not."""
    if not isinstance(policy, HuggingFacePolicy):
        if wanted:
            raise InputError(
                f"prefix_sharing is True, but a {type(policy).__name__} has no prefixes to share: leave it out."
            )
        return None
    if wanted is False:
        return "as asked"
    try:
        policy.share_prefixes()
    except Unsupported as error:
        if wanted:
            raise
        return error.why
    return None


def _with_lora(policy: Any, config: TrainConfig) -> HuggingFacePolicy:
    from peft import LoraConfig, get_peft_model

    if not isinstance(policy, HuggingFacePolicy):
        raise InputError(f"lora_rank is {config.lora_rank}, but model {config.model!r} is not a Hugging Face model.")
    named = config.lora_targets.split(",")
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear" if named == ["all-linear"] else named,
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(policy.model, adapters)
    except ValueError as error:
        raise InputError(f"lora_targets is {config.lora_targets!r}: {str(error).splitlines()[0]}") from None
    return HuggingFacePolicy(model, policy.tokenizer, policy.autocast)
