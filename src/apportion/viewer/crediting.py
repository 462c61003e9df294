"""Credit to look at: as a run stored it, and as other methods would have given it to the same rollouts."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from apportion import credit as credits
from apportion.credit import Clock, Credit, Stage, trace
from apportion.errors import ApportionError, InputError
from apportion.rollouts import Column, Rollouts
from apportion.rollouts.columns import split_name
from apportion.viewer.source import Source

STORED = "stored"
"""The name under which the credit that the rollouts bring is asked for."""

ADVANTAGES = "token:credit/advantages"

FIRST = ("grpo", "tempo")
"""Methods shown beside stored credit where nobody asked for others."""

KEPT_TOKENS = 20_000_000
"""Tokens of credit kept in memory at most, and always the one made last."""


class Methods:
    """The methods a viewer offers: registered ones, and those named when it was started.

    A name out of a browser is only ever looked up here, never imported.

    Args:
        specs: further specs, such as ``tempo(norm_by_std=False)`` or ``package.module:name``.

    Raises:
        InputError: one of them cannot be used.

    Example:
        >>> offered = Methods(["tempo(norm_by_std=False)"])
        >>> "grpo" in offered.stages, "tempo(norm_by_std=False)" in offered.stages
        (True, True)
    """

    def __init__(self, specs: Sequence[str] = ()) -> None:
        self.asked = tuple(specs)
        self.stages: dict[str, Stage] = {spec: _built(spec) for spec in specs}
        self.refused: dict[str, str] = {}
        for name in credits.METHODS:
            if name in self.stages:
                continue
            try:
                self.stages[name] = credits.build(name)
            except InputError as error:
                self.refused[name] = str(error)
        self._kept: OrderedDict[tuple[Any, ...], Credit] = OrderedDict()
        self._lock = threading.Lock()

    def stage(self, spec: str) -> Stage:
        """A method on offer.

        Raises:
            InputError: it is not.
        """
        if spec not in self.stages:
            raise InputError(
                f"{spec!r} is not among the methods of this viewer: name it with --credit when starting the viewer."
            )
        return self.stages[spec]

    def offer(self, rollouts: Rollouts, stored_as: str | None) -> list[dict[str, Any]]:
        """Every method with its claim, and where it cannot be used on these rollouts, why.

        Args:
            rollouts: of the run.
            stored_as: the method whose credit the rollouts bring, where that is known.
        """
        found: list[dict[str, Any]] = []
        if ADVANTAGES in rollouts.columns:
            label = "as stored" if stored_as is None else f"as stored ({stored_as})"
            found.append({"credit": STORED, "label": label, "missing": [], "bias": None})
        for spec, stage in self.stages.items():
            missing = [name for name in stage.needs if not rollouts.has(name)]
            found.append({"credit": spec, "label": spec, "missing": missing, "bias": str(stage.bias)})
        return found

    def defaults(self, rollouts: Rollouts) -> list[str]:
        """What to show first: stored credit, then what was asked for, then GRPO and TEMPO, where they can be used."""
        wanted = [*([STORED] if ADVANTAGES in rollouts.columns else []), *self.asked, *FIRST]
        usable = [w for w in wanted if w == STORED or all(rollouts.has(n) for n in self.stages[w].needs)]
        return list(dict.fromkeys(usable))

    def credit(self, source: Source, part: int, spec: str, group: int) -> Credit:
        """The credit of one group of a part under a method and its stages, equal to crediting the whole part.

        Stored credit has stages where the method is on offer and gives these rollouts the same again.

        Args:
            source: of the rollouts.
            part: a step of it.
            spec: a method on offer, or :data:`STORED`.
            group: id of the group.

        Raises:
            InputError: the method cannot be used on these rollouts, or it failed.
        """
        rollouts = source.read(part)
        members = rollouts.group_ids == group
        if spec == STORED:
            return self._with_stages(stored(rollouts.select(members)), source, part, group)
        stage = self.stage(spec)
        if stage.by_group:
            with trace.recording():
                return _given(spec, stage, rollouts.select(members), source.clock(part))
        return self.whole(source, part, spec, stages=True).select(members)

    def _with_stages(self, given: Credit, source: Source, part: int, group: int) -> Credit:
        """Stored credit with the stages of the method that made it, as far as they can be told from the rollouts."""
        spec = stored_as(source)
        if spec is None or spec not in self.stages:
            return given
        try:
            again = self.credit(source, part, spec, group)
        except InputError:  # the run had columns or a state that its store does not bring
            return given
        if not torch.allclose(again.advantages.double(), given.advantages.double(), atol=1e-5):
            return given
        stages = {name: column for name, column in again.columns.items() if trace.is_stage(name)}
        return replace(given, columns={**given.columns, **stages})

    def whole(self, source: Source, part: int, spec: str, stages: bool = False) -> Credit:
        """The credit of a whole part, kept for the next call.

        Args:
            source: of the rollouts.
            part: a step of it.
            spec: a method on offer, or :data:`STORED`.
            stages: with what every stage made.

        Raises:
            InputError: the method cannot be used on these rollouts, or it failed.
        """
        rollouts = source.read(part)
        if spec == STORED:
            return stored(rollouts)
        key = (source.path, part, source.stamp(part), spec, stages)
        with self._lock, trace.recording() if stages else contextlib.nullcontext():
            if key not in self._kept:
                self._kept[key] = _given(spec, self.stage(spec), rollouts, source.clock(part))
                while len(self._kept) > 1 and sum(len(c.advantages) for c in self._kept.values()) > KEPT_TOKENS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def _built(spec: str) -> Stage:
    """What a spec names; code that somebody else wrote may fail in any way."""
    try:
        return credits.build(spec)
    except ApportionError:
        raise
    except Exception as error:
        raise InputError(f"the credit method {spec} cannot be made ({_said(error)}): mend it.") from error


def _given(spec: str, stage: Stage, rollouts: Rollouts, clock: Clock | None) -> Credit:
    """Credit under a method; code that somebody else wrote may fail in any way."""
    try:
        credit: Credit = stage(rollouts, None, clock, "drop")
    except ApportionError:
        raise
    except Exception as error:
        raise InputError(f"the credit method {spec} failed ({_said(error)}): mend it, or choose another.") from error
    return credit


def _said(error: Exception) -> str:
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def stored_as(source: Source) -> str | None:
    """The method whose credit a run stored."""
    try:
        method = source.config().get("credit")
    except ApportionError:
        return None
    return method if isinstance(method, str) else None


def stored(rollouts: Rollouts) -> Credit:
    """The credit that rollouts bring.

    Raises:
        InputError: they bring none.
    """
    if ADVANTAGES not in rollouts.columns:
        raise InputError("these rollouts bring no credit: choose a method.")
    trained, counted = (_mask(rollouts, f"token:credit/{name}") for name in ("trained", "counted"))
    shown = (ADVANTAGES, "token:credit/trained", "token:credit/counted")
    columns = {name: column for name, column in rollouts.columns.items() if split_name(name)[1].startswith("credit/")}
    details = {name: column for name, column in columns.items() if name not in shown}
    unknown = torch.zeros(rollouts.n_episodes, dtype=torch.bool)
    return Credit(rollouts, _filled(rollouts.columns[ADVANTAGES]), trained, counted, details, None, unknown)


def _mask(rollouts: Rollouts, name: str) -> Tensor:
    column = rollouts.columns.get(name)
    return rollouts.trained if column is None else column.tensor.bool()


def _filled(column: Column) -> Tensor:
    """Advantages; a token without one has none to show, which is 0 as in every method."""
    return column.tensor if column.present is None else torch.where(column.present, column.tensor, 0.0)
