"""Rewards of programs that draw solids: nothing unless the program runs, then how well the solid fits its reference.

Whoever runs the programs measures the volumes; boxes stand in for solids where there is no CAD kernel.

Suffix legend: B responses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.errors import InputError, unknown_name

FAILURE_MODES = ("reference_frame", "parametric")
"""What a judge may find: the solid stands in the wrong frame, or a dimension was given to the wrong parameter."""


@dataclass(frozen=True, eq=False)
class GatedReward:
    """What programs earned, ``[B]`` each.

    Attributes:
        geometric: overlap with the reference; 0 where the program did not run.
        evaluation: the judge's word; 0 where the program did not run or the judge said nothing.
        reward: both weighed, 0 where the program did not run.
        scored: False where the program ran, the judge's word counts and there is none: the reward is unknown.
    """

    geometric: Tensor
    evaluation: Tensor
    reward: Tensor
    scored: Tensor


def gated_reward(
    executes: Sequence[bool],
    overlap: Tensor,
    judge_scores: Sequence[float | None],
    failure_modes: Sequence[Sequence[str]],
    lambda_geom: float = 1.0,
    lambda_eval: float = 1.0,
    failure_penalty: float = 0.5,
    score_range: tuple[float, float] = (0.0, 10.0),
) -> GatedReward:
    """The reward of CAD-RL.

        R      = R_exec (lambda_geom R_geom + lambda_eval R_eval)
        R_eval = clip(clip((score - low) / (high - low), 0, 1) - failure_penalty * kinds of failure, 0, 1)

    Where a program did not run (or hit its time limit), neither its overlap nor the judge's score is read.

    Args:
        executes: whether the program ran without an exception ``[B]``.
        overlap: intersection over union with the reference solid ``[B]``, see :func:`overlap_of_volumes`.
        judge_scores: ``[B]``; None: the judge gave no verdict.
        failure_modes: of every program, the kinds of :data:`FAILURE_MODES` that the judge found ``[B]``.
        lambda_geom: weight of the overlap.
        lambda_eval: weight of the judge.
        failure_penalty: taken off for every kind of failure; ours, as the range is.
        score_range: lowest and highest score of the judge.

    Raises:
        InputError: lists of different lengths, a negative weight or penalty, an empty range, an unknown kind of
            failure, an overlap outside of 0..1, or a score that is not finite.

    Source: arXiv 2508.10118, from a reimplementation by others that cites its equations.

    Example:
        >>> gated_reward([True, False], torch.tensor([0.5, 1.0]), [8.0, None], [["parametric"], []]).reward.tolist()
        [0.8, 0.0]
    """
    settings = {"lambda_geom": lambda_geom, "lambda_eval": lambda_eval, "failure_penalty": failure_penalty}
    for name, value in settings.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{name} is {value}, expected 0 or more.")
    low, high = score_range
    if not -math.inf < low < high < math.inf:
        raise InputError(f"the score range is {low} to {high}, expected a lowest below a highest score.")
    counts = {len(executes), len(overlap), len(judge_scores), len(failure_modes)}
    if len(counts) > 1:
        raise InputError(f"got {sorted(counts)} programs, overlaps, scores and failures, expected one each a program.")
    ran = torch.tensor(list(executes), dtype=torch.bool, device=overlap.device)
    geometric = torch.where(ran, overlap.double(), 0.0)
    if not bool(((geometric >= 0) & (geometric <= 1)).all()):
        raise InputError("the overlap with a reference is outside of 0..1, expected intersection over union.")
    told = torch.tensor([score is not None for score in judge_scores], dtype=torch.bool, device=overlap.device)
    given = [score if score is not None and runs else low for score, runs in zip(judge_scores, executes, strict=True)]
    score = torch.tensor(given, dtype=torch.float64, device=overlap.device)
    if not bool(score.isfinite().all()):
        raise InputError("a judge's score is not finite, expected a number, or None where there is no verdict.")
    failures = torch.tensor([_kinds(found) for found in failure_modes], dtype=torch.float64, device=overlap.device)
    normal = ((score - low) / (high - low)).clamp(0, 1)
    evaluation = torch.where(ran & told, (normal - failure_penalty * failures).clamp(0, 1), 0.0)
    reward = torch.where(ran, lambda_geom * geometric + lambda_eval * evaluation, 0.0)
    return GatedReward(geometric, evaluation, reward, ~ran | told | (lambda_eval == 0))


def overlap_of_volumes(intersection: Tensor, union: Tensor) -> Tensor:
    """Intersection over union ``[B]``; 0 where the union is empty.

    Raises:
        InputError: a negative volume, or an intersection larger than the union.
    """
    if not bool(((intersection >= 0) & (union >= 0)).all()):
        raise InputError("a volume is negative or not a number, expected 0 or more.")
    if bool((intersection > union * (1 + 1e-6) + 1e-9).any()):
        raise InputError("an intersection is larger than the union it is part of: measure both on the same solids.")
    return torch.where(union > 0, intersection / torch.where(union > 0, union, 1.0), 0.0).clamp(max=1)


def overlap_of_boxes(generated: Tensor, reference: Tensor) -> Tensor:
    """Intersection over union of axis-aligned boxes ``[B]``.

    Args:
        generated: ``[B, 6]``: three lowest coordinates, then three highest.
        reference: likewise.

    Raises:
        InputError: other shapes, or a box whose lowest coordinate is above its highest.

    Example:
        >>> overlap_of_boxes(torch.tensor([[0, 0, 0, 2, 1, 1]]), torch.tensor([[1, 0, 0, 3, 1, 1]])).tolist()
        [0.3333333333333333]
    """
    for name, boxes in (("generated", generated), ("reference", reference)):
        if boxes.dim() != 2 or boxes.shape[1] != 6 or len(boxes) != len(reference):
            raise InputError(f"{name} boxes have shape {tuple(boxes.shape)}, expected [B, 6], as many of both.")
        if not bool((boxes[:, :3] <= boxes[:, 3:]).all()):
            raise InputError(f"a {name} box has a coordinate whose lowest value is above its highest: turn them.")
    one, other = generated.double(), reference.double()
    extent = torch.minimum(one[:, 3:], other[:, 3:]) - torch.maximum(one[:, :3], other[:, :3])
    shared = extent.clamp(min=0).prod(1)
    each = [(box[:, 3:] - box[:, :3]).prod(1) for box in (one, other)]
    return overlap_of_volumes(shared, each[0] + each[1] - shared)


def _kinds(found: Sequence[str]) -> int:
    for name in found:
        if name not in FAILURE_MODES:
            raise unknown_name("failure mode", name, FAILURE_MODES)
    return len(set(found))
