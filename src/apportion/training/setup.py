"""From settings to the parts of a run, with everything that can be wrong found before the first step."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from apportion import credit, objectives
from apportion.credit import Stage
from apportion.curricula.shuffled import Shuffled
from apportion.errors import InputError, MissingColumn
from apportion.models import build_policy
from apportion.models.codec import Codec
from apportion.models.policy import Policy
from apportion.objectives import Objective
from apportion.rewards import build_verifier
from apportion.rewards.verdict import Verifier
from apportion.rollouts.columns import qualify, split_name
from apportion.rollouts.model import maker_of
from apportion.sampling import Engine, SamplingSettings, engine_for
from apportion.tasks import build_tasks, parts_of
from apportion.tasks.task import Task
from apportion.training.annotate import sources_in
from apportion.training.config import TrainConfig
from apportion.training.learner import Learner
from apportion.training.seeds import derive

MADE_BY_SAMPLING = ("reward/outcome", "token:log_probs/behaviour", "response:temperature", "response:truncated")


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything a run is made of."""

    config: TrainConfig
    policy: Policy
    codec: Codec
    engine: Engine
    sampling: SamplingSettings
    curriculum: Shuffled
    held_out: tuple[Task, ...]
    verifiers: Mapping[str, Verifier]
    method: Stage
    learner: Learner
    wanted: Mapping[str, list[str]]


def set_up(config: TrainConfig) -> Parts:
    """Build every part of a run.

    Raises:
        InputError: a setting names something unknown, or parts that do not fit together.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    method = credit.build(config.credit)
    objective = objectives.build(*config.objective)
    wanted = _wanted(config, method, objective)
    _refuse_groups_of_one(config, method)

    source = build_tasks(config.tasks[0] if len(config.tasks) == 1 else config.tasks, seed=config.seed)
    parts = parts_of(source)
    verifiers = {part.name: build_verifier(config.verifier or part.verifier) for part in parts}

    device = _device(config.device)
    policy = build_policy(
        config.model, device=device, dtype=config.dtype, autocast=config.autocast, seed=derive(config.seed, "weights")
    )
    if config.lora_rank:
        policy = _with_lora(policy, config)
    codec = policy.codec(config.instruction, config.chat)
    return Parts(
        config,
        policy,
        codec,
        engine_for(policy, config.sampling_dtype),
        SamplingSettings(config.max_new_tokens, config.temperature, config.top_k, config.top_p, codec.end_ids),
        Shuffled(parts, derive(config.seed, "curriculum")),
        source.held_out[: config.eval_prompts],
        verifiers,
        method,
        Learner(policy, objective, config),
        wanted,
    )


def seed_everything(seed: int) -> None:
    """Seed the global generators, for code of others that draws from them; ours derives its own."""
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy") % 2**32)
    torch.manual_seed(derive(seed, "torch"))


def _wanted(config: TrainConfig, method: Stage, objective: Objective) -> dict[str, list[str]]:
    """Statistics to measure on every batch, by the policy that makes them; refuses what nobody here makes."""
    needs = (*method.needs, *objective.needs, "log_probs/old", *(f"{name}/old" for name in config.record))
    wanted = sources_in(needs)
    made = {f"token:{name}/{source}" for source, names in wanted.items() for name in names} | set(MADE_BY_SAMPLING)
    for reader, names in (("credit", method.needs), ("objective", objective.needs)):
        for name in names:
            full = name if name.startswith("reward/") else qualify(name)
            if full not in made and not split_name(full)[1].startswith("credit/"):
                what = config.credit if reader == "credit" else " + ".join(config.objective)
                raise MissingColumn(name, f"{reader} {what!r}", f"this recipe does not make it; {maker_of(name)}")
    return wanted


def _refuse_groups_of_one(config: TrainConfig, method: Stage) -> None:
    if config.group_size == 1 and method.compares_groups:
        raise InputError(
            f"group_size is 1, but credit {config.credit!r} compares the responses of a group: set group_size to at "
            "least 2, or choose a method without a group baseline."
        )


def _device(name: str) -> str:
    if name != "auto":
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"device is {name!r}, but torch sees no CUDA device here: use --device cpu.")
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "cpu"


def _with_lora(policy: Any, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    from apportion.models.huggingface import HuggingFacePolicy

    if not isinstance(policy, HuggingFacePolicy):
        raise InputError(f"lora_rank is {config.lora_rank}, but model {config.model!r} is not a Hugging Face model.")
    named = config.lora_targets.split(",")
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules=named[0] if len(named) == 1 else named,
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(policy.model, adapters)
    except ValueError as error:
        raise InputError(f"lora_targets is {config.lora_targets!r}: {str(error).splitlines()[0]}") from None
    return HuggingFacePolicy(model, policy.tokenizer, policy.autocast)
