"""TEMPO: advantages, and the value of every prefix from the empty one on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apportion.credit import METHODS
from apportion.rollouts import Rollouts
from golden.adapters._build import rows


def run(
    *,
    response_ids: Sequence[Sequence[int]],
    rewards: Sequence[float],
    group_ids: Sequence[int],
    norm_by_std: bool,
    eps: float,
) -> dict[str, Any]:
    rollouts = Rollouts.from_lists(response_ids, groups=group_ids, rewards=rewards)
    credit = METHODS["tempo"](norm_by_std=norm_by_std, eps=eps)(rollouts)
    roots = credit.columns["episode:credit/prefix_value_root"].tensor.tolist()
    after = rows(rollouts, credit.columns["token:credit/prefix_value_after"].tensor)
    return {
        "advantages": rows(rollouts, credit.advantages),
        "prefix_values": [[root, *row] for root, row in zip(roots, after, strict=True)],
    }
