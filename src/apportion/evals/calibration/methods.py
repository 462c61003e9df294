"""Which credit methods are looked at, with which settings, and what they are to maximise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from apportion import registry
from apportion.credit import METHODS, Stage
from apportion.errors import InputError, unknown_name
from apportion.evals.calibration import plants
from apportion.evals.calibration.estimators import TEXTBOOK
from apportion.evals.calibration.forks import Forks
from apportion.evals.calibration.plants import FRESH, KL_COEFFICIENT, PLANTS, Garden, divergence_reward

Goal = Callable[[Garden], Tensor]
"""The rewards of edges ``[K]`` that a method is to maximise."""


@dataclass(frozen=True)
class Entry:
    """A method with settings.

    Attributes:
        spec: as for ``apportion credit``.
        goal: its own objective, where that is not the world's reward.
        aims: that objective in words.
        fresh: continuations it draws from every state that a token is drawn at, beside the response itself.
        pictured: it has a row in the picture.
        forks: where its responses branch, if they do.
    """

    spec: str
    goal: Goal | None = None
    aims: str = "the return"
    fresh: int = 0
    pictured: bool = True
    forks: Forks | None = None

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"{self.spec} {self.forks.words}" if self.forks else self.spec

    @property
    def method(self) -> str:
        """The name before the bracket."""
        return registry.parse(self.spec).name

    @property
    def stage(self) -> Stage:
        """The method itself."""
        stage = registry.build(self.spec, {**METHODS, **TEXTBOOK}, "credit method")
        if not isinstance(stage, Stage):
            raise InputError(f"{self.spec!r} made a {type(stage).__name__}, expected a credit.Stage.")
        return stage

    @property
    def annotated(self) -> bool:
        """Whether something that may err is planted for it."""
        return any(PLANTS[name].noisy for name in self.stage.needs if name in PLANTS)

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who makes what is planted for it, in a run."""
        found = [PLANTS[name].who for name in self.stage.needs if name in PLANTS and PLANTS[name].noisy]
        return tuple(dict.fromkeys(found))


def _less_divergence(coefficient: float) -> Goal:
    return lambda garden: garden.tree.reward + divergence_reward(garden, coefficient)


def _held(multiplier: float) -> Goal:
    """Constrained RLHF's reward at its first multiplier."""
    return lambda garden: multiplier * garden.tree.reward + (1 - multiplier) * divergence_reward(garden, KL_COEFFICIENT)


FIRST = 1 / (1 + math.exp(-2.0))
"""Constrained RLHF's multiplier when it starts at 2: the reward counts for more than the divergence."""
PENALISED = "the return less the divergence"
MIXED = "the return and the divergence at the multiplier"

ONCE = Forks(children=1, everywhere=False, weigh=True, words="on forks")
EVERYWHERE = Forks(children=2, everywhere=True, weigh=False, words="on forks at every token")


