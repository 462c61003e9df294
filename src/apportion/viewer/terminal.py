"""One group as a coloured tree in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.style import Style
from rich.text import Text
from rich.tree import Tree

from apportion.errors import InputError
from apportion.rollouts import Rollouts
from apportion.viewer.crediting import STORED, stored_as
from apportion.viewer.group import group_record
from apportion.viewer.rewards import components, episode_rewards
from apportion.viewer.session import Session

LOSES, NEUTRAL, EARNS = (194, 84, 0), (120, 120, 120), (0, 98, 200)
"""Orange to blue, which people who do not tell red from green tell apart."""


def show(session: Session, specs: Sequence[str], step: int | None, group: str | None) -> None:
    """Print one group of the first source.

    Args:
        session: with the source.
        specs: methods to show, the first of them; none: stored credit, or GRPO.
        step: of a run; None: the last that can be read.
        group: its id or name; None: the one whose rewards differ most.

    Raises:
        InputError: there is no such step or group, or no method that can be used.
    """
    source = session.sources[0]
    parts = source.parts()
    newest = source.newest() if step is None else (step, source.read(step))
    if newest is None:
        raise InputError(f"{source.path} has no stored rollouts yet: let the run do a step first.")
    part, rollouts = newest
    chosen = find_group(rollouts, group)
    usable = [*specs] or session.methods.defaults(rollouts)
    if not usable:
        raise InputError(f"{source.path} has no credit, and no reward from which to make it: name a method.")
    record = group_record(source, part, chosen, usable[:1], session.methods, session.decoders[0])
    given = record["credits"][usable[0]]
    if "error" in given:
        raise InputError(given["error"])
    console = Console(highlight=False)
    if step is None and part < parts[-1]:
        said = f"{source.part_name(parts[-1])} cannot be read: this is the last step that can"
        Console(stderr=True, highlight=False).print(Text(said))
    head = f"step {part}, " if source.is_run else ""
    console.print(Text(f"{source.name}: {head}group {printable(str(record['name'] or chosen))}", style="bold"))
    console.print(Text(f"credit: {_credit_label(usable[0], stored_as(source))}"))
    console.print(tree_of(record, given))
    console.print(legend(largest(given)))


def _credit_label(spec: str, stored_under: str | None) -> str:
    if spec != STORED:
        return spec
    return "as stored" if stored_under is None else f"{stored_under}, as stored"


def find_group(rollouts: Rollouts, wanted: str | None) -> int:
    """The id of the group asked for, by id or name, or of the one whose known rewards differ most.

    Raises:
        InputError: there is none.
    """
    ids = rollouts.group_ids.tolist()
    if not ids:
        raise InputError("there are no groups in these rollouts: choose another step.")
    names = rollouts.columns.get("episode:group_name")
    if wanted is not None:
        for e, number in enumerate(ids):
            if wanted == str(number) or (names is not None and names.text[e] == wanted):
                return int(number)
        raise InputError(f"there is no group {wanted!r} here: groups are {min(ids)} to {max(ids)}.")
    named = components(rollouts)
    rewards = episode_rewards(rollouts, named[0] if named else "outcome")
    of_group = {number: rewards.value[(rollouts.group_ids == number) & rewards.known] for number in dict.fromkeys(ids)}
    spread = {number: float(v.std(correction=0)) if len(v) else 0.0 for number, v in of_group.items()}
    return int(max(spread, key=lambda number: spread[number]))


def tree_of(record: dict[str, Any], given: dict[str, Any]) -> Tree:
    """A group as a tree: what responses share once, every token on the colour of its credit, rewards at the leaves."""
    nodes, scale = record["tree"], largest(given)
    offsets = [record["token_offsets"][b] for b in record["response_offsets"]]
    trees: dict[int, Tree] = {0: Tree(_label(record, given, offsets, 0, scale), guide_style="dim")}
    waiting = list(reversed(nodes[0]["children"]))
    while waiting:
        number = waiting.pop()
        above = trees[nodes[number]["parent"]]
        trees[number] = above.add(_label(record, given, offsets, number, scale))
        waiting += reversed(nodes[number]["children"])
    return trees[0]


def _label(record: dict[str, Any], given: dict[str, Any], offsets: list[int], number: int, scale: float) -> Text:
    node = record["tree"][number]
    text = Text(no_wrap=False)
    if number == 0:
        text.append(printable(record["prompt"]) or "(no prompt)", style="bold")
    for depth in range(node["start"], node["end"]):
        mean = mean_credit(record, given, [(e, offsets[e] + depth) for e in node["episodes"]])
        piece = printable(record["texts"][offsets[node["episodes"][0]] + depth])
        text.append(piece or "\N{MIDDLE DOT}", style=style_of(mean, scale))
    value = "" if node["value"] is None else f"  value {node['value']:.2f}"
    text.append(f"{value}  ×{len(node['episodes'])}" if node["children"] or number == 0 else "", style="dim")
    for reward, count in _ends(record, node).items():
        text.append(f"  {reward}", style="bold")
        text.append(f" ×{count}" if count > 1 else "", style="dim")
    return text


def _ends(record: dict[str, Any], node: dict[str, Any]) -> dict[str, int]:
    """The rewards of the episodes that end in a node, and how many have each."""
    if record["component"] is None:
        return {"no reward": len(node["ends"])} if node["ends"] else {}
    counts: dict[str, int] = {}
    for episode in node["ends"]:
        reward = record["rewards"][record["component"]][episode]
        said = "unknown" if reward["asked"] else "no reward"
        said = said if reward["value"] is None else f"reward {reward['value']:g}"
        counts[said] = counts.get(said, 0) + 1
    return counts


def mean_credit(record: dict[str, Any], given: dict[str, Any], tokens: Sequence[tuple[int, int]]) -> float | None:
    """The mean credit of a token over the episodes that share and train it, without those whose reward is unknown."""
    values = [given["advantages"][t] for e, t in tokens if not given["unknown"][e] and record["trained"][t]]
    return sum(values) / len(values) if values else None


def largest(given: dict[str, Any]) -> float:
    """The largest magnitude of credit."""
    values = torch.tensor(given["advantages"], dtype=torch.float64)
    return float(values.abs().max()) if len(values) else 0.0


def style_of(value: float | None, scale: float) -> Style:
    """The colours of a token with some credit; one without is plain."""
    if value is None or not scale or not math.isfinite(value):
        return Style(dim=True)
    share = min(abs(value) / scale, 1.0)
    end = EARNS if value > 0 else LOSES
    mixed = tuple(round(a + (b - a) * share) for a, b in zip(NEUTRAL, end, strict=True))
    return Style(color="white", bgcolor=f"rgb({mixed[0]},{mixed[1]},{mixed[2]})", bold=share > 0.6)


def legend(scale: float) -> Text:
    """What the colours mean."""
    text = Text("loses ")
    for i in range(-4, 5):
        text.append(f" {i * scale / 4:+.2f} " if i % 4 == 0 else "   ", style=style_of(i * scale / 4, scale))
    text.append(" earns; where responses share a token, their mean")
    return text


def printable(text: str) -> str:
    """Text that cannot move the cursor or turn the line around: what does not print is written as an escape."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return safe.encode("utf-8", "backslashreplace").decode("utf-8")
