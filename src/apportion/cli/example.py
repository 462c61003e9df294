"""One small group under every credit method: ``apportion methods --example``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from apportion.credit import METHODS
from apportion.evals.calibration.measure import CLOCK
from apportion.evals.calibration.methods import Entry, entries
from apportion.evals.calibration.plants import PLANTS, Garden, missing, planted
from apportion.evals.calibration.worlds import WORLDS
from apportion.rollouts import Rollouts, ragged
from apportion.viewer.terminal import style_of

WORLD = "shared_prefixes"
GROUP = ((1, 1, 0), (1, 0, 1), (1, 0, 0), (0, 1, 0))
"""Four of its responses: three begin alike, two of those go on alike, and two are right."""

LETTERS = ("w", "R")
CELL = 6


@dataclass(frozen=True, eq=False)
class Shown:
    """A method on the group.

    Attributes:
        name: of its row.
        spec: the method with its settings.
        advantages: of every response, None where it is refused.
        trained: of every response.
        planted: columns it read that an annotator or another model would have made.
        refused: why there is no credit; else empty.
    """

    name: str
    spec: str
    advantages: list[list[float]] | None
    trained: list[list[bool]] | None
    planted: list[str]
    refused: str


def show_example(specs: Sequence[str], as_json: bool) -> None:
    """Print the group under some methods.

    Args:
        specs: methods; none: all that are registered.
        as_json: print JSON.

    Raises:
        InputError: one of them does not exist.
    """
    garden = Garden(WORLDS[WORLD](), noise=0.0, seed=0)
    shown = [credited(garden, name, entry) for name, entry in _chosen(specs).items()]
    rewards = _group(garden.leaves).column("episode:reward/outcome").tolist()
    if as_json:
        print(json.dumps(record(garden, rewards, shown), indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"one group of the world {garden.world.name!r}: {garden.world.what}; R is right, w wrong")
    width = max(len(one.name) for one in shown) + 2
    console.print(_heads(width, rewards))
    for one in shown:
        console.print(line(one, width))
    console.print("every row has colours of its own: orange loses, blue earns; \N{MIDDLE DOT} is not trained on")
    if any(one.planted for one in shown):
        console.print(
            "* reads what annotators or other models make; here it is planted from exact values, without error"
        )
    if set_otherwise := [one.spec for one in shown if one.spec != one.name]:
        console.print(f"with settings: {', '.join(set_otherwise)}")


def _chosen(specs: Sequence[str]) -> dict[str, Entry]:
    """The first setting of every method that is meant for responses without forks, or all those that are named."""
    found: dict[str, Entry] = {}
    for entry in entries(specs or list(METHODS)):
        if entry.forks is None and not entry.fresh:
            found.setdefault(entry.spec if specs else entry.method, entry)
    return found


def credited(garden: Garden, name: str, entry: Entry) -> Shown:
    """A method on the group, with what it needs planted."""
    stage = entry.stage
    if lacking := missing(stage.needs):
        return Shown(name, entry.spec, None, None, [], f"needs {', '.join(lacking)}, which nothing plants here")
    rollouts = _group(planted(garden, stage.needs))
    given = stage(rollouts, clock=CLOCK if stage.reads_clock else None)
    return Shown(
        name,
        entry.spec,
        ragged.unflatten(given.advantages, rollouts.token_offsets),
        ragged.unflatten(given.trained, rollouts.token_offsets),
        [name for name in stage.needs if PLANTS[name].noisy],
        "",
    )


def _group(leaves: Rollouts) -> Rollouts:
    rows = [tuple(row) for row in ragged.unflatten(leaves.ids, leaves.token_offsets)]
    chosen = leaves.select(torch.tensor([rows.index(response) for response in GROUP]))
    return chosen.with_groups(torch.zeros(len(GROUP), dtype=torch.int64))


def _heads(width: int, rewards: Sequence[float]) -> Text:
    tokens, outcomes = Text(" " * width), Text("reward".ljust(width))
    for response, reward in zip(GROUP, rewards, strict=True):
        tokens.append("".join(LETTERS[token].center(CELL) for token in response) + "  ", style="bold")
        outcomes.append(f"{reward:g}".center(CELL * len(response)) + "  ")
    for text in (tokens, outcomes):
        text.rstrip()
    return Text("\n").join([tokens, outcomes])


def line(one: Shown, width: int) -> Text:
    """A method's row: its name, and every token's credit."""
    text = Text((one.name + ("*" if one.planted else "")).ljust(width))
    if one.advantages is None or one.trained is None:
        return text.append(one.refused, style="dim")
    most = max(abs(value) for row in one.advantages for value in row)
    for row, trained in zip(one.advantages, one.trained, strict=True):
        for value, own in zip(row, trained, strict=True):
            cell = f"{value:+.2f}" if own else "\N{MIDDLE DOT}"
            text.append(cell.center(CELL), style=style_of(value if own else None, most))
        text.append("  ")
    text.rstrip()
    return text


def record(garden: Garden, rewards: Sequence[float], shown: Sequence[Shown]) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "world": garden.world.name,
        "responses": [[LETTERS[token] for token in response] for response in GROUP],
        "rewards": list(rewards),
        "methods": [
            {
                "method": one.spec,
                "advantages": one.advantages,
                "trained": one.trained,
                "planted": one.planted,
                **({"refused": one.refused} if one.refused else {}),
            }
            for one in shown
        ],
    }
