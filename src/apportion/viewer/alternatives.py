"""What else the policy might have said at a token, where the run recorded it."""

from __future__ import annotations

from typing import Any

from apportion.rollouts import Rollouts
from apportion.viewer.index import real
from apportion.viewer.texts import Decode, shortened

IDS, LOG_PROBS = "token:top_ids/behaviour", "token:top_log_probs/behaviour"

DIGITS = 5
"""Decimals of a log-prob that are shown."""


def alternatives(rollouts: Rollouts, decode: Decode | None) -> dict[str, Any] | None:
    """The likeliest tokens at every token, as JSON; None where the rollouts do not hold them.

    Args:
        rollouts: of one group.
        decode: turns tokens into text; None: they are shown by their ids.

    Returns:
        ``ids`` and ``log_probs``, a list a token, likeliest first, or null where nothing was sampled; ``texts`` by id.

    Example:
        >>> import torch
        >>> group = Rollouts.from_lists([[1]], groups=[0]).with_column("top_ids/behaviour", torch.tensor([[1, 2]]))
        >>> group = group.with_column("top_log_probs/behaviour", torch.tensor([[0.75, 0.25]]).log())
        >>> alternatives(group, lambda ids: "abc"[ids[0]])
        {'ids': [[1, 2]], 'log_probs': [[-0.28768, -1.38629]], 'texts': {'1': 'b', '2': 'c'}}
    """
    if IDS not in rollouts.columns or LOG_PROBS not in rollouts.columns:
        return None
    column = rollouts.columns[IDS]
    present = [True] * rollouts.n_tokens if column.present is None else column.present.tolist()
    ids, log_probs = column.tensor.tolist(), rollouts.columns[LOG_PROBS].tensor.tolist()
    known = sorted({i for row, there in zip(ids, present, strict=True) if there for i in row})
    return {
        "ids": [row if there else None for row, there in zip(ids, present, strict=True)],
        "log_probs": [
            [real(round(value, DIGITS)) for value in row] if there else None
            for row, there in zip(log_probs, present, strict=True)
        ],
        "texts": {str(i): shortened(str(i) if decode is None else decode([i])) for i in known},
    }
