"""Everything a training run can be told, in one flat record."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apportion.errors import InputError, unknown_name


def needs_setting(other: str) -> Any:
    """Mark a setting that is read only when another is set; giving it alone is an error."""
    return {"only_with": other}


def of_optimizer(optimizer: str) -> Any:
    """Mark a setting that one optimizer alone reads; giving it with another is an error."""
    return {"only_for": optimizer}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. Recipes return one; the command line overrides fields."""

    # What is trained on what
    model: str = "digits"
    """A folder with a Hugging Face model, a hub name, a registered model, or package.module:name."""
    tasks: tuple[str, ...] = ("running_sum",)
    """Task sources: a registered name, a reasoning-gym data set, a file (.jsonl, .parquet, .csv), or
    package.module:name; several are mixed, each optionally with a weight in front as in 0.7*chain_sum."""
    tasks_seed: int | None = None
    """Chooses the tasks and divides them into train and held-out; None: seed."""
    verifier: str | None = None
    """What checks answers; None: each task source's own."""
    environment: str | None = None
    """Act in an environment over several turns; it brings its own tasks and rewards."""
    rollouts: str | None = None
    """File of stored rollouts to train on too, or alone with prompts_per_step 0."""
    rollouts_per_step: int = field(default=4, metadata=needs_setting("rollouts"))
    """Groups taken from that file every step."""
    annotators: tuple[str, ...] = ()
    """Makers of further columns, such as partial_sums."""
    instruction: str = "{prompt}"
    """Text around every prompt; {prompt} stands for the prompt."""
    chat: bool | None = None
    """Render prompts by the model's chat template; None: if it has one."""

    # Credit and objective
    credit: str = "grpo"
    """Credit method: a name, a name with arguments such as tempo(norm_by_std=False), or package.module:name."""
    objective: tuple[str, ...] = ("clip(low=0.2, high=0.28)",)
    """Objectives, summed."""
    learners: tuple[str, ...] = ()
    """Models trained beside the policy, such as critic or implicit_prm."""
    max_unscored: float = 0.2
    """Stop when more than this share of a batch has no verdict."""

    # Sampling
    sampling: str = "groups"
    """How responses are drawn: groups, branching, cure, ghpo, search, each with arguments, or package.module:name."""
    prompts_per_step: int = 4
    """Prompts a step."""
    group_size: int = 16
    """Responses a prompt."""
    resample: int = field(default=0, metadata=needs_setting("prompts_per_step"))
    """Sample at most so many further times, in place of groups whose rewards are all equal; 0: never."""
    max_new_tokens: int = 64
    """Longest response, in tokens."""
    temperature: float = 1.0
    """Sampling temperature."""
    top_k: int = 0
    """Draw among the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens holding this probability."""

    # Updates
    steps: int = 60
    """Batches sampled and trained on."""
    token_budget: int = 0
    """Stop after the step that brings the sampled tokens to this number, at the latest after steps; 0: after steps."""
    epochs: int = 1
    """Passes over every batch."""
    minibatches: int = 1
    """Optimiser steps a pass; the batch is cut by whole groups."""
    micro_batch_tokens: int = 16384
    """Tokens in one forward pass, padding included; does not change the result."""
    prefix_sharing: bool | None = None
    """Compute prefixes that responses share once; does not change the result. None: where the model allows it."""
    optimizer: str = "adamw"
    """What steps down the gradient: adamw, or sgd, which keeps the gradient's length and has no moments."""
    learning_rate: float = 3e-4
    """Peak learning rate."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    decay: str = "constant"
    """What follows the rise: constant, or linear to 0 at the last step."""
    beta1: float = field(default=0.9, metadata=of_optimizer("adamw"))
    """AdamW: decay of the first moment."""
    beta2: float = field(default=0.99, metadata=of_optimizer("adamw"))
    """AdamW: decay of the second moment."""
    weight_decay: float = 0.0
    """Weight decay, decoupled from the gradient."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0: never."""
    lora_rank: int = 0
    """Rank of LoRA adapters; 0: train all weights."""
    lora_alpha: float = field(default=32.0, metadata=needs_setting("lora_rank"))
    """Scale of LoRA adapters."""
    lora_targets: str = field(default="all-linear", metadata=needs_setting("lora_rank"))
    """Modules with LoRA adapters."""
    warm_start: str | None = None
    """What to do to the model before reinforcement learning."""

    # Numbers and machines
    device: str = "auto"
    """cpu, cuda, cuda:1 and so on, or auto: cuda where there is one."""
    dtype: str = "float32"
    """Dtype of the trained weights."""
    autocast: str | None = None
    """Dtype of the training forward pass where it is narrower, such as bfloat16."""
    sampling_dtype: str | None = None
    """Dtype of the copy that samples; None: sample from the trained weights."""
    mismatch_tolerance: float = 0.01
    """Largest mean difference between the sampler's and the trainer's log-probs; a run above it stops."""
    threads: int = 0
    """Torch threads; 0: torch's own choice."""
    seed: int = 0
    """Everything random follows from it."""

    # Watching
    eval_prompts: int = 512
    """Held-out prompts of the evaluations before and after; 0: none."""
    eval_samples: int = 1
    """Samples a held-out prompt."""
    eval_every: int = 0
    """Evaluate every so many steps too; 0: only before and after."""
    record: tuple[str, ...] = ("entropy",)
    """Statistics of the policy to store beside the log-probs; top5, the five likeliest tokens where each was sampled
    (or another number); after, the log-probs after the update. Commas join them."""
    save_every: int = 20
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints kept beside the first."""
    trackers: tuple[str, ...] = ()
    """Also log metrics to: trackio, wandb, tensorboard."""

    def __post_init__(self) -> None:
        for name in (
            "group_size",
            "epochs",
            "minibatches",
            "micro_batch_tokens",
            "eval_samples",
            "save_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1.")
        for name in (
            "prompts_per_step",
            "resample",
            "steps",
            "warmup_steps",
            "eval_prompts",
            "lora_rank",
            "threads",
            "eval_every",
            "token_budget",
        ):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 or more.")
        if self.resample and self.group_size == 1:
            raise InputError("resample is set but group_size is 1, so rewards cannot differ: set it to at least 2.")
        if not self.prompts_per_step and not self.rollouts:
            raise InputError(
                "prompts_per_step is 0 and rollouts names no file, so there is nothing to train on: set one."
            )
        for name in ("learning_rate", "weight_decay", "max_grad_norm", "lora_alpha"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}, expected a finite number from 0.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected a number from 0 to below 1.")
        if not 0 <= self.max_unscored <= 1:
            raise InputError(f"max_unscored is {self.max_unscored}, expected a share from 0 to 1.")
        if not self.mismatch_tolerance >= 0:
            raise InputError(f"mismatch_tolerance is {self.mismatch_tolerance}, expected 0 or more.")
        if not self.objective:
            raise InputError("objective names nothing to minimise: give at least one, such as clip.")
        _one_of("decay", self.decay, ("constant", "linear"))
        _one_of("optimizer", self.optimizer, ("adamw", "sgd"))
        for setting in dataclasses.fields(self):
            kind = setting.metadata.get("only_for")
            if kind and self.optimizer != kind and getattr(self, setting.name) != setting.default:
                raise InputError(
                    f"{setting.name} is {getattr(self, setting.name)} but optimizer is {self.optimizer!r}, which does "
                    f"not read it: leave {setting.name} out, or set optimizer to {kind!r}."
                )
        if self.token_budget and self.decay != "constant":
            raise InputError(
                f"token_budget is {self.token_budget} and decay {self.decay!r}, but nobody knows at which step the "
                "budget will be spent: leave one of them out."
            )
        _one_of("dtype", self.dtype, ("float32", "bfloat16", "float64"))
        if self.autocast is not None:
            _one_of("autocast", self.autocast, ("bfloat16",))
        if self.sampling_dtype is not None:
            _one_of("sampling_dtype", self.sampling_dtype, ("float32", "bfloat16"))
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature}, expected more than 0: training needs samples.")
        if "{prompt}" not in self.instruction:
            raise InputError(f"instruction is {self.instruction!r}, expected text with {{prompt}} in it.")
        for setting in dataclasses.fields(self):
            other = setting.metadata.get("only_with")
            if other and not getattr(self, other) and getattr(self, setting.name) != setting.default:
                raise InputError(
                    f"{setting.name} is set but {other} is not, so nothing would read it: set {other} too."
                )

    def to_json(self) -> str:
        """The settings as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @staticmethod
    def from_json(text: str, path: Path) -> TrainConfig:
        """Settings written by :meth:`to_json`.

        Raises:
            InputError: not JSON, a setting this version does not know, or a value it cannot have.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            values = None
        if not isinstance(values, dict):
            raise InputError(f"{path} is not a JSON object, expected the settings of a run: restore the file.")
        known = {f.name: f for f in dataclasses.fields(TrainConfig)}
        for name in values:
            if name not in known:
                raise unknown_name(f"setting in {path}", name, known)
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return TrainConfig(**settings)
        except (TypeError, InputError) as error:
            raise InputError(f"{path} cannot be used: {error}") from None


def _one_of(name: str, given: str, valid: tuple[str, ...]) -> None:
    if given not in valid:
        raise InputError(f"{name} is {given!r}, expected one of {', '.join(valid)}.")
