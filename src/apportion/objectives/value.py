"""What a critic minimises: the squared error of its values, clipped around those it gave before the update."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.objectives.aggregate import aggregation
from apportion.objectives.protocol import Now, Objective, Terms, token_objective


def value(
    clip: float = 0.5, head: str = "critic", aggregate: str = "token_mean", returns: str = "returns"
) -> Objective:
    """The clipped value loss of PPO.

        l_t = max( (v_t - R_t)^2, (clip(v_t, v_old_t - c, v_old_t + c) - R_t)^2 ) / 2

    with v the value being trained, v_old the same before the first update on the batch (column ``values/<head>``) and
    R the return (``credit/<returns>``, of credit ``gae``).

    Args:
        clip: c, how far a value may move from what it was.
        head: which value head.
        aggregate: how token terms are averaged, see :mod:`apportion.objectives.aggregate`.
        returns: the credit's detail that holds R; methods with several critics make one each, such as
            ``returns/outcome``.

    Metrics: ``value_clip_fraction`` (the clipped term is larger), ``value_error`` (the squared error of v).

    Raises:
        InputError: a negative clip.

    Source: arXiv 1707.06347; verl ``compute_value_loss``.
    """
    if not 0 <= clip < math.inf:
        raise InputError(f"the value clip is {clip}, expected 0 or more.")
    name, goal = f"values/{head}", f"credit/{returns}"

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        before, target = at[name].to(now[name].dtype), at[goal].to(now[name].dtype)
        plain = (now[name] - target) ** 2
        clipped = (now[name].clamp(before - clip, before + clip) - target) ** 2
        metrics = {"value_clip_fraction": (clipped > plain).double(), "value_error": plain}
        return Terms(0.5 * torch.maximum(plain, clipped), metrics)

    return token_objective(terms, aggregation(aggregate), (name,), (name, goal))
