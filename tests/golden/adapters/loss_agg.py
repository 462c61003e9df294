"""Aggregations, of a token objective whose terms are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from apportion.objectives import Terms, token_objective
from apportion.objectives.aggregate import aggregation
from apportion.rollouts import ragged
from golden.adapters._build import Masks, Rows, aggregation_spec, credit_of, from_mask


def given_terms(now: Mapping[str, Tensor], at: Mapping[str, Tensor]) -> Terms:
    """The terms themselves."""
    return Terms(now["terms"])


def run(
    *,
    per_token_loss: Rows,
    response_mask: Masks,
    loss_agg_mode: str,
    loss_scale_factor: float | None,
    padded_length: int,
) -> dict[str, Any]:
    rollouts = from_mask(response_mask)
    scale = padded_length if loss_scale_factor is None else loss_scale_factor
    objective = token_objective(given_terms, aggregation(aggregation_spec(loss_agg_mode, scale)), ("terms",), ())
    terms = ragged.flatten(per_token_loss, torch.float64)[0]
    return {"loss": objective({"terms": terms}, rollouts, credit_of(rollouts)).value.item()}
