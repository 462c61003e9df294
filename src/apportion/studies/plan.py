"""What a study runs: its arms, seeds and warm starts, and the settings and folder of every run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apportion.errors import InputError
from apportion.studies.arms import Arm, check_arms
from apportion.training.config import TrainConfig
from apportion.training.setup import Parts, set_up

OF_STEPS = ("optimizer", "learning_rate", "warmup_steps", "decay", "beta1", "beta2", "weight_decay", "max_grad_norm")
"""Settings that decide what step is taken with a gradient, and not what it is."""

APART = 1_000_000
"""From a study's first seed to its first tuning seed."""


@dataclass(frozen=True)
class Job:
    """One run: ordinary settings in an ordinary run folder.

    Attributes:
        folder: of the run.
        config: its settings.
        kind: ``train``; or ``signal``, which measures gradients and learns nothing.
    """

    folder: Path
    config: TrainConfig
    kind: str = "train"


@dataclass(frozen=True)
class Study:
    """A paired comparison of arms.

    Every arm trains from the same weights on the same prompts in the same order, once a seed. Arms that draw different
    numbers of tokens a step are compared after equally many tokens.

    Attributes:
        base: the settings all arms begin from; ``seed`` is the first of the study's seeds.
        arms: what is compared; differences are to the first.
        seeds: runs an arm for every warm start.
        warm_starts: how many warm starts; each has ``seeds`` runs of every arm.
        tune: factors of every arm's learning rate to choose among; empty: take it as it is.
        tuning_seeds: runs a factor, on seeds and warm starts that the study does not use.
        reach: accuracies; how many tokens an arm needs to get there is reported.
        signal: batches a warm start to measure each arm's gradient on; 0: none.

    Raises:
        InputError: numbers that cannot be, settings without held-out prompts, or arms that cannot be compared.
    """

    base: TrainConfig
    arms: tuple[Arm, ...]
    seeds: int = 5
    warm_starts: int = 1
    tune: tuple[float, ...] = ()
    tuning_seeds: int = 2
    reach: tuple[float, ...] = ()
    signal: int = 0

    def __post_init__(self) -> None:
        for name in ("seeds", "warm_starts", "tuning_seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1.")
        if self.seeds * self.warm_starts > APART or self.tuning_seeds > APART:
            raise InputError(f"{self.seeds} seeds for each of {self.warm_starts} warm starts are more than {APART}.")
        if any(not 0 < factor < math.inf for factor in self.tune) or len(set(self.tune)) < len(self.tune):
            raise InputError(f"tune has the factors {list(self.tune)}, expected different finite numbers above 0.")
        if len(self.tune) == 1:
            raise InputError(f"tune has the one factor {self.tune[0]}, expected several to choose among, or none.")
        if any(not 0 < accuracy <= 1 for accuracy in self.reach):
            raise InputError(f"reach has {list(self.reach)}, expected accuracies above 0, up to 1.")
        if self.signal and self.signal < 3:
            raise InputError(f"signal is {self.signal}, expected 0 or at least 3 batches to compare.")
        if not self.base.eval_prompts:
            raise InputError("eval_prompts is 0, but a study measures accuracy on held-out prompts: ask for some.")
        if not self.base.steps:
            raise InputError("steps is 0, so there is nothing to compare: ask for at least 1.")
        if self.warm_starts > 1 and self.base.warm_start is None:
            raise InputError(
                f"warm_starts is {self.warm_starts}, but these settings have no warm_start to repeat: give one, or "
                "more seeds."
            )
        check_arms(self.arms, self.base)

    @property
    def run_seeds(self) -> list[int]:
        """The study's seeds, those of the first warm start first."""
        return [self.base.seed + i for i in range(self.seeds * self.warm_starts)]

    @property
    def tuned_on(self) -> list[int]:
        """Seeds of tuning; none is the study's."""
        return [self.base.seed + APART + i for i in range(self.tuning_seeds)] if self.tune else []

    @property
    def clusters(self) -> list[int]:
        """The warm start of every seed of the study."""
        return [i // self.seeds for i in range(self.seeds * self.warm_starts)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "settings": dataclasses.asdict(self.base),
            "arms": [arm.as_dict() for arm in self.arms],
            **{name: getattr(self, name) for name in ("seeds", "warm_starts", "tuning_seeds", "signal")},
            "tune": list(self.tune),
            "reach": list(self.reach),
        }

    def fingerprint(self) -> str:
        """Eight letters that another study does not have."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:8]


class Folder:
    """The folder of a study, and the runs in it.

    Args:
        path: the folder.
        study: what it holds.
    """

    def __init__(self, path: Path, study: Study) -> None:
        self.path, self.study = path, study

    def warm_starts(self) -> list[Job]:
        """Runs of no steps, whose first checkpoint the arms begin with: the study's, then those of tuning."""
        study = self.study
        if study.base.warm_start is None:
            return []
        seeds = {f"study-{k}": study.base.seed + k for k in range(study.warm_starts)}
        if study.tune:
            seeds |= {f"tuning-{k}": study.base.seed + APART + k for k in range(self._tuning_warm_starts)}
        return [
            Job(self.path / "warm-starts" / name, self._shared(seed, steps=0, eval_prompts=0, token_budget=0))
            for name, seed in seeds.items()
        ]

    def tuning(self, arm: Arm) -> dict[float, list[Job]]:
        """Runs of an arm by the factor of its learning rate."""
        study, jobs = self.study, {}
        rate = arm.settings(study.base).learning_rate
        for factor in study.tune:
            jobs[factor] = [
                self._job(f"tuning/{self._name(arm)}/{factor}/{seed}", arm, seed, factor * rate, warm)
                for seed, warm in zip(
                    study.tuned_on,
                    (f"tuning-{i % self._tuning_warm_starts}" for i in range(study.tuning_seeds)),
                    strict=True,
                )
            ]
        return jobs

    def runs(self, arm: Arm, rate: float) -> list[Job]:
        """The study's runs of an arm, a seed each."""
        return [
            self._job(f"runs/{self._name(arm)}/{seed}", arm, seed, rate, f"study-{warm}")
            for seed, warm in zip(self.study.run_seeds, self.study.clusters, strict=True)
        ]

    def signals(self, arm: Arm) -> list[Job]:
        """Measurements of an arm's gradient, one a warm start: a run whose learning rate is 0.

        Arms that differ in the step they take with a gradient alone share them.
        """
        study = self.study
        arm = next(other for other in study.arms if _gradient_of(other) == _gradient_of(arm))
        jobs = []
        for warm in range(study.warm_starts if study.signal else 0):
            seed = study.base.seed + 2 * APART + warm
            still: dict[str, Any] = {"steps": study.signal, "token_budget": 0, "eval_prompts": 0, "max_grad_norm": 0.0}
            still |= {"epochs": 1, "minibatches": 1, "warmup_steps": 0, "weight_decay": 0.0, "save_every": study.signal}
            job = self._job(f"signal/{self._name(arm)}/{warm}", arm, seed, 0.0, f"study-{warm}")
            jobs.append(Job(job.folder, replace(job.config, **still), "signal"))
        return jobs

    @property
    def _tuning_warm_starts(self) -> int:
        return min(self.study.warm_starts, self.study.tuning_seeds)

    def _name(self, arm: Arm) -> str:
        number = [other.name for other in self.study.arms].index(arm.name)
        return f"{number}-" + re.sub(r"[^A-Za-z0-9._]+", "-", arm.name).strip("-")[:40]

    def _shared(self, seed: int, **changes: Any) -> TrainConfig:
        base = self.study.base
        tasks_seed = base.seed if base.tasks_seed is None else base.tasks_seed
        return replace(base, **{"seed": seed, "tasks_seed": tasks_seed, **changes})

    def _job(self, name: str, arm: Arm, seed: int, rate: float, warm: str) -> Job:
        config = arm.settings(self._shared(seed))
        start = None
        if config.warm_start is not None:
            checkpoint = self.path.resolve() / "warm-starts" / warm / "checkpoints" / "step_000000"
            start = f"weights(checkpoint={str(checkpoint)!r})"
        return Job(self.path / name, replace(config, learning_rate=rate, warm_start=start))


