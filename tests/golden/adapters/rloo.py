"""RLOO, with verl's rule for groups of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apportion.credit import METHODS
from golden.adapters._build import Masks, Rows, from_mask, rows


def run(
    *,
    group_ids: Sequence[int],
    response_mask: Masks,
    rewards: Sequence[float] | None = None,
    token_rewards: Rows | None = None,
) -> dict[str, Any]:
    rollouts = from_mask(response_mask, group_ids, rewards=rewards, token_rewards=token_rewards)
    credit = METHODS["rloo"](singleton="raw")(rollouts)
    return {"advantages": rows(rollouts, credit.advantages)}
