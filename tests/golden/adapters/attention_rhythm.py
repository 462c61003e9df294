"""Attention rhythm: measures of one response's maps, and given advantages multiplied under every rhythm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.annotations.attention import RhythmOfResponse, RhythmSettings, with_rhythm
from apportion.credit import METHODS, Work, estimator
from apportion.rollouts import Rollouts
from golden.adapters._build import Rows

MASKS = ("local_set", "global_set", "dominated", "intro")
THRESHOLDS = ("tau_waad", "tau_delta")


def run(
    *,
    advantages: Sequence[float],
    attentions: Sequence[Rows] | None = None,
    prompt_length: int = 0,
    waad: Sequence[float] | None = None,
    fai: Sequence[float] | None = None,
    window: int = 10,
    fai_low: int = 10,
    fai_high: int = 100,
    head_fraction: float = 0.3,
    **rule: Any,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists([range(len(advantages))], groups=[0])
    made = {"window": window, "fai_low": fai_low, "fai_high": fai_high, "head_fraction": head_fraction}
    result: dict[str, Any] = {}
    if attentions is not None:
        rollouts, result = measured(rollouts, attentions, prompt_length, RhythmSettings(**made))
    else:
        for name, values in (("waad/old", waad), ("fai/old", fai)):
            rollouts = rollouts.with_column(name, torch.tensor(values, dtype=torch.float64))

    @estimator()
    def given(work: Work) -> Tensor:
        return torch.tensor(advantages, dtype=torch.float64)

    for rhythm in ("local", "global", "coupled"):
        credit = METHODS["attention_rhythm"](rhythm=rhythm, base=given, **made, **rule)(rollouts)
        details = {name.split("/")[1]: column.tensor for name, column in credit.columns.items()}
        result |= {f"gamma_{rhythm}": details.pop("gamma"), f"advantages_{rhythm}": credit.advantages}
        result |= {name: details[name].nonzero().squeeze(1) for name in MASKS if name in details}
        result |= {name: details[name].item() for name in THRESHOLDS if name in details}
        result |= {"delta": details["delta"]} if "delta" in details else {}
    return result


def measured(
    rollouts: Rollouts, attentions: Sequence[Rows], prompt_length: int, settings: RhythmSettings
) -> tuple[Rollouts, dict[str, Any]]:
    """The rollouts with the columns of one response's maps, and what was measured."""
    response = RhythmOfResponse(prompt_length, settings)
    for head, attention in enumerate(attentions):
        response.add(layer=0, head=head, attention=torch.tensor(attention, dtype=torch.float64))
    rhythm = response.result()
    return with_rhythm(rollouts, [rhythm], settings), {
        "head_span": rhythm.span,
        "local_heads": rhythm.local_heads,
        "global_heads": rhythm.global_heads,
        "waad": rhythm.waad,
        "fai": rhythm.fai,
    }