def _gradient_of(arm: Arm) -> dict[str, Any]:
    """What an arm changes of the gradient of a batch."""
    return {name: value for name, value in arm.changes.items() if name not in OF_STEPS}


def check_runnable(study: Study) -> None:
    """Build every arm, so that what it lacks shows before anything runs.

    Raises:
        InputError: an arm's settings cannot be used, it reads a column that nothing makes, there are no held-out
            prompts, or its gradient cannot be measured at one place.
    """
    for arm in study.arms:
        config = arm.settings(study.base)
        try:
            parts = set_up(config)
        except InputError as error:
            raise InputError(f"arm {arm.name!r}: {error}") from None
        _check_parts(arm, parts, study)


def _check_parts(arm: Arm, parts: Parts, study: Study) -> None:
    if not parts.held_out:
        raise InputError(
            f"the tasks {', '.join(study.base.tasks)} hold no prompts out, but a study measures accuracy on held-out "
            "prompts: hold some out, as in name(held_out=100)."
        )
    if study.signal and parts.others:
        raise InputError(
            f"arm {arm.name!r} trains other models beside the policy, whose columns change from batch to batch, so its "
            "gradient cannot be measured at one place: set signal to 0."
        )


def rates(study: Study, own: Mapping[str, float]) -> dict[str, float]:
    """The learning rate of every arm, from those of the arms that have their own.

    Example:
        >>> study = Study(TrainConfig(), (Arm("a"), Arm("b", rate_of="a", factor=2.0)))
        >>> rates(study, {"a": 0.5})
        {'a': 0.5, 'b': 1.0}
    """
    return {arm.name: own[arm.name] if arm.rate_of is None else arm.factor * own[arm.rate_of] for arm in study.arms}
