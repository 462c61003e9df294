"""The whole calibration: every method in every world, at several group sizes, with annotations right and wrong."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from apportion.credit import Bias
from apportion.errors import InputError
from apportion.evals.calibration import groups, plants
from apportion.evals.calibration.forks import Forks, forked
from apportion.evals.calibration.groups import Groups
from apportion.evals.calibration.measure import Measured, measure
from apportion.evals.calibration.methods import Entry
from apportion.evals.calibration.plants import Garden
from apportion.evals.calibration.worlds import World


@dataclass(frozen=True)
class Settings:
    """How thoroughly to look.

    Attributes:
        sizes: of groups.
        noise: of annotations, 0 and up to 1, see :mod:`~apportion.evals.calibration.plants`.
        listed: up to so many different groups are listed, each with its probability; more are sampled.
        sampled: groups sampled in the other case.
        batch: groups of a batch, for methods whose credit of a group depends on others.
        batches: how many such batches.
        repeats: independent parts that sampled groups are divided into.
        forests: trees drawn a fork rule.
        seed: of samples and of the errors of annotations.
    """

    sizes: tuple[int, ...] = (4, 8, 16)
    noise: tuple[float, ...] = (0.0, 0.5)
    listed: int = 7000
    sampled: int = 4096
    batch: int = 4
    batches: int = 120
    repeats: int = 64
    forests: int = 8000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or any(size < 2 for size in self.sizes):
            raise InputError(f"group sizes are {list(self.sizes)}, expected some of at least 2: there must be others.")
        if not self.noise or any(not 0 <= noise <= 1 for noise in self.noise):
            raise InputError(f"noise is {list(self.noise)}, expected some from 0 to 1.")


QUICK = Settings(sizes=(4, 16), listed=1000, sampled=1024, batches=48, forests=2000)
"""Under a minute, in the worlds of :data:`QUICK_WORLDS`."""

QUICK_WORLDS = ("shared_prefixes", "unique_nonce", "graded_outcome", "dense_rewards", "stopping", "random_transitions")


@dataclass(frozen=True)
class Row:
    """A method in a world.

    Attributes:
        spec: the method, and where its responses branch.
        world: name.
        size: of groups.
        noise: of what is planted for it; None where nothing that may err is.
        bias: what the method claims.
        cost: rollouts drawn for every response that is credited, itself included.
        measured: figures; None where it cannot run.
        reason: why it cannot.
    """

    spec: str
    world: str
    size: int
    noise: float | None
    bias: Bias
    cost: float
    measured: Measured | None
    reason: str = ""


Progress = Callable[[str, int, int], None]
"""Told what is looked at, how many are done and how many there are."""


def calibrate(
    entries: Sequence[Entry],
    worlds: Mapping[str, Callable[[], World]],
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Every method in every world.

    All methods see the same groups of a world. One that refuses a world (its rewards are not 0 and 1, say), or needs
    what cannot be planted, has its reason in its rows.

    Args:
        entries: methods with settings.
        worlds: by name.
        settings: how thoroughly.
        progress: told before every method.
    """
    settings = settings or Settings()
    rows: list[Row] = []
    done, total = 0, len(entries) * len(worlds) * len(settings.sizes)
    for name, builder in worlds.items():
        world = builder()
        for size in settings.sizes:
            drawn = _Drawn(world, name, size, settings)
            for entry in entries:
                if progress is not None:
                    progress(f"{name}, groups of {size}: {entry.label}", done, total)
                done += 1
                for noise in settings.noise if entry.annotated else (None,):
                    rows.append(_row(entry, world, name, noise, drawn, settings))
    return rows


class _Drawn:
    """Groups of a world, drawn when they are first asked for."""

    def __init__(self, world: World, name: str, size: int, settings: Settings) -> None:
        self.world, self.name, self.size, self.settings = world, name, size, settings
        self._made: dict[str, Groups] = {}

    def _generator(self, what: str) -> torch.Generator:
        text = f"{self.name} {self.size} {what}"
        return torch.Generator().manual_seed(self.settings.seed * 1_000_003 + zlib.crc32(text.encode()))

    def get(self, alone: bool, anew: bool) -> Groups:
        """Groups for a method that credits each by itself, or not; ``anew``: some of its columns are drawn."""
        tree, settings = self.world.tree, self.settings
        if alone and not anew and groups.count(tree, self.size) <= settings.listed:
            if "listed" not in self._made:
                self._made["listed"] = groups.listed(tree, self.size)
            return self._made["listed"]
        what, count = ("alone", settings.sampled) if alone else ("together", settings.batch * settings.batches)
        if what not in self._made:
            self._made[what] = groups.sampled(tree, self.size, count, self._generator(what))
        return self._made[what]

    def forked(self, forks: Forks, alone: bool) -> Groups:
        """Groups that branch; fewer where they are large."""
        settings, what = self.settings, f"{forks.words} {alone}"
        if what not in self._made:
            count = settings.sampled if alone else settings.batch * settings.batches
            if alone and forks.everywhere:
                count = max(count // 4, settings.repeats)
            self._made[what] = forked(self.world.tree, self.size, count, forks, self._generator(what))
        return self._made[what]


def _row(entry: Entry, world: World, name: str, noise: float | None, drawn: _Drawn, settings: Settings) -> Row:
    stage = entry.stage
    tree = world.tree
    decisions = float((tree.reach[tree.state] * tree.probability)[tree.decides].sum())
    row = Row(entry.label, name, drawn.size, noise, stage.bias, 1 + entry.fresh * decisions, None)
    absent = plants.missing(stage.needs)
    if absent:
        return replace(row, reason=f"nothing here can plant {', '.join(absent)}")
    garden = Garden(world, noise or 0.0, settings.seed)
    try:
        chosen = (
            drawn.forked(entry.forks, stage.by_group) if entry.forks else drawn.get(stage.by_group, entry.fresh > 0)
        )
        measured = measure(
            stage,
            tree,
            plants.planted(garden, stage.needs),
            chosen,
            settings.repeats if stage.by_group else settings.batches,
            entry.goal(garden) if entry.goal else None,
            plants.fresh_values(tree, settings.seed, entry.fresh) if entry.fresh else None,
        )
    except InputError as refused:
        return replace(row, reason=str(refused))
    return replace(row, measured=measured)
