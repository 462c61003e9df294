"""What a study compares: arms, each the base settings with some of them changed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from apportion.errors import InputError, unknown_name
from apportion.training.config import TrainConfig

SHARED = (
    "tasks",
    "tasks_seed",
    "environment",
    "verifier",
    "instruction",
    "chat",
    "seed",
    "steps",
    "token_budget",
    "eval_prompts",
    "eval_samples",
    "eval_every",
    "device",
)
"""Settings that all arms share, or their runs would not be asked the same or not be compared at the same place."""

OF_WARM_STARTS = ("model", "warm_start", "dtype", "lora_rank", "lora_alpha", "lora_targets")
"""Settings that decide what weights a warm start ends with."""


@dataclass(frozen=True)
class Arm:
    """One way to train, compared with others from the same weights on the same prompts.

    Attributes:
        name: what reports call it.
        changes: settings that differ from the study's, by name.
        rate_of: an arm whose learning rate, tuned or not, this one multiplies instead of having one of its own; None:
            its own.
        factor: that multiple.

    Example:
        >>> Arm("twice", {"credit": "grpo"}, rate_of="grpo", factor=2.0).settings(TrainConfig()).credit
        'grpo'
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    rate_of: str | None = None
    factor: float = 1.0

    def settings(self, base: TrainConfig) -> TrainConfig:
        """The base with the changes.

        Raises:
            InputError: settings that do not go together.
        """
        try:
            return replace(base, **self.changes)
        except InputError as error:
            raise InputError(f"arm {self.name!r}: {error}") from None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def crossed(varied: Mapping[str, Sequence[Any]]) -> list[Arm]:
    """An arm for every combination of values, the first setting slowest.

    Args:
        varied: values by setting.

    Example:
        >>> [arm.name for arm in crossed({"credit": ["grpo", "tempo"], "optimizer": ["adamw", "sgd"]})]
        ['grpo, adamw', 'grpo, sgd', 'tempo, adamw', 'tempo, sgd']
    """
    if not varied:
        return []
    return [
        Arm(", ".join(map(_shown, values)), dict(zip(varied, values, strict=True)))
        for values in itertools.product(*varied.values())
    ]


def _shown(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_arms(arms: Sequence[Arm], base: TrainConfig) -> None:
    """Refuse arms that cannot be compared.

    Raises:
        InputError: none, two of one name, a setting that all arms share, one that decides on the warm start, an arm
            that takes the rate of none, or settings that do not go together.
    """
    if not arms:
        raise InputError("the study has no arms: vary a setting, as in --vary credit=grpo,tempo.")
    names = [arm.name for arm in arms]
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    for arm in arms:
        if names.count(arm.name) > 1:
            raise InputError(f"two arms are called {arm.name!r}: name each differently.")
        for setting in arm.changes:
            if setting not in known:
                raise unknown_name(f"setting of arm {arm.name!r}", setting, known)
            if setting in SHARED:
                raise InputError(
                    f"arm {arm.name!r} sets {setting}, which all arms of a study share: set it for the whole study."
                )
            if setting in OF_WARM_STARTS and base.warm_start is not None:
                raise InputError(
                    f"arm {arm.name!r} sets {setting}, but arms begin with the weights of one warm start, which "
                    f"depends on it: set {setting} for the whole study, or leave the warm start out."
                )
        _check_rate(arm, arms)
        arm.settings(base)


def _check_rate(arm: Arm, arms: Sequence[Arm]) -> None:
    if arm.rate_of is None:
        return
    if not 0 < arm.factor < float("inf"):
        raise InputError(f"arm {arm.name!r} takes {arm.factor} times a rate, expected a finite number above 0.")
    if "learning_rate" in arm.changes:
        raise InputError(f"arm {arm.name!r} sets learning_rate and takes that of {arm.rate_of!r}: leave one out.")
    other = next((a for a in arms if a.name == arm.rate_of), None)
    if other is None or other.rate_of is not None:
        own = [a.name for a in arms if a.rate_of is None]
        raise unknown_name(f"arm, whose learning rate {arm.name!r} multiplies,", arm.rate_of, own)
