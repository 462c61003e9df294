"""Sample and score responses into a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from apportion.cli.arguments import parse
from apportion.cli.source import open_policy
from apportion.errors import InputError
from apportion.rollouts import join
from apportion.rollouts.store import write
from apportion.training.seeds import torch_generator


@dataclass(frozen=True)
class Arguments:
    """Sample and score: apportion rollout MODEL_OR_RUN --out FILE [--tasks SPEC] [--prompts N] [--group-size G]."""

    out: Path | None = None
    """File to write: .jsonl or .arrow."""
    tasks: tuple[str, ...] = ()
    """Task sources; default: those of the run."""
    verifier: str | None = None
    """What checks answers; default: the run's, or each source's own."""
    part: str = "held_out"
    """Which part of the tasks: held_out or train."""
    prompts: int = 64
    """How many prompts."""
    group_size: int = 8
    """Responses a prompt."""
    max_new_tokens: int | None = None
    """Longest response, in tokens; default: the run's, or 64."""
    temperature: float = 1.0
    """Sampling temperature."""
    seed: int = 0
    """Everything random follows from it."""


def main(argv: Sequence[str]) -> int:
    """``apportion rollout``"""
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] in ("-h", "--help"):
            parse(Arguments, argv, "apportion rollout")
        raise InputError("rollout needs a model or a run: apportion rollout MODEL_OR_RUN --out FILE.")
    arguments = parse(Arguments, argv[1:], "apportion rollout")
    if arguments.out is None:
        raise InputError("rollout needs --out FILE, ending in .jsonl or .arrow.")
    if arguments.out.exists():
        raise InputError(f"{arguments.out} exists already: choose another file.")
    if arguments.part not in ("held_out", "train"):
        raise InputError(f"part is {arguments.part!r}, expected held_out or train.")
    opened = open_policy(argv[0], arguments.tasks, arguments.verifier, arguments.max_new_tokens)
    tasks = (opened.held_out if arguments.part == "held_out" else opened.train)[: arguments.prompts]
    if not tasks:
        raise InputError(f"these tasks have no {arguments.part} part: choose the other with --part.")
    settings = replace(opened.sampling, temperature=arguments.temperature)
    generator = torch_generator("cpu", arguments.seed, "rollout")
    console, parts = Console(stderr=True), []
    starts = range(0, len(tasks), 16)
    for start in track(starts, "sampling", console=console, disable=not console.is_terminal):
        some = tasks[start : start + 16]
        parts.append(opened.collect(some, arguments.group_size, settings, generator, first_group=start))
    rollouts = join(parts)
    write(rollouts, arguments.out)
    known = rollouts.column("episode:scored/outcome").bool()
    reward = rollouts.column("episode:reward/outcome")[known]
    mean = f"mean reward {float(reward.mean()):.3f}" if len(reward) else "no verdicts"
    print(f"{rollouts.n_responses} responses to {len(tasks)} prompts in {arguments.out}: {mean}")
    return 0
