"""A TRL run kept as one of ours: rollouts with their credit, metrics, settings and tokenizer in a run's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from apportion.credit import Credit
from apportion.errors import InputError
from apportion.rollouts import Rollouts, join
from apportion.training.config import TrainConfig
from apportion.training.metrics import credit_metrics
from apportion.training.run_folder import RunFolder


class Recorder(TrainerCallback):
    """Writes what a trainer samples and logs.

    A step's rollouts are written when its update is done, so a killed process leaves whole steps only. A resumed
    training goes on in the same folder, from the step it resumes at.

    Args:
        folder: of the run; new or empty, unless training is resumed.
        credit: the method's spec.
        args: of the trainer, a GRPOConfig.

    Raises:
        InputError: when training begins: the folder holds something else, or belongs to no run that could go on, or to
            one under another credit method.
    """

    def __init__(self, folder: Path, credit: str, args: Any) -> None:
        self.folder, self.credit, self.args = folder, credit, args
        self.run: RunFolder | None = None
        self._kept: list[Credit] = []
        self._line: dict[str, Any] = {}
        self._began = 0.0

    def keep(self, credit: Credit) -> None:
        """Take a credited batch of the step under way."""
        self._kept.append(credit)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Make the folder, or go on in it."""
        if not state.is_world_process_zero:
            return
        self._began = time.monotonic()
        config = self._config(given["model"], state)
        if state.global_step:
            self._go_on(config, state.global_step)
            return
        self.run = RunFolder.create(self.folder, config)
        self.run.write("trl.json", args.to_dict())
        tokenizer = given["processing_class"]
        tokenizer.save_pretrained(self.run.checkpoints.model(0))  # where readers of a run look for it

    def _go_on(self, config: TrainConfig, step: int) -> None:
        run, recorded = RunFolder.open(self.folder)
        if recorded.credit != config.credit:
            raise InputError(
                f"the record in {self.folder} is of a run under credit {recorded.credit!r}, and training goes on under "
                f"{config.credit!r}: record it in another folder, from the beginning."
            )
        run.rewind(step)
        run.write_config(config)  # it may go on for longer
        self.run = run

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write the line of the step before, to which nothing comes any more."""
        self._write_line()

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write the line of the step, so that a training resumed from this checkpoint finds it."""
        self._write_line()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write the step's rollouts."""
        if self.run is None:
            self._kept = []
            return
        self._line = {"step": state.global_step, "seconds": time.monotonic() - self._began}
        if self._kept:  # a batch that serves several steps is stored at the first
            self.run.rollouts.write(state.global_step, join([_numbered(c, i) for i, c in enumerate(self._kept)]))
            each = [_metrics(credit) for credit in self._kept]
            self._line |= {name: sum(metrics[name] for metrics in each) / len(each) for name in each[0]}
        self._kept = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **given: Any) -> None:
        """Add what the trainer logs of a step to its line, and what it says at the end to the summary."""
        if self.run is None or logs is None or any(name.startswith("eval_") for name in logs):
            return
        numbers = {k: v for k, v in logs.items() if isinstance(v, int | float) and math.isfinite(v)}
        if "train_runtime" in numbers:
            self.run.write("summary.json", {"steps": state.global_step, **numbers})
        else:
            self._line = numbers | self._line

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write the last line."""
        self._write_line()

    def _write_line(self) -> None:
        if self.run is not None and "step" in self._line:
            self.run.append("metrics.jsonl", self._line)
        self._line = {}

    def _config(self, model: Any, state: Any) -> TrainConfig:
        """TRL's settings by our names, as far as there are some."""
        args = self.args
        batch = args.generation_batch_size // args.num_generations
        return TrainConfig(
            model=model.config.name_or_path or type(model).__name__,
            tasks=("trl",),
            credit=self.credit,
            objective=(f"trl_{args.loss_type}",),
            prompts_per_step=batch,
            group_size=args.num_generations,
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            steps=state.max_steps,
            epochs=args.num_iterations,
            learning_rate=args.learning_rate,
            weight_decay=args.weight_decay,
            beta1=args.adam_beta1,
            beta2=args.adam_beta2,
            max_grad_norm=args.max_grad_norm,
            seed=args.seed,
            eval_prompts=0,
            record=(),
        )


def _metrics(credit: Credit) -> dict[str, float]:
    """What a batch has; no accuracy where rewards are on another scale than from 0 to 1."""
    reward = credit.rollouts.columns["episode:reward/outcome"].tensor[~credit.unknown]
    on_scale = bool(((reward >= 0) & (reward <= 1)).all())
    return credit_metrics(credit) | ({} if on_scale else {"accuracy": math.nan})


def _numbered(credit: Credit, part: int) -> Rollouts:
    """A batch with its credit, on the CPU, its groups numbered apart from those of other batches of the step."""
    rollouts = credit.record().to(torch.device("cpu"))
    return rollouts.with_groups(rollouts.group_ids + part * rollouts.n_groups)
