"""Credit stored rollouts under a method, group by group."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apportion import credit as credits
from apportion.cli.arguments import parse
from apportion.cli.output import check_new_file
from apportion.credit import Clock, Credit, Stage
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.columns import split_name
from apportion.rollouts.store import read, stream, write


@dataclass(frozen=True)
class Arguments:
    """Credit stored rollouts: apportion credit METHOD FILE [--json | --out FILE]."""

    json: bool = False
    """Print a JSON record a response: its token advantages, masks and the method's details."""
    out: Path | None = None
    """Write the rollouts with credit columns to this file: .jsonl or .arrow."""
    by_group: bool = False
    """Read and credit one group at a time, for files larger than memory; a method that compares with the whole batch
    then sees one group only."""
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
    if (arguments.step is None) != (arguments.total_steps is None):
        raise InputError("--step and --total-steps belong together: give both or neither.")
    if arguments.json and arguments.out is not None:
        raise InputError("--json prints credit and --out writes it to a file: give one of them.")
    if arguments.by_group and arguments.out is not None:
        raise InputError("--by-group prints as it reads, and --out holds a whole file: give one of them.")
    clock = None
    if arguments.step is not None and arguments.total_steps is not None:
        if not 0 <= arguments.step < arguments.total_steps:
            raise InputError(
                f"--step is {arguments.step} of {arguments.total_steps} steps, expected 0 to "
                f"{arguments.total_steps - 1}."
            )
        clock = Clock(arguments.step, arguments.total_steps)
    unscored = "drop" if arguments.drop_unknown else "error"
    path = Path(argv[1])
    if arguments.out is not None:
        check_new_file(arguments.out)
        result = credited(method, read(path), None, clock, unscored)
        write(result.record(), arguments.out)
        print(f"{result.rollouts.n_responses} responses with credit in {arguments.out}")
        return 0
    state: Any = None
    responses, tokens, earning, episodes = 0, 0, 0, 0
    for part in stream(path) if arguments.by_group else [read(path)]:
        result = credited(method, part, state, clock, unscored)
        state = result.state
        if arguments.json:
            for record in records(result, episodes):
                print(json.dumps(record))
        else:
            for line in lines(result, episodes):
                print(line)
        responses, tokens = responses + part.n_responses, tokens + part.n_tokens
        earning += int((result.advantages != 0).sum())
        episodes += part.n_episodes
    if not arguments.json:
        print(f"{responses} responses, {tokens} tokens, {earning} with an advantage other than 0")
    return 0


def credited(method: Stage, rollouts: Rollouts, state: Any, clock: Clock | None, unscored: str) -> Credit:
    """Assign credit; what to do about an error is said in options of the command line."""
    try:
        result: Credit = method(rollouts, state, clock, unscored)
    except MissingColumn:
        raise
    except InputError as error:
        said = str(error).replace("unscored='drop'", "--drop-unknown")
        raise InputError(said.replace("Clock(step, total_steps)", "--step and --total-steps")) from None
    return result


def _group_names(rollouts: Rollouts) -> list[str | int]:
    """What the file calls the group of every episode."""
    names = rollouts.columns.get("episode:group_name")
    numbers = rollouts.group_ids.tolist()
    return numbers if names is None else [n or i for n, i in zip(names.text, numbers, strict=True)]


def records(result: Credit, first_episode: int = 0) -> Iterator[dict[str, Any]]:
    """A JSON record a response; episodes are numbered from ``first_episode``."""
    rollouts = result.rollouts
    offsets = rollouts.token_offsets
    tokens = {"advantages": result.advantages, "trained": result.trained, "counted": result.counted}
    tokens |= {split_name(n)[1]: c.tensor for n, c in result.columns.items() if split_name(n)[0] == "token"}
    rows = {name: ragged.unflatten(values, offsets) for name, values in tokens.items()}
    episodes, groups = rollouts.episode_of_response.tolist(), _group_names(rollouts)
    for b in range(rollouts.n_responses):
        e = episodes[b]
        yield {
            "group": groups[e],
            "episode": first_episode + e,
            "unknown": bool(result.unknown[e]),
            **{name: values[b] for name, values in rows.items()},
            **{
                split_name(n)[1]: c.tensor[e].tolist()
                for n, c in result.columns.items()
                if split_name(n)[0] == "episode"
            },
        }


def lines(result: Credit, first_episode: int = 0) -> Iterator[str]:
    """A line a response, for people: reward, range of its advantages, and the token that got most."""
    rollouts: Rollouts = result.rollouts
    groups = _group_names(rollouts)
    for b in range(rollouts.n_responses):
        start, end = rollouts.token_offsets[b : b + 2].tolist()
        e = int(rollouts.episode_of_response[b])
        advantages = result.advantages[start:end]
        head = f"group {groups[e]} episode {first_episode + e}: {end - start} tokens"
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
