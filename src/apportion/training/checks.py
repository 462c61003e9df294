"""What can be wrong with parts that are each fine alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch

from apportion.errors import InputError
from apportion.models.codec import Codec
from apportion.models.policy import Policy
from apportion.tasks.task import Task

_ENCODED = 1000
"""How many prompts are encoded at most to look for one that is too long."""


def check_device(name: str) -> str:
    """The device a setting names; ``auto`` is CUDA where there is one.

    Raises:
        InputError: torch has no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "mps":
        raise InputError(f"device is {name!r}, which has no float64, and credit is summed in it: use --device cpu.")
    found = {"cpu": 1, "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0}
    if device.type not in found:
        raise InputError(f"device is {name!r}, expected auto, cpu, cuda, or cuda:1 and so on.")
    if (device.index or 0) >= found[device.type]:
        seen = f"{found[device.type]} such devices" if found[device.type] else f"no {device.type.upper()} device"
        raise InputError(f"device is {name!r}, but torch sees {seen} here: use --device cpu.")
    return name


def check_placed(policy: Policy, device: str, model: str) -> None:
    """Refuse a policy that stays elsewhere than it was asked to be."""
    if device != "auto" and policy.device.type != torch.device(device).type:
        raise InputError(f"device is {device!r}, but model {model!r} runs on {policy.device} only: leave device out.")


def check_store() -> None:
    """Refuse a run whose rollouts could not be stored."""
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError('storing rollouts needs pyarrow, which is not installed: run pip install "apportion[train]".')


def check_prompts(
    tasks: Sequence[Task], codec: Codec, context: int | None, new_tokens: int, what: str = "max_new_tokens"
) -> None:
    """Refuse tasks whose prompts leave no room for a response of so many tokens; ``what`` says whose number it is.

    A prompt has no more tokens than bytes beside what is put around it, so only those with too many bytes are encoded,
    the longest first.

    Raises:
        InputError: a prompt and ``new_tokens`` exceed the model's context.
    """
    if context is None or not tasks:
        return
    room = context - new_tokens
    if room < 1:
        raise InputError(
            f"{what} {new_tokens} and the model's context {context} leave no room for prompts: lower max_new_tokens."
        )
    size = {task.text: len(task.text.encode()) for task in tasks}
    shortest = min(tasks, key=lambda task: size[task.text])
    around = len(codec.encode(shortest))
    large = {task.text: task for task in tasks if size[task.text] + around > room}
    for text in sorted(large, key=lambda text: -size[text])[:_ENCODED]:
        tokens = len(codec.encode(large[text]))
        if tokens > room:
            raise InputError(
                f"the prompt {' '.join(text.split())[:40]!r}... has {tokens} tokens, which with {what} {new_tokens} "
                f"exceed the model's context of {context}: shorten or remove it, or lower max_new_tokens."
            )
