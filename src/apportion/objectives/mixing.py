"""Different objectives for responses of different origin.

Suffix legend: E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.errors import InputError, unknown_name
from apportion.objectives.protocol import Loss, Now, Objective, Terms, TokenPart, add
from apportion.rollouts import ORIGINS, Rollouts, ragged


def from_origin(rollouts: Rollouts, origin: str) -> Tensor:
    """The mask ``[E]`` of the episodes from an origin.

    Raises:
        InputError: some responses of an episode come from it and others do not.
    """
    inside = torch.tensor([found == origin for found in rollouts.origin], device=rollouts.device).long()
    count = ragged.sum_rows(inside, rollouts.response_offsets)
    whole = count == ragged.lengths_of(rollouts.response_offsets)
    if bool(((count > 0) & ~whole).any()):
        raise InputError(
            f"an episode has responses of origin {origin!r} and others, expected one origin an episode: give all its "
            "responses the same."
        )
    return whole


def mix(**objectives: Objective) -> Objective:
    """Each objective on the episodes of its origin, with its own normaliser, added; other origins carry no loss.

    An objective reads nothing at the episodes of other origins, so columns may be missing there, and one without
    episodes is 0. Where all are sums over tokens, so is the result.

    Args:
        **objectives: by origin: ``policy``, ``hinted``, ``stored`` or ``demonstration``.

    Metrics: those of the parts, behind their origin: ``policy/clip_fraction``.

    Raises:
        InputError: no objectives, or an unknown origin; when evaluated, an episode of several origins.

    Example:
        >>> from apportion import objectives
        >>> both = objectives.mix(policy=objectives.clip(), demonstration=objectives.imitation())
        >>> both.scope
        'token'
    """
    for origin in objectives:
        if origin not in ORIGINS:
            raise unknown_name("origin", origin, ORIGINS)
    return add(*(_only(origin, objective) for origin, objective in objectives.items()))


def _only(origin: str, objective: Objective) -> Objective:
    """An objective on the episodes of an origin."""
    if objective.parts:
        return replace(objective, parts=tuple(_only_part(origin, part) for part in objective.parts))

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        covered = from_origin(rollouts, origin)
        if not bool(covered.any()):
            return Loss(torch.zeros((), device=rollouts.device))
        tokens = covered[rollouts.episode_of_token]
        part = {name: values[tokens] for name, values in now.items()}
        loss = objective(part, rollouts.select(covered), credit.select(covered), clock)
        return Loss(loss.value, _behind(origin, loss.metrics))

    return replace(objective, evaluate=evaluate)


def _only_part(origin: str, part: TokenPart) -> TokenPart:
    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        given = part.terms(now, at)
        return Terms(given.loss, _behind(origin, given.metrics))

    def covers(rollouts: Rollouts) -> Tensor:
        mask = from_origin(rollouts, origin)
        return mask if part.covers is None else mask & part.covers(rollouts)

    return replace(part, terms=terms, covers=covers)


def _behind(origin: str, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{origin}/{name}": value for name, value in metrics.items()}
