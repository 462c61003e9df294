"""Settings: what they refuse, and that they survive a file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from apportion.errors import InputError
from apportion.recipes import RECIPES
from apportion.training.config import TrainConfig
from apportion.training.setup import set_up
from own_model import save_own_model

HERE = Path("config.json")

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"group_size": 0}, "group_size is 0, expected at least 1"),
    ({"epochs": 0}, "epochs is 0, expected at least 1"),
    ({"minibatches": 0}, "minibatches is 0, expected at least 1"),
    ({"micro_batch_tokens": 0}, "micro_batch_tokens is 0, expected at least 1"),
    ({"eval_samples": 0}, "eval_samples is 0, expected at least 1"),
    ({"save_every": 0}, "save_every is 0, expected at least 1"),
    ({"keep_checkpoints": 0}, "keep_checkpoints is 0, expected at least 1"),
    ({"prompts_per_step": -1}, "prompts_per_step is -1, expected 0 or more"),
    ({"resample": -1}, "resample is -1, expected 0 or more"),
    ({"resample": 1, "group_size": 1}, "resample is set but group_size is 1, so rewards cannot differ"),
    ({"resample": 1, "prompts_per_step": 0, "rollouts": "f"}, "resample is set but prompts_per_step is not"),
    ({"steps": -1}, "steps is -1, expected 0 or more"),
    ({"warmup_steps": -1}, "warmup_steps is -1, expected 0 or more"),
    ({"eval_prompts": -1}, "eval_prompts is -1, expected 0 or more"),
    ({"eval_every": -1}, "eval_every is -1, expected 0 or more"),
    ({"threads": -1}, "threads is -1, expected 0 or more"),
    ({"lora_rank": -1}, "lora_rank is -1, expected 0 or more"),
    ({"prompts_per_step": 0}, "prompts_per_step is 0 and rollouts names no file"),
    ({"learning_rate": -1e-3}, "learning_rate is -0.001, expected a finite number from 0"),
    ({"learning_rate": math.nan}, "learning_rate is nan"),
    ({"weight_decay": -1.0}, "weight_decay is -1.0"),
    ({"max_grad_norm": math.inf}, "max_grad_norm is inf"),
    ({"beta1": 1.0}, "beta1 is 1.0, expected a number from 0 to below 1"),
    ({"beta2": -0.1}, "beta2 is -0.1"),
    ({"max_unscored": 1.5}, "max_unscored is 1.5, expected a share from 0 to 1"),
    ({"mismatch_tolerance": -0.1}, "mismatch_tolerance is -0.1, expected 0 or more"),
    ({"mismatch_tolerance": math.nan}, "mismatch_tolerance is nan"),
    ({"temperature": 0.0}, "temperature is 0.0, expected more than 0"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"objective": ()}, "objective names nothing to minimise"),
    ({"decay": "cosine"}, "decay is 'cosine', expected one of constant, linear"),
    ({"optimizer": "adam"}, "optimizer is 'adam', expected one of adamw, sgd"),
    ({"optimizer": "sgd", "beta1": 0.8}, "beta1 is 0.8 but optimizer is 'sgd', which does not read it"),
    ({"optimizer": "sgd", "beta2": 0.95}, "beta2 is 0.95 but optimizer is 'sgd', which does not read it"),
    ({"token_budget": -1}, "token_budget is -1, expected 0 or more"),
    ({"token_budget": 9, "decay": "linear"}, "token_budget is 9 and decay 'linear', but nobody knows at which step"),
    ({"dtype": "float16"}, "dtype is 'float16'"),
    ({"autocast": "float32"}, "autocast is 'float32', expected one of bfloat16"),
    ({"sampling_dtype": "int8"}, "sampling_dtype is 'int8', expected one of float32, bfloat16"),
    ({"instruction": "hello"}, "instruction is 'hello', expected text with {prompt} in it"),
    ({"lora_alpha": 8.0}, "lora_alpha is set but lora_rank is not"),
    ({"lora_targets": "q_proj"}, "lora_targets is set but lora_rank is not"),
    ({"rollouts_per_step": 2}, "rollouts_per_step is set but rollouts is not"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        TrainConfig(**settings)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.0},
        {"mismatch_tolerance": math.inf},
        {"max_unscored": 1.0},
        {"max_grad_norm": 0.0},
        {"lora_rank": 2, "lora_alpha": 8.0, "lora_targets": "q_proj"},
        {"prompts_per_step": 0, "rollouts": "stored.jsonl", "rollouts_per_step": 2},
        {"steps": 0, "eval_prompts": 0},
    ],
    ids=lambda v: "-".join(v),
)
def test_what_is_at_the_edge_is_allowed(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        assert getattr(TrainConfig(**settings), name) == value


def _other(field: dataclasses.Field[Any]) -> Any:
    """A value that is not the default, and that JSON can hold."""
    default = getattr(TrainConfig(), field.name)
    choices = {
        "decay": "linear",
        "optimizer": "sgd",
        "tasks_seed": 3,
        "dtype": "float64",
        "autocast": "bfloat16",
        "sampling_dtype": "float32",
    }
    if field.name in choices:
        return choices[field.name]
    if field.name == "chat":
        return False
    if field.name in ("beta1", "beta2", "max_unscored", "top_p"):
        return 0.5
    if isinstance(default, tuple):
        return ("one", "two(three=4)")
    if isinstance(default, int | float):
        return default + 2
    return "{prompt} and more"


def test_every_setting_survives_a_file() -> None:
    others = {f.name: _other(f) for f in dataclasses.fields(TrainConfig)}
    alone = [TrainConfig(**{name: others.pop(name)}) for name in ("optimizer", "token_budget")]  # excluded by others
    changed = TrainConfig(**others)
    assert all(getattr(changed, name) != getattr(TrainConfig(), name) for name in others)
    assert alone[0].optimizer != "adamw"
    assert alone[1].token_budget
    for config in (changed, *alone, TrainConfig(), *(recipe() for recipe in RECIPES.values())):
        again = TrainConfig.from_json(config.to_json(), HERE)
        assert again == config
        assert again.to_json() == config.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not a JSON object, expected the settings of a run"),
        ("[1]", "config.json is not a JSON object"),
        ('{"stebs": 3}', "unknown setting in config.json 'stebs': did you mean 'steps'?"),
        ('{"steps": -3}', "config.json cannot be used: steps is -3"),
        ('{"steps": "many"}', "config.json cannot be used"),
        ('{"decay": null}', "config.json cannot be used: decay is None"),
    ],
)
def test_a_file_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        TrainConfig.from_json(text, HERE)
    assert message in str(refused.value)


def test_a_setting_that_is_not_in_the_file_has_its_default() -> None:
    values = json.loads(TrainConfig(seed=4).to_json())
    del values["eval_every"]
    assert TrainConfig.from_json(json.dumps(values), HERE) == TrainConfig(seed=4)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "instruct"])
def test_every_recipe_sets_up(name: str) -> None:
    config = RECIPES[name]()
    parts = set_up(config)
    assert parts.config == config
    assert sum(p.numel() for _, p in parts.policy.named_parameters()) > 0
    assert len(parts.held_out) == config.eval_prompts
    assert parts.curriculum.next(config.prompts_per_step, 0)


def test_the_recipe_for_chat_models_sets_up(tmp_path: Path) -> None:
    config = dataclasses.replace(RECIPES["instruct"](), model=str(save_own_model(tmp_path / "model")))
    parts = set_up(config)
    assert len(parts.held_out) == config.eval_prompts
    ids = parts.codec.encode(parts.held_out[0])
    assert parts.policy.tokenizer.decode(ids).startswith("<|user|>State the final answer")


@pytest.mark.system
def test_the_recipe_for_chat_models_sets_up_as_it_is() -> None:
    parts = set_up(RECIPES["instruct"]())
    assert sum(p.numel() for _, p in parts.policy.named_parameters()) == 134_515_008
