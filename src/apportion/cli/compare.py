"""Credit the same rollouts under several methods: how far they agree, and the tokens where they do not."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from apportion import credit as credits
from apportion import registry
from apportion.cli.arguments import parse
from apportion.cli.columns import MAY_MAKE, Columns
from apportion.cli.compared import Compared, as_record, report
from apportion.cli.context import Decode, context_of, decoder_of
from apportion.credit import Clock, Stage
from apportion.credit.agreement import Agreement, disagreement, standardised
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.store import read
from apportion.training.run_folder import RunFolder


@dataclass(frozen=True)
class Arguments:
    """Compare credit methods on the same rollouts: apportion compare RUN --credit a,b,c.

    RUN is the folder of a run, whose stored steps are taken one by one, or a file of rollouts. Compared are trained
    tokens of episodes that every method covers and whose rewards are known.
    """

    credit: str = ""
    """Credit methods, separated by commas."""
    steps: str | None = None
    """Stored steps of the run: one, or from:to, both included and either left out; default: all."""
    top: int = 10
    """Tokens of largest disagreement to show, at most one a response."""
    annotate: str | None = None
    """Make missing columns the methods need with the model in this checkpoint: a run, a checkpoint of it, or a model.
    Columns that are there stay."""
    annotators: tuple[str, ...] = ()
    """Make further columns before, as partial_sums does."""
    skip_missing: bool = False
    """Leave out methods that need a column the rollouts lack, instead of stopping."""
    json: bool = False
    """Print everything as JSON."""


@dataclass(frozen=True, eq=False)
class Source:
    """Rollouts in parts.

    Attributes:
        name: what the user calls them.
        steps: of training, one a part; None: of no run.
        read: a part by its step.
        clock: that of a step; None: there is none.
        decode: gives what writes tokens as text; None where nothing here can tell.
    """

    name: str
    steps: tuple[int | None, ...]
    read: Callable[[int | None], Rollouts]
    clock: Callable[[int | None], Clock | None]
    decode: Callable[[], Decode | None]


def main(argv: Sequence[str]) -> int:
    """``apportion compare``"""
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] in ("-h", "--help"):
            parse(Arguments, argv, "apportion compare")
        raise InputError("compare needs a run or a file of rollouts: apportion compare RUN --credit a,b,c.")
    arguments = parse(Arguments, argv[1:], "apportion compare")
    methods = _methods(arguments.credit)
    if arguments.top < 0:
        raise InputError(f"--top is {arguments.top}, expected 0 or more.")
    source = _open(Path(argv[0]), arguments.steps)
    columns = Columns(arguments.annotate, arguments.annotators)
    compared = compare(source, methods, columns, arguments.top, arguments.skip_missing)
    if arguments.json:
        print(json.dumps(as_record(compared, columns)))
    else:
        report(compared, columns)
    return 0


def _methods(specs: str) -> dict[str, Stage]:
    names = registry.split(specs) if specs.strip() else []
    if len(names) < 2:
        given = f"names {names[0]} alone" if names else "names no method"
        raise InputError(f"--credit {given}, expected at least two to compare: --credit a,b.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"--credit names {twice[0]} more than once, expected different methods.")
    return {name: credits.build(name) for name in names}


def _open(path: Path, steps: str | None) -> Source:
    """The run or the file that a path names.

    Raises:
        InputError: neither is there, it has no rollouts, or none of the steps asked for.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give the folder of a run, or a file of rollouts.")
    if not path.is_dir():
        if steps is not None:
            raise InputError(f"--steps chooses stored steps of a run, and {path} is a file: leave it out.")
        return Source(str(path), (None,), lambda step: read(path), lambda step: None, lambda: None)
    run, config = RunFolder.open(path)
    stored = run.rollouts.steps()
    if not stored:
        raise InputError(f"{path} has no stored rollouts: let it do a step first.")
    first, last = _range(steps) if steps is not None else (stored[0], stored[-1])
    chosen = tuple(step for step in stored if first <= step <= last)
    if not chosen:
        raise InputError(f"{path} has stored steps {stored[0]} to {stored[-1]}, none of them in --steps {steps}.")

    def clock(step: int | None) -> Clock | None:
        return None if step is None else Clock(step - 1, max(config.steps, step))

    def of_step(step: int | None) -> Rollouts:
        assert step is not None
        return run.rollouts.read(step)

    return Source(str(path), chosen, of_step, clock, lambda: decoder_of(run, config))


def _range(steps: str) -> tuple[float, float]:
    first, colon, last = steps.partition(":")
    bounds = [text.strip() for text in (first, last if colon else first)]
    if any(text and not text.isdecimal() for text in bounds) or not any(bounds):
        raise InputError(f"--steps is {steps!r}, expected a step such as 12, or a range such as 10:20, 10: or :20.")
    low, high = int(bounds[0] or 0), int(bounds[1]) if bounds[1] else math.inf
    if low > high:
        raise InputError(f"--steps is {steps!r}, which ends before it begins: write {bounds[1]}:{bounds[0]}.")
    return low, high


