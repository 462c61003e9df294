"""What must hold of every rollouts, checked once at construction so that no method has to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.rollouts.columns import EVERY_ROW, Column, split_name

if TYPE_CHECKING:
    from apportion.rollouts.model import Rollouts


def check(rollouts: Rollouts) -> None:
    """Raise an :class:`InputError` naming the first invariant that does not hold."""
    _check_index(rollouts.ids, "ids")
    _check_offsets(rollouts.token_offsets, len(rollouts.ids), "token_offsets")
    _check_offsets(rollouts.response_offsets, rollouts.n_responses, "response_offsets")
    _check_offsets(rollouts.prompt_offsets, len(rollouts.prompt_ids), "prompt_offsets")
    _check_index(rollouts.group_ids, "group_ids", rows=rollouts.n_episodes)
    _check_index(rollouts.prompt_ids, "prompt_ids")
    _check_index(rollouts.prompts, "prompts", rows=rollouts.n_responses, below=len(rollouts.prompt_offsets) - 1)
    if bool((rollouts.response_offsets[1:] == rollouts.response_offsets[:-1]).any()):
        raise InputError("an episode has no responses, expected at least one each: leave it out.")
    for kind, spans in rollouts.spans.items():
        _check_spans(kind, spans.starts, spans.ends, rollouts.token_offsets)
    if rollouts.pairs is not None:
        for name, side in (("preferred", rollouts.pairs.preferred), ("other", rollouts.pairs.other)):
            _check_index(side, f"pairs.{name}", rows=len(rollouts.pairs.preferred), below=rollouts.n_episodes)
    for name, column in rollouts.columns.items():
        _check_column(rollouts, name, column)


def _check_index(values: Tensor, name: str, rows: int | None = None, below: int | None = None) -> None:
    if values.dtype != torch.int64 or values.dim() != 1:
        raise InputError(
            f"{name} is {values.dtype} of shape {tuple(values.shape)}, expected integers (int64) in one dimension."
        )
    if rows is not None and len(values) != rows:
        raise InputError(f"{name} has {len(values)} entries, expected {rows}.")
    if below is not None and len(values) and (int(values.min()) < 0 or int(values.max()) >= below):
        raise InputError(f"{name} names rows outside 0..{below - 1}.")


def _check_offsets(offsets: Tensor, total: int, name: str) -> None:
    _check_index(offsets, name)
    if len(offsets) == 0 or int(offsets[0]) != 0 or int(offsets[-1]) != total:
        raise InputError(f"{name} must run from 0 to {total}, got {offsets.tolist()[:1]}..{offsets.tolist()[-1:]}.")
    if bool((offsets[1:] < offsets[:-1]).any()):
        raise InputError(f"{name} decreases, expected ascending offsets.")


def _check_spans(kind: str, starts: Tensor, ends: Tensor, token_offsets: Tensor) -> None:
    _check_index(starts, f"starts of {kind} spans")
    _check_index(ends, f"ends of {kind} spans", rows=len(starts))
    if len(starts) == 0:
        return
    if int(starts[0]) < 0 or int(ends[-1]) > int(token_offsets[-1]):
        raise InputError(f"a {kind} span lies outside the {int(token_offsets[-1])} tokens.")
    if bool((ends <= starts).any()):
        raise InputError(f"a {kind} span is empty, expected start < end.")
    if bool((starts[1:] < ends[:-1]).any()):
        raise InputError(f"{kind} spans overlap or are unsorted, expected sorted disjoint ranges.")
    first = torch.searchsorted(token_offsets, starts, right=True)
    last = torch.searchsorted(token_offsets, ends - 1, right=True)
    if bool((first != last).any()):
        raise InputError(f"a {kind} span crosses from one response into the next; end it with its response.")


def _check_column(rollouts: Rollouts, name: str, column: Column) -> None:
    level, short = split_name(name)
    rows = rollouts.rows(level)
    if len(column) != rows:
        raise InputError(f"column {name!r} has {len(column)} entries, expected {rows}, one a {level}.")
    if column.present is not None and (column.present.dtype != torch.bool or column.present.shape != (rows,)):
        raise InputError(f"the presence mask of {name!r} must be bool of shape ({rows},).")
    if short in EVERY_ROW and column.present is not None and not bool(column.present.all()):
        raise InputError(f"column {name!r} has missing entries, expected one for every token.")
    if not isinstance(column.values, Tensor):
        return
    scored = rollouts.columns.get(f"{level}:scored/{short.removeprefix('reward/')}")
    if short.startswith("reward/"):
        twins = [n for n in rollouts.columns if split_name(n)[1] == short and n != name]
        if twins:
            raise InputError(f"the reward {short!r} lives at two levels, {name!r} and {twins[0]!r}: keep one.")
        if scored is not None and scored.tensor.shape != column.values.shape:
            raise InputError(f"{name!r} and its scored column have different shapes, expected the same.")
    if not column.values.is_floating_point():
        return
    used = column.values
    if short.startswith("reward/") and scored is not None:
        used = torch.where(scored.tensor.bool(), used, torch.zeros_like(used))
    if column.present is not None:
        used = used[column.present]
    elif level == "token" and "token:trained" in rollouts.columns and short.startswith("log_probs/"):
        used = used[rollouts.columns["token:trained"].tensor.bool()]
    if not bool(torch.isfinite(used).all()):
        raise InputError(f"column {name!r} has a value that is not finite; mark missing entries as missing.")
    if short.startswith("log_probs/") and len(used) and float(used.max()) > 1e-3:
        raise InputError(f"column {name!r} has a log-probability of {float(used.max()):.4g}, expected at most 0.")
