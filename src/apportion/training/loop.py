"""The training loop: sample, score, credit, update, store; again and again, resumable at any instant.

A checkpoint after step k holds everything that step k + 1 reads. Everything else a run writes after its last
checkpoint is made again, equal to the bit, by a resumed run.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch

from apportion import registry
from apportion.credit import Clock, Credit
from apportion.credit.baselines import none
from apportion.errors import InputError, RunStopped
from apportion.evals.accuracy import evaluate
from apportion.models.policy import Policy
from apportion.rollouts import Rollouts, join
from apportion.rollouts.store import write
from apportion.training.annotate import annotate
from apportion.training.checkpoints import MODEL, is_disk_full
from apportion.training.dynamic import draw_contrasting
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.metrics import batch_metrics, drawn_for
from apportion.training.recording import recording
from apportion.training.run_folder import RunFolder
from apportion.training.seeds import derive, torch_generator
from apportion.training.setup import Parts
from apportion.training.warm_start import WARM_STARTS


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, for whoever watches.

    Attributes:
        name: ``begun``, ``warming``, ``sampled``, ``credited``, ``updated``, ``stored``, ``stepped``, ``writing``,
            ``renamed``, ``evaluating``, ``evaluated``, ``finished``, or ``ended``, last of all whatever happened.
        step: steps done, or the step under way.
        values: what there is to say.
    """

    name: str
    step: int
    values: Mapping[str, Any] = field(default_factory=dict)


Observer = Callable[[Event], None]


def train(run: RunFolder, parts: Parts, observers: Sequence[Observer] = ()) -> dict[str, Any] | None:
    """Run to the end, from the newest good checkpoint if there is one.

    Args:
        run: where everything goes.
        parts: what the run is made of, from :func:`apportion.training.setup.set_up`.
        observers: told of every event; trackers, progress and tests watch here.

    Returns:
        the summary, or None when Ctrl-C stopped the run after a step (it is saved and can be resumed).

    Raises:
        RunStopped: a loss that is not finite, too many unknown rewards, samplers and trainers that disagree, or a full
            disk. Checkpoints stay good.
    """
    with _Interruption() as interruption:
        going = _Run(run, parts, observers)
        try:
            return going.go(interruption)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise RunStopped(
                f"the disk is full: {error.filename or run.path} could not be written. The checkpoints in "
                f"{run.path / 'checkpoints'} are intact; free some space and go on with --resume {run.path}."
            ) from None
        finally:
            going.tell("ended")


