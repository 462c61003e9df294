"""Columns that stored rollouts lack, made on the way into a verb: by a model in a checkpoint, or by annotators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from apportion import registry
from apportion.annotations import ANNOTATORS, Annotator
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from apportion.rollouts.columns import qualify
from apportion.training.measuring import Measuring, open_checkpoint

MAY_MAKE = "--annotate or --annotators may make it here"
"""What to add to the complaint about a missing column."""


class Columns:
    """Makes what is missing, and remembers who made what. Columns that are there stay as they are.

    Args:
        checkpoint: a run, one of its checkpoints, or a model; None: no model is asked.
        annotators: specs of annotators.

    Attributes:
        made: by column, who made it.

    Raises:
        InputError: one of them cannot be used, or an annotator looks at a model and there is none.
    """

    def __init__(self, checkpoint: str | None, annotators: Sequence[str]) -> None:
        self.made: dict[str, str] = {}
        self._annotators = [(spec, _annotator(spec)) for spec in annotators]
        for spec, annotator in self._annotators:
            if annotator.reads_policy and checkpoint is None:
                raise InputError(f"annotator {spec!r} looks at a model, and there is none: name one with --annotate.")
        self._measuring: Measuring | None = None if checkpoint is None else open_checkpoint(checkpoint)

    @property
    def decode(self) -> Any:
        """How the model writes tokens as text; None without a model."""
        return None if self._measuring is None else self._measuring.policy.codec("{prompt}", None).decode

    def add(self, rollouts: Rollouts, needs: Sequence[str]) -> Rollouts:
        """The rollouts with what the annotators make, and what the model can make of ``needs``."""
        result = rollouts if self._measuring is None else self._measuring.add(rollouts, needs)
        for spec, annotator in self._annotators:
            result = self._apply(spec, annotator, result)
        if self._measuring is not None:
            for name in _of_policy(needs):
                maker = None if result.has(name) else _maker_of(name)
                if maker is not None:
                    result = self._apply(maker, _annotator(maker), result)
        for name, column in result.columns.items():
            if name not in rollouts.columns and name not in self.made:
                self.made[name] = column.maker
        return result

    def said(self) -> list[str]:
        """Lines about columns that the rollouts did not bring."""
        by_maker: dict[str, list[str]] = {}
        for name, maker in self.made.items():
            by_maker.setdefault(maker, []).append(name.removeprefix("token:"))
        return [f"{', '.join(names)}: made now by {maker}, not by the sampler" for maker, names in by_maker.items()]

    def _apply(self, spec: str, annotator: Annotator, rollouts: Rollouts) -> Rollouts:
        if annotator.makes and all(rollouts.has(name) for name in annotator.makes):
            return rollouts
        policy, place, by = None, rollouts, f"annotator {spec}"
        if self._measuring is not None and annotator.reads_policy:
            measuring = self._measuring
            policy, name = measuring.policy, measuring.name
            if annotator.evaluator == "reference":
                policy, name = measuring.reference, measuring.reference_name
            place, by = measuring.readable(rollouts), f"{by} with checkpoint {name}"
        try:
            result = annotator.apply(place, policy).to(rollouts.device)
            if annotator.makes:  # one that makes nothing chooses among what is there
                result = replace(result, columns={**result.columns, **rollouts.columns})
        except MissingColumn:
            raise
        except InputError as error:
            raise InputError(f"annotator {spec!r}: {error}") from None
        for kind, spans in rollouts.spans.items():
            new = result.spans[kind]
            if not (torch.equal(new.starts, spans.starts) and torch.equal(new.ends, spans.ends)):
                raise InputError(
                    f"annotator {spec!r} marks other spans of kind {kind!r} than the rollouts bring, which are kept: "
                    "leave it out, or give rollouts without them."
                )
        self.made |= {name: by for name in result.columns if name not in rollouts.columns}
        return result


def _annotator(spec: str) -> Annotator:
    annotator = registry.build(spec, ANNOTATORS, "annotator")
    if not isinstance(annotator, Annotator):
        raise InputError(f"{spec!r} made a {type(annotator).__name__}, expected an Annotator.")
    return annotator


def _of_policy(needs: Sequence[str]) -> list[str]:
    """Needs that say by their name that the policy before the update makes them."""
    return [name for name in needs if qualify(name).startswith("token:") and name.endswith("/old")]


def _maker_of(name: str) -> str | None:
    """The registered annotator, with its default settings, that makes a column; None where there is none."""
    return next((spec for spec in ANNOTATORS if qualify(name) in map(qualify, _annotator(spec).makes)), None)
