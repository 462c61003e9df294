"""The clipped value loss: loss and clip fraction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from apportion.objectives import OBJECTIVES
from apportion.rollouts import Column, ragged
from golden.adapters._build import Masks, Rows, aggregation_spec, credit_of, from_mask


def run(
    *,
    values_pred: Rows,
    returns: Rows,
    old_values: Rows,
    response_mask: Masks,
    cliprange_value: float,
    loss_agg_mode: str,
) -> dict[str, Any]:
    old, new, target = (ragged.flatten(given, torch.float64)[0] for given in (old_values, values_pred, returns))
    rollouts = from_mask(response_mask).with_column("values/critic", old)
    credit = replace(credit_of(rollouts), columns={"token:credit/returns": Column(target, maker="credit")})
    objective = OBJECTIVES["value"](clip=cliprange_value, aggregate=aggregation_spec(loss_agg_mode, None))
    loss = objective({"values/critic": new}, rollouts, credit)
    return {"loss": loss.value, "clipfrac": loss.metrics["value_clip_fraction"]}