class _Run:
    """What a run carries from step to step."""

    def __init__(self, run: RunFolder, parts: Parts, observers: Sequence[Observer]) -> None:
        self.run, self.parts, self.config, self.observers = run, parts, parts.config, observers
        self.credit_state: Any = None
        self.step = 0
        self.seconds = 0.0
        self.tokens = 0.0
        self.reference: Policy | None = None
        self.learners: tuple[Learner, ...] = (parts.learner,)

    def go(self, interruption: _Interruption) -> dict[str, Any] | None:
        self._begin()
        started = time.monotonic() - self.seconds
        while not self._done():
            metrics = self._step()
            self.step += 1
            self.seconds = time.monotonic() - started
            self.run.append("metrics.jsonl", {"step": self.step, "seconds": self.seconds, **metrics})
            self.tell("stepped", **metrics)
            self.tokens += drawn_for(metrics)
            last = self._done()
            if last or (self.config.eval_every and self.step % self.config.eval_every == 0):
                self._evaluate()
                self.seconds = time.monotonic() - started
            if last or interruption.asked or self.step % self.config.save_every == 0:
                self._save()
            if interruption.asked and not last:
                return None
        return self._finish()

    def _done(self) -> bool:
        budget = self.config.token_budget
        return self.step >= self.config.steps or bool(budget and self.tokens >= budget)

    def _begin(self) -> None:
        """Go on from the newest good checkpoint, or start: warm up, evaluate, write the first checkpoint."""
        newest = self.run.checkpoints.newest_good()
        self.run.rewind(-1 if newest is None else newest)
        if newest is None:
            began = time.monotonic()
            self.tell("begun", resumed=False)
            if self.config.warm_start is not None:
                self._warm_start(self.config.warm_start)
            self._prepare_reference()
            self._make_learners()
            self.parts.collect.engine.refresh()
            self._evaluate()
            self.seconds = time.monotonic() - began
            self._save()
            return
        state = self.run.checkpoints.read(newest)
        if not self.run.checkpoints.is_whole(0):
            raise InputError(f"{self.run.checkpoints.path(0)} is not whole, and what the run began with: restore it.")
        self.parts.policy.load_weights(self.run.checkpoints.model(0))
        self._prepare_reference()
        self._make_learners()
        for name, learner in self._models().items():
            learner.model.load_weights(self.run.checkpoints.model(newest, name))
            learner.restore(state["learners"][learner.name])
        self.parts.curriculum.restore(state["curriculum"])
        if self.parts.stored is not None:
            self.parts.stored.restore(state["stored"])
        self.credit_state, self.step, self.seconds = state["credit"], state["step"], state["seconds"]
        self.tokens = sum(drawn_for(line) for line in self.run.lines("metrics.jsonl"))
        _restore_generators(state["generators"])
        self.parts.collect.engine.refresh()
        self.run.checkpoints.prune()
        self.tell("begun", resumed=True)

    def _prepare_reference(self) -> None:
        if "reference" in {*self.parts.wanted, *(annotator.evaluator for annotator in self.parts.annotators)}:
            self.reference = self.parts.policy.frozen_copy()

    def _make_learners(self) -> None:
        settings = UpdateSettings.of(self.config)
        others = [other.make(self.parts.policy, settings) for other in self.parts.others]
        self.learners = (self.parts.learner, *others)

    def _warm_start(self, spec: str) -> None:
        warm_start = registry.build(spec, WARM_STARTS, "warm start")
        tasks = [task for part in self.parts.curriculum.parts for task in part.train]
        seed = derive(self.config.seed, "warm start")

        def report(step: int, loss: float) -> None:
            self.tell("warming", warm_step=step, loss=loss)

        warm_start(self.parts.policy, self.parts.codec, tasks, seed, report)

    def _step(self) -> dict[str, float]:
        parts, began = self.parts, time.monotonic()
        clock = Clock(self.step, self.config.steps)
        rollouts, sampled = self._batch()
        self.tell("sampled", tokens=rollouts.n_tokens)
        rollouts, metrics = self._measure(rollouts, clock)
        credit = parts.method(rollouts, self.credit_state, clock, unscored="drop")
        self.credit_state = credit.state
        metrics |= sampled | batch_metrics(credit)
        try:
            self._refuse_bad_batch(credit, metrics)
            self.tell("credited")
            for learner in self.learners:
                if learner.order == "after":
                    metrics |= self._update(learner, credit, clock)
        except RunStopped as stop:
            failed = self.run.path / f"failed_step_{self.step + 1:06d}.arrow"
            write(credit.record(), failed)
            raise RunStopped(f"{stop} The rollouts are in {failed}.") from None
        parts.collect.engine.refresh()
        self.tell("updated")
        self.run.rollouts.write(self.step + 1, self._with_what_came_after(credit.record()))
        self.tell("stored")
        seconds = time.monotonic() - began
        return metrics | {"tokens_per_second": rollouts.n_tokens / seconds, "step_seconds": seconds}

    def _batch(self) -> tuple[Rollouts, dict[str, float]]:
        """Fresh rollouts, stored ones, or both; and what sampling has to say."""
        config, parts, together = self.config, self.parts, []
        metrics: dict[str, float] = {}
        engine = parts.engine
        tokens, responses = engine.tokens, engine.responses
        if config.resample:
            drawn, metrics = draw_contrasting(self._draw, config.prompts_per_step, 1 + config.resample)
            together.append(drawn)
        elif config.prompts_per_step:
            together.append(self._draw(0))
        if parts.stored is not None:
            together.append(parts.stored.next().to(parts.policy.device))
        metrics |= {
            "tokens_drawn": float(engine.tokens - tokens),
            "responses_drawn": float(engine.responses - responses),
        }
        return join(together), metrics

    def _draw(self, number: int) -> Rollouts:
        """One round of this step: the next prompts, and responses to them."""
        config, parts = self.config, self.parts
        tasks = parts.curriculum.next(config.prompts_per_step, self.step)
        purpose = ("sampling", self.step, number) if number else ("sampling", self.step)
        generator = torch_generator(parts.policy.device, config.seed, *purpose)
        first = (self.step * (1 + config.resample) + number) * config.prompts_per_step
        return parts.draw(tasks, config.group_size, parts.sampling, generator, first, self.step)

    def _measure(self, rollouts: Rollouts, clock: Clock) -> tuple[Rollouts, dict[str, float]]:
        """Add every column that models make; learners whose order is ``before`` learn first."""
        parts = self.parts
        metrics: dict[str, float] = {}
        models = {"old": parts.policy} | ({"reference": self.reference} if self.reference else {})
        rollouts = annotate(rollouts, models, parts.wanted, self.config.micro_batch_tokens)
        for annotator in parts.annotators:
            rollouts = annotator.apply(rollouts, models[annotator.evaluator])
        for learner in self.learners[1:]:
            if learner.order == "before":
                metrics |= self._update(learner, none()(rollouts), clock)
            rollouts = learner.annotate(rollouts)
        return rollouts, metrics

    def _with_what_came_after(self, rollouts: Rollouts) -> Rollouts:
        """The batch with the log-probs that the updated policy gives it, where these are recorded."""
        if not recording(self.config.record).after:
            return rollouts
        at_once = self.config.micro_batch_tokens
        return annotate(rollouts, {"after": self.parts.policy}, {"after": ["log_probs"]}, at_once)

    def _update(self, learner: Learner, credit: Credit, clock: Clock) -> dict[str, float]:
        values = learner.update(credit, clock)
        if learner is self.parts.learner:
            return values
        return {f"{learner.name}/{name}": value for name, value in values.items()}

    def _refuse_bad_batch(self, credit: Credit, metrics: Mapping[str, float]) -> None:
        if metrics["unknown"] > self.config.max_unscored:
            raise RunStopped(
                f"{metrics['unknown']:.0%} of the responses of step {self.step + 1} have an unknown reward"
                f"{_example_of_unknown(credit)}, expected at most {self.config.max_unscored:.0%}: mend what gives the "
                "reward or raise max_unscored."
            )
        if not metrics.get("mismatch_mean", 0.0) <= self.config.mismatch_tolerance:
            raise RunStopped(
                f"sampler and trainer disagree at step {self.step + 1}: their log-probs differ by "
                f"{metrics['mismatch_mean']:.3g} on average and {metrics['mismatch_max']:.3g} at most, expected "
                f"a mean of at most {self.config.mismatch_tolerance}: sample in a wider dtype or raise "
                "mismatch_tolerance."
            )

    def _evaluate(self) -> None:
        if not self.parts.held_out:
            return
        self.tell("evaluating")
        config, parts = self.config, self.parts
        # The same seed every time, so that before and after differ by the policy alone.
        generator = torch_generator(parts.policy.device, config.seed, "evaluation")
        result = evaluate(
            parts.collect,
            parts.held_out,
            replace(parts.sampling, record=()),
            generator,
            samples=config.eval_samples,
            ks=[k for k in (1, 4, 16, 64) if k <= config.eval_samples],
        )
        record = {"step": self.step, **result.as_dict(), "scores": dict(result.scores)}
        self.run.append("evaluations.jsonl", record)
        self.tell("evaluated", **record)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "learners": {learner.name: learner.state() for learner in self.learners},
            "curriculum": self.parts.curriculum.state(),
            "stored": None if self.parts.stored is None else self.parts.stored.state(),
            "credit": self.credit_state,
            "generators": _generators(),
        }
        models = {name: learner.model for name, learner in self._models().items()}
        self.run.checkpoints.write(self.step, models, state, during=self.tell)

    def _models(self) -> dict[str, Learner]:
        """What learns, by the folder of its weights in a checkpoint."""
        others = {f"learners/{learner.name}": learner for learner in self.learners[1:]}
        return {MODEL: self.learners[0], **others}

    def _finish(self) -> dict[str, Any]:
        evaluations = self.run.lines("evaluations.jsonl")
        summary: dict[str, Any] = {"steps": self.step, "seconds": round(self.seconds, 1)}
        if evaluations:
            for when, record in (("before", evaluations[0]), ("after", evaluations[-1])):
                for kind, estimate in (("accuracy", record["sampled"]["pass@1"]), ("greedy", record["greedy"])):
                    summary[f"{kind}.{when}"] = estimate["value"]
                    summary[f"{kind}.{when}.interval"] = [estimate["low"], estimate["high"]]
        summary["checkpoint"] = str(self.run.checkpoints.model(self.step))
        self.run.write("summary.json", summary)
        self.tell("finished", **summary)
        return summary

    def tell(self, name: str, **values: Any) -> None:
        """Say that something happened."""
        event = Event(name, self.step, values)
        for observer in self.observers:
            observer(event)


def _example_of_unknown(credit: Credit) -> str:
    """Why one of the outcomes is unknown, in brackets; nothing where it is another reward that is."""
    rollouts = credit.rollouts
    scored = rollouts.columns.get("episode:scored/outcome")
    reasons = rollouts.columns.get("episode:reason")
    if scored is None or reasons is None:
        return ""
    missing = credit.unknown & ~scored.tensor.bool()
    said = [r for r, m in zip(reasons.text, missing.tolist(), strict=True) if m and r]
    return f" (for example: {said[0]})" if said else ""


class _Interruption:
    """Ctrl-C asks the run to stop after the step under way; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _Interruption:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _generators() -> dict[str, Any]:
    """The global generators, which code of others (a verifier, a task) may draw from."""
    import random

    import numpy as np

    version, python, gauss = random.getstate()
    state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, cached = state
    return {
        "python": [version, list(python), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }


def _restore_generators(state: Mapping[str, Any]) -> None:
    import random

    import numpy as np

    version, python, gauss = state["python"]
    random.setstate((version, tuple(python), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
