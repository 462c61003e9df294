"""The policy: loading it, its forward pass, and the statistics objectives ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apportion import registry
from apportion.errors import InputError
from apportion.models.characters import character_llama
from apportion.models.digits import digit_llama
from apportion.models.smollm2 import smollm2
from apportion.models.tabular import TabularPolicy

MODELS: dict[str, Callable[..., Any]] = {
    "digits": digit_llama,
    "characters": character_llama,
    "smollm2": smollm2,
    "tabular": TabularPolicy,
}
"""Models by name; a builder returns a policy, or a folder to load one from."""


def build_policy(spec: str, *, device: str, dtype: str, autocast: str | None, seed: int) -> Any:
    """The policy a spec or a path names.

    Args:
        spec: a name in :data:`MODELS`, ``package.module:name(...)``, a folder, or a hub name.
        device: where to put it.
        dtype: of the parameters.
        autocast: dtype of the training forward pass, or None.
        seed: of initial weights, where a model is made from scratch.
    """
    from apportion.models import huggingface

    name = spec.partition("(")[0].strip()
    if name in MODELS or ":" in name:
        made = registry.build(spec, MODELS, "model", seed=seed, dtype=dtype)
        if isinstance(made, huggingface.HuggingFacePolicy):
            made.model.to(device)
            made.autocast = huggingface.DTYPES[autocast] if autocast else made.autocast
            return made
        if not isinstance(made, str) and not hasattr(made, "__fspath__"):
            if autocast is not None:
                raise InputError(
                    f"autocast is {autocast!r}, but model {spec!r} has one dtype only: leave autocast out."
                )
            return made
        spec = str(made)
    return huggingface.load(spec, device=device, dtype=dtype, autocast=autocast)