def compare(source: Source, methods: dict[str, Stage], columns: Columns, top: int, skip_missing: bool) -> Compared:
    """Credit every part under every method, in order, each method with its own state.

    Raises:
        InputError: a method that cannot be used here, or nothing left to compare.
    """
    with (
        tempfile.TemporaryFile() as spool
    ):  # what methods gave tokens: the scale that compares them is known at the end
        compared = _credit_all(source, methods, columns, skip_missing, spool)
        if not compared.agreement.tokens:
            raise InputError(
                f"{source.name} has no trained token that all of these methods give or deny credit: its episodes have "
                "unknown rewards, or come from where a method does not look."
            )
        spool.seek(0)
        found = _largest(spool, len(source.steps), compared.agreement.rms(), top) if top else []
    decode = source.decode() or columns.decode if found else None
    rms = compared.agreement.rms()
    rollouts: dict[int, Rollouts] = {}
    for apart, part, token, values in found:
        if part not in rollouts:
            rollouts = {part: source.read(source.steps[part])}
        units = standardised(values[None], rms)[0]
        compared.disagreements.append(
            {
                "step": source.steps[part],
                **context_of(rollouts[part], token, decode),
                "apart": apart,
                "advantages": dict(zip(compared.specs, values.tolist(), strict=True)),
                "in_rms": dict(zip(compared.specs, units.tolist(), strict=True)),
            }
        )
    return compared


def _credit_all(
    source: Source, methods: dict[str, Stage], columns: Columns, skip_missing: bool, spool: IO[bytes]
) -> Compared:
    compared: Compared | None = None
    states: dict[str, Any] = dict.fromkeys(methods)
    left, skipped = dict(methods), {}
    console = Console(stderr=True)
    for step in track(source.steps, "crediting", console=console, disable=not console.is_terminal):
        needs = list(dict.fromkeys(name for method in left.values() for name in method.needs))
        rollouts = columns.add(source.read(step), needs)
        given = {}
        for spec, method in list(left.items()):
            try:
                given[spec] = method(rollouts, states[spec], source.clock(step), "drop")
            except MissingColumn as error:
                missing = MissingColumn(error.column, spec, f"{error.maker} ({MAY_MAKE})")
                if not skip_missing or compared is not None:
                    raise missing from None
                skipped[spec] = missing
                del left[spec]
            except InputError as error:
                raise InputError(_without_clock(spec, str(error))) from None
        if compared is None:
            if len(left) < 2:
                why = " ".join(str(error) for error in skipped.values())
                raise InputError(f"fewer than two methods are left to compare on {source.name}: {why}")
            steps = [step for step in source.steps if step is not None]
            compared = Compared(source.name, steps, list(left), Agreement(len(left)), skipped)
        states |= {spec: credit.state for spec, credit in given.items()}
        unknown = torch.stack([credit.unknown for credit in given.values()]).any(0)
        covered = _covered(rollouts, list(left.values()))
        chosen = (rollouts.trained & (covered & ~unknown)[rollouts.episode_of_token]).nonzero().squeeze(1)
        values = torch.stack([credit.advantages[chosen].double() for credit in given.values()], dim=1)
        compared.agreement.add(values, rollouts.group_ids[rollouts.episode_of_token[chosen]])
        compared.responses += rollouts.n_responses
        compared.unknown += int((unknown & covered).sum())
        compared.uncovered += int((~covered).sum())
        for array in (values, chosen, rollouts.response_of_token[chosen]):
            np.save(spool, array.numpy(), allow_pickle=False)
    assert compared is not None  # there is at least one part
    return compared


def _without_clock(spec: str, said: str) -> str:
    return f"{spec}: " + said.replace(
        "was given no clock: pass Clock(step, total_steps)", "a file of rollouts has no step: compare it on a run"
    )


def _covered(rollouts: Rollouts, methods: Sequence[Stage]) -> Tensor:
    """``[E]``: all responses of the episode come from where every method looks."""
    origins = set.intersection(*(set(method.covers) for method in methods))
    outside = torch.tensor([origin not in origins for origin in rollouts.origin], dtype=torch.int64)
    return ragged.sum_rows(outside, rollouts.response_offsets) == 0


def _largest(spool: IO[bytes], parts: int, rms: Tensor, top: int) -> list[tuple[float, int, int, Tensor]]:
    """The tokens about which methods are furthest apart: how far, part, number, and what they gave, by part at last.

    Of a response only the first of its largest.
    """
    best: list[tuple[float, int, int, Tensor]] = []
    for part in range(parts):
        values, tokens, responses = (np.load(spool, allow_pickle=False) for _ in range(3))
        given = torch.from_numpy(values)
        apart = disagreement(given, rms).numpy()
        order = np.argsort(-apart, kind="stable")
        first = np.sort(np.unique(responses[order], return_index=True)[1])[:top]
        best += [(float(apart[i]), part, int(tokens[i]), given[i]) for i in order[first] if apart[i] > 0]
        best = sorted(best, key=lambda one: (-one[0], one[1], one[2]))[:top]
    return best
