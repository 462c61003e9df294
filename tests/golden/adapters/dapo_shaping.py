"""DAPO: the overlong penalty, through the shaper, and the groups that dynamic sampling keeps, through the filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apportion.credit import drop_dead_groups, overlong_penalty
from apportion.rollouts import Rollouts


def run(*, op: str, **given: Any) -> dict[str, Any]:
    """One of the two kinds of case."""
    return {"overlong": overlong, "dynamic_sampling": dynamic_sampling}[op](**given)


def overlong(*, lengths: Sequence[int], max_length: int, buffer: int, factor: float) -> dict[str, Any]:
    rollouts = Rollouts.from_lists([[0] * n for n in lengths], groups=range(len(lengths)), rewards=[0.0] * len(lengths))
    credit = overlong_penalty(max_length, buffer, factor)(rollouts)
    return {"penalties": credit.columns["episode:credit/overlong_penalty"].tensor}


def dynamic_sampling(*, metric: Sequence[float], group_ids: Sequence[int]) -> dict[str, Any]:
    one_token = Rollouts.from_lists([[0]] * len(metric), groups=group_ids, rewards=metric)
    credit = drop_dead_groups()(one_token)
    assert credit.trained.equal(credit.counted)
    kept = credit.trained.nonzero().squeeze(1).tolist()
    return {"kept_rows": kept, "kept_group_ids": list(dict.fromkeys(group_ids[row] for row in kept))}
