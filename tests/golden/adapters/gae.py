"""Generalised advantage estimation, over the unmasked tokens alone."""

from __future__ import annotations

from typing import Any

import torch

from apportion.credit import METHODS
from apportion.rollouts import ragged
from golden.adapters._build import Masks, Rows, from_mask, rows


def run(*, token_rewards: Rows, values: Rows, response_mask: Masks, gamma: float, lam: float) -> dict[str, Any]:
    rollouts = from_mask(response_mask, token_rewards=token_rewards)
    rollouts = rollouts.with_column("values/critic", ragged.flatten(values, torch.float64)[0])
    credit = METHODS["gae"](gamma=gamma, lam=lam)(rollouts)
    details = {n: rows(rollouts, credit.columns[f"token:credit/{n}"].tensor) for n in ("raw_advantages", "returns")}
    return {"advantages": rows(rollouts, credit.advantages), **details}
