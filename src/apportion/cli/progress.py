"""Long work as it goes by: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from apportion.training.loop import Event
from apportion.training.setup import Parts


class TrainingProgress:
    """Prints a run's events.

    Args:
        console: where to.
        parts: what is running.
        run: its folder.
    """

    def __init__(self, console: Console, parts: Parts, run: Path) -> None:
        self.console, self.parts, self.run = console, parts, run
        self.live = console.is_terminal
        self.steps = parts.config.steps
        self._said = 0.0
        self._first = True
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event.name}", None)
        if handler is not None:
            handler(event)

    def _on_begun(self, event: Event) -> None:
        config, policy = self.parts.config, self.parts.policy
        count = sum(p.numel() for _, p in policy.named_parameters())
        verb = f"going on after step {event.step}" if event.values["resumed"] else "new run"
        self._print(f"{verb} in {self.run}")
        self._print(f"  model      {config.model}: {count:,} trained parameters in {config.dtype} on {policy.device}")
        if self.parts.unshared is not None:
            self._print(f"  prefixes   computed for every response by itself: {self.parts.unshared}")
        asked = config.environment or ", ".join(config.tasks)
        self._print(f"  tasks      {asked}: {len(self.parts.held_out)} held-out prompts")
        self._print(f"  credit     {config.credit}, objective {' + '.join(config.objective)}")

    def _on_warming(self, event: Event) -> None:
        self._show("warm start", event.values["warm_step"], None, f"loss {event.values['loss']:.3f}")

    def _on_evaluating(self, event: Event) -> None:
        self._stop()

    def _on_evaluated(self, event: Event) -> None:
        sampled, greedy = event.values["sampled"]["pass@1"], event.values["greedy"]
        self._print(
            f"after step {event.step}: held-out accuracy {_interval(sampled)} sampled, {_interval(greedy)} greedy"
        )

    def _on_stepped(self, event: Event) -> None:
        v = event.values
        if self._first and "mismatch_max" in v:
            self._first = False
            self._print(
                f"largest difference between the sampler's and the trainer's log-probs: {v['mismatch_max']:.2e} "
                f"(mean {v['mismatch_mean']:.2e}, refused above {self.parts.config.mismatch_tolerance:g})"
            )
        figures = (
            f"reward {v['reward']:.3f}  accuracy {v['accuracy']:.3f}  mixed groups {v['groups_mixed']:.0%}  "
            f"{v['tokens_per_second']:.0f} tokens/s"
        )
        if v.get("truncated", 0.0) >= 0.1:
            figures += f"  {v['truncated']:.0%} cut short"
        self._show("training", event.step, self.steps, figures)

    def _on_finished(self, event: Event) -> None:
        self._stop()

    def _show(self, what: str, done: int, total: int | None, figures: str) -> None:
        if self.live:
            if self._task is None or self._bar.tasks[self._task].description != what:
                self._stop()
                self._task = self._bar.add_task(what, total=total or 300, completed=done, figures=figures)
                self._bar.start()
            self._bar.update(self._task, completed=done, figures=figures)
            return
        now = time.monotonic()
        if now - self._said > 5 or done in (1, total):
            self._said = now
            self._print(f"{what} {done}{f'/{total}' if total else ''}  {figures}")

    def _stop(self) -> None:
        if self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


class Counted:
    """Progress of work that is counted: a bar on a terminal, else a line whenever what is done changes.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console, self._last = console, ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> Counted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """So much is done; of ``what``, the part before a colon makes a new line."""
        if self.console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task(what, total=total)
                self._bar.start()
            self._bar.update(self._task, description=what, completed=done, total=total)
            return
        where = what.partition(":")[0]
        if where != self._last:
            self._last = where
            self.console.print(f"{done}/{total}  {where}", highlight=False, markup=False, soft_wrap=True)
