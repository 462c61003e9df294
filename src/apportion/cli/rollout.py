"""Sample and score responses into a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from apportion.cli.arguments import parse
from apportion.cli.output import check_new_file
from apportion.cli.source import open_policy
from apportion.errors import InputError
from apportion.models.policy import Policy
from apportion.rewards.pairing import pair_by_reward
from apportion.rollouts import Rollouts, join
from apportion.rollouts.store import write
from apportion.training.annotate import annotate
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
    part: str = "train"
    """Which part of the tasks: train or held_out."""
    prompts: int = 64
    """How many prompts."""
    group_size: int = 8
    """Responses a prompt."""
    max_new_tokens: int | None = None
    """Longest response, in tokens; default: the run's, or 64."""
    temperature: float = 1.0
    """Sampling temperature."""
    only_right: bool = False
    """Keep only responses of full reward, as a set to rehearse."""
    pairs: bool = False
    """Pair better with worse responses to the same prompt, as a set of preferences."""
    reference: bool = False
    """Store this model's log-probs as log_probs/reference, so that training needs no reference model."""
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
    check_new_file(arguments.out)
    if arguments.part not in ("held_out", "train"):
        raise InputError(f"part is {arguments.part!r}, expected held_out or train.")
    if arguments.prompts < 1 or arguments.group_size < 1:
        raise InputError(
            f"got --prompts {arguments.prompts} and --group-size {arguments.group_size}, expected both at least 1."
        )
    opened = open_policy(argv[0], arguments.tasks, arguments.verifier, arguments.max_new_tokens)
    tasks = (opened.held_out if arguments.part == "held_out" else opened.train)[: arguments.prompts]
    if not tasks:
        raise InputError(f"these tasks have no {arguments.part} part: choose the other with --part.")
    settings = replace(opened.sampling, temperature=arguments.temperature)
    generator = torch_generator(opened.device, arguments.seed, "rollout")
    console, parts = Console(stderr=True), []
    starts = range(0, len(tasks), 16)
    for start in track(starts, "sampling", console=console, disable=not console.is_terminal):
        some = tasks[start : start + 16]
        parts.append(opened.collect(some, arguments.group_size, settings, generator, first_group=start))
    rollouts = _prepare(join(parts), arguments, opened.policy)
    write(rollouts, arguments.out)
    known = rollouts.column("episode:scored/outcome").bool()
    reward = rollouts.column("episode:reward/outcome")[known]
    mean = f"mean reward {float(reward.mean()):.3f}" if len(reward) else "no verdicts"
    print(f"{rollouts.n_responses} responses to {len(tasks)} prompts in {arguments.out}: {mean}")
    return 0


def _prepare(rollouts: Rollouts, arguments: Arguments, policy: Policy) -> Rollouts:
    if arguments.only_right:
        right = rollouts.column("episode:scored/outcome").bool() & (rollouts.column("episode:reward/outcome") >= 1)
        if not bool(right.any()):
            raise InputError("no response is right, so --only-right leaves nothing: ask more prompts or easier ones.")
        rollouts = rollouts.select(right)
    if arguments.pairs:
        rollouts = pair_by_reward(rollouts)
        if rollouts.pairs is None or not len(rollouts.pairs.preferred):
            raise InputError("no group has responses of different reward, so there are no pairs: ask more prompts.")
    if arguments.reference:
        rollouts = annotate(rollouts, {"reference": policy}, {"reference": ["log_probs"]}, max_tokens=1 << 14)
    return rollouts
