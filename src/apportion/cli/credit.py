"""Credit stored rollouts under a method, group by group where the method allows it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apportion import credit as credits
from apportion.cli.arguments import parse
from apportion.cli.columns import MAY_MAKE, Columns
from apportion.cli.output import check_new_file, shown
from apportion.credit import Clock, Credit, Stage, trace
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Column, Rollouts, groups_of
from apportion.rollouts.columns import split_name
from apportion.rollouts.store import read, write

LARGE = 1 << 28
"""Bytes of a file above which it is said why it is read whole: in memory it takes several times as much."""


@dataclass(frozen=True)
class Arguments:
    """Credit stored rollouts: apportion credit METHOD FILE [--json | --out FILE].

    A method whose credit of a group depends on that group alone reads one group at a time, so a file may be larger
    than memory. One that looks at the whole batch, as whitening does, reads the whole file, and so does --out, a file
    in which groups are interleaved (its order is kept), and --annotators.
    """

    json: bool = False
    """Print a JSON record a response: its token advantages, masks and the method's details."""
    stages: bool = False
    """With --json: also the advantages after every stage of the method, and rewards as stages shaped them."""
    out: Path | None = None
    """Write the rollouts with credit columns to this file: .jsonl or .arrow."""
    by_group: bool = False
    """Read and credit one group at a time whatever the method, wherever the records of a group stand; a method that
    compares with the whole batch then sees one group only."""
    annotate: str | None = None
    """Make missing columns the method needs with the model in this checkpoint: a run, a checkpoint of it, or a model.
    Columns that are there stay."""
    annotators: tuple[str, ...] = ()
    """Make further columns before, as partial_sums does."""
    drop_unknown: bool = False
    """Leave episodes whose reward is unknown out, instead of refusing them."""
    step: int | None = None
    """Step of training the rollouts are from, for methods that anneal."""
    total_steps: int | None = None
    """Steps of that training, for methods that anneal."""


def main(argv: Sequence[str]) -> int:
    """``apportion credit``"""
    if len(argv) < 2 or argv[0].startswith("-") or argv[1].startswith("-"):
        if argv and argv[0] in ("-h", "--help"):
            parse(Arguments, argv, "apportion credit")
        raise InputError("credit needs a method and a file: apportion credit METHOD FILE.")
    method = credits.build(argv[0])
    arguments = parse(Arguments, argv[2:], "apportion credit")
    if arguments.json and arguments.out is not None:
        raise InputError("--json prints credit and --out writes it to a file: give one of them.")
    if arguments.stages and not arguments.json:
        raise InputError("--stages is part of what --json prints: add --json, or leave it out.")
    if arguments.by_group and arguments.out is not None:
        raise InputError("--by-group prints as it reads, and --out holds a whole file: give one of them.")
    clock = _clock(arguments)
    unscored = "drop" if arguments.drop_unknown else "error"
    path = Path(argv[1])
    if arguments.out is not None:
        check_new_file(arguments.out)
        columns = Columns(arguments.annotate, arguments.annotators)
        result = credited(method, columns.add(read(path), method.needs), None, clock, unscored)
        write(result.record(), arguments.out)
        for line in (f"{result.rollouts.n_responses} responses with credit in {arguments.out}", *columns.said()):
            print(line)
        return 0
    columns = Columns(arguments.annotate, arguments.annotators)
    state: Any = None
    responses, tokens, earning, episodes = 0, 0, 0, 0
    for part in _parts(path, argv[0], method, arguments):
        with trace.recording() if arguments.stages else contextlib.nullcontext():
            result = credited(method, columns.add(part, method.needs), state, clock, unscored)
        state = None if method.by_group else result.state  # a group's credit owes nothing to the groups before it
        for line in (
            map(json.dumps, records(result, episodes, columns.made)) if arguments.json else lines(result, episodes)
        ):
            print(line)
        responses, tokens = responses + part.n_responses, tokens + part.n_tokens
        earning += int((result.advantages != 0).sum())
        episodes += part.n_episodes
    if not arguments.json:
        print(f"{responses} responses, {tokens} tokens, {earning} with an advantage other than 0")
        for line in columns.said():
            print(line)
    return 0


def _clock(arguments: Arguments) -> Clock | None:
    if (arguments.step is None) != (arguments.total_steps is None):
        raise InputError("--step and --total-steps belong together: give both or neither.")
    if arguments.step is None or arguments.total_steps is None:
        return None
    if not 0 <= arguments.step < arguments.total_steps:
        raise InputError(
            f"--step is {arguments.step} of {arguments.total_steps} steps, expected 0 to {arguments.total_steps - 1}."
        )
    return Clock(arguments.step, arguments.total_steps)


