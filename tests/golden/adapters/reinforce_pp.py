"""REINFORCE++ and its variant with a group baseline, with verl's rules for untrained tokens and groups of one."""

from __future__ import annotations

from typing import Any

from apportion.credit import METHODS
from golden.adapters._build import Masks, from_mask, rows


def run(*, variant: str, response_mask: Masks, **given: Any) -> dict[str, Any]:
    settings = {"gamma": given.pop("gamma"), "reset": True} if variant == "reinforce_pp" else {"singleton": "raw"}
    rollouts = from_mask(response_mask, **given)
    credit = METHODS[variant](**settings)(rollouts)
    details = {name.removeprefix("token:credit/"): column.tensor for name, column in credit.columns.items()}
    return {name: rows(rollouts, values) for name, values in {"advantages": credit.advantages, **details}.items()}