SETTINGS: dict[str, tuple[Entry, ...]] = {
    "grpo": (Entry("grpo"), Entry("grpo(norm_by_std=False)", pictured=False)),
    "reinforce_pp": (
        Entry("reinforce_pp"),
        Entry("reinforce_pp(whiten=False)"),
        Entry("reinforce_pp(gamma=0.9, whiten=False)", pictured=False),
        Entry("reinforce_pp(whiten=False, kl_coefficient=0.1)", _less_divergence(0.1), PENALISED, pictured=False),
    ),
    "reinforce_pp_baseline": (
        Entry("reinforce_pp_baseline"),
        Entry("reinforce_pp_baseline(whiten=False)", pictured=False),
    ),
    "nsr": (Entry("nsr"), Entry("nsr(mode='psr')", pictured=False), Entry("nsr(mode='weighted')", pictured=False)),
    "loop": (
        Entry("loop"),
        Entry("loop(min_abs_advantage=0.0)", pictured=False),
        Entry("loop(baseline='leave_none_out', min_abs_advantage=0.0)", pictured=False),
        Entry("loop(normalize=True, min_abs_advantage=0.0)", pictured=False),
    ),
    "tempo": (Entry("tempo"), Entry("tempo(norm_by_std=False)")),
    "tree": (
        Entry("tree", pictured=False),
        Entry("tree", forks=ONCE),
        Entry("tree(backup='leaves')", pictured=False, forks=ONCE),
    ),
    "tree_td": (Entry("tree_td", pictured=False), Entry("tree_td", forks=ONCE)),
    "tree_shrunk": (Entry("tree_shrunk", pictured=False), Entry("tree_shrunk", forks=ONCE)),
    "vine": (Entry("vine", pictured=False), Entry("vine", forks=EVERYWHERE)),
    "gae": (
        Entry("gae"),
        Entry("gae(whiten=False)"),
        Entry("gae(lam=0.95, whiten=False)", pictured=False),
        Entry("gae(lam=0.0, whiten=False)"),
        Entry("gae(lam=0.0, whiten=False, head='fresh')", fresh=FRESH),
    ),
    "constrained_rlhf": (
        Entry("constrained_rlhf(start=2.0)", _held(FIRST), MIXED),
        Entry("constrained_rlhf(start=2.0, gamma=1.0, lam=1.0, whiten=False)", _held(FIRST), MIXED, pictured=False),
    ),
    "pure": (Entry("pure"), Entry("pure(transform='sum', whiten=False)", pictured=False)),
    "capo": (Entry("capo"), Entry("capo(vote='majority')", pictured=False)),
    "gigpo": (Entry("gigpo"), Entry("gigpo(gamma=1.0, step_weight=0.0)", pictured=False)),
    "calm": (
        Entry("calm"),
        Entry("calm(gamma=1.0, potential=True)"),
        Entry("calm(gamma=1.0, bonus=0.0, place='state')", pictured=False),
    ),
    "sotopia_rl": (Entry("sotopia_rl(dimensions=('outcome',))"),),
    "edu_align": (
        Entry("edu_align(components=('outcome',), low=-2, high=3)"),
        Entry("edu_align(components=('outcome',), low=-2, high=3, norm_by_std=False)", pictured=False),
    ),
    "ma_rlhf": (
        Entry("ma_rlhf(kl_coefficient=0.0, score_clamp=None)"),
        Entry("ma_rlhf(lam=1.0, kl_coefficient=0.0, score_clamp=None)", pictured=False),
    ),
    "token_dpo": (Entry(f"token_dpo(beta={plants.BETA})"),),
    "lare": (Entry("lare"), Entry("lare(baseline='batch')", pictured=False)),
    "turn_index": (Entry("turn_index"), Entry("turn_index(leave_one_out=True)", pictured=False)),
}
"""By method, the settings that are looked at; a method that is not listed has its defaults."""


def entries(methods: Sequence[str] = ()) -> list[Entry]:
    """The settings of some methods, by name or as specs; of all that are registered, and the textbook's, by default.

    Raises:
        InputError: a method that does not exist.
    """
    if not methods:
        return [entry for name in (*METHODS, *TEXTBOOK) for entry in SETTINGS.get(name, (Entry(name),))]
    result: list[Entry] = []
    for spec in methods:
        bare = registry.parse(spec).name == spec.strip()
        if bare and ":" not in spec and spec not in METHODS and spec not in TEXTBOOK:
            raise unknown_name("credit method", spec, (*METHODS, *TEXTBOOK))
        result += SETTINGS.get(spec, (Entry(spec),)) if bare else [_known(spec)]
    for entry in result:
        _ = entry.stage
    return result


def _known(spec: str) -> Entry:
    """A spec as it is listed, with its goal, where it is."""
    every = {entry.spec: entry for listed in SETTINGS.values() for entry in listed}
    return every.get(spec.strip(), Entry(spec))