def _parts(path: Path, spec: str, method: Stage, arguments: Arguments) -> Iterable[Rollouts]:
    """The file group by group where that is asked for or makes no difference, else as a whole."""
    if arguments.by_group:
        return groups_of(path)
    if method.by_group and not arguments.annotators:
        return groups_of(path, keep_order=True)
    if path.is_file() and path.stat().st_size > LARGE:
        why = "annotators may" if method.by_group else f"{spec} may"
        print(
            f"apportion: {why} look at more than one group, so all {path.stat().st_size / 1e9:.1f} GB of {path} are "
            "read into memory; --by-group reads a group at a time.",
            file=sys.stderr,
        )
    return [read(path)]


def credited(method: Stage, rollouts: Rollouts, state: Any, clock: Clock | None, unscored: str) -> Credit:
    """Assign credit; what to do about an error is said in options of the command line."""
    try:
        result: Credit = method(rollouts, state, clock, unscored)
    except MissingColumn as error:
        raise MissingColumn(error.column, error.reader, f"{error.maker} ({MAY_MAKE})") from None
    except InputError as error:
        said = str(error).replace("unscored='drop'", "--drop-unknown")
        raise InputError(said.replace("Clock(step, total_steps)", "--step and --total-steps")) from None
    return result


def group_names(rollouts: Rollouts) -> list[str | int]:
    """What the file calls the group of every episode."""
    names = rollouts.columns.get("episode:group_name")
    numbers = rollouts.group_ids.tolist()
    return numbers if names is None else [n or i for n, i in zip(names.text, numbers, strict=True)]


def records(result: Credit, first_episode: int = 0, made: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """A JSON record a response.

    Args:
        result: the credit.
        first_episode: episodes are numbered from it.
        made: who made the columns that the rollouts did not bring.
    """
    rollouts = result.rollouts
    offsets = rollouts.token_offsets.tolist()
    tokens = {"advantages": result.advantages, "trained": result.trained, "counted": result.counted}
    rows = {name: values.tolist() for name, values in tokens.items()}
    stages = [(found, _listed(found.values)) for found in trace.traces(result)]
    details: dict[str, dict[str, list[Any]]] = {}
    for name, column in trace.own_details(result).items():
        level, short = split_name(name)
        details.setdefault(level, {})[short] = _listed(column)
    rows |= details.pop("token", {})
    of_episode, of_response = details.pop("episode", {}), details.pop("response", {})
    bounds = {
        kind: torch.searchsorted(rollouts.response_of_span[kind], torch.arange(rollouts.n_responses + 1)).tolist()
        for kind in details
    }
    episodes, groups = rollouts.episode_of_response.tolist(), group_names(rollouts)
    for b, e in enumerate(episodes):
        spans = {
            kind: {name: values[bounds[kind][b] : bounds[kind][b + 1]] for name, values in of_spans.items()}
            for kind, of_spans in details.items()
        }
        yield {
            "group": groups[e],
            "episode": first_episode + e,
            "unknown": bool(result.unknown[e]),
            **{name: values[offsets[b] : offsets[b + 1]] for name, values in rows.items()},
            **{name: values[b] for name, values in of_response.items()},
            **{name: values[e] for name, values in of_episode.items()},
            **({"spans": spans} if spans else {}),
            **({"stages": [_stage(s, values[offsets[b] : offsets[b + 1]]) for s, values in stages]} if stages else {}),
            **({"made": made} if made else {}),
        }


def _stage(found: trace.Trace, values: list[Any]) -> dict[str, Any]:
    """What a stage made of one response: its advantages, or a reward it shaped."""
    made = {"reward": found.component, "rewards": values} if found.kind == "shaper" else {"advantages": values}
    return {"stage": found.stage, "kind": found.kind, **made}


def _listed(column: Column) -> list[Any]:
    """Entries of a column, None where missing."""
    values = column.tensor.tolist()
    if column.present is None:
        return values
    return [value if there else None for value, there in zip(values, column.present.tolist(), strict=True)]


def lines(result: Credit, first_episode: int = 0) -> Iterator[str]:
    """A line a response, for people: reward, range of its advantages, and the token that got most."""
    rollouts: Rollouts = result.rollouts
    groups = group_names(rollouts)
    for b in range(rollouts.n_responses):
        start, end = rollouts.token_offsets[b : b + 2].tolist()
        e = int(rollouts.episode_of_response[b])
        advantages = result.advantages[start:end]
        head = f"group {shown(str(groups[e]))} episode {first_episode + e}: {end - start} tokens"
        if bool(result.unknown[e]):
            yield f"{head}, reward unknown, no credit"
        elif not len(advantages):
            yield head
        else:
            most = int(torch.argmax(advantages.abs()))
            yield (
                f"{head}, advantages {float(advantages.min()):+.4f} to {float(advantages.max()):+.4f}, "
                f"largest {float(advantages[most]):+.4f} at token {most}"
            )
