"""Scripted judges of the corridor: they read their prompt and reply as a model would, so that methods which need a
judge train in that environment through the prompts, parsers and retries of real ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apportion.annotations.judging import Judge
from apportion.environments.corridor import LEFT, RIGHT
from apportion.errors import InputError

CORRIDOR = (
    f"The agent walks along a row of cells numbered from 0. An observation such as 05= says that it stands in cell 0 "
    f"and that cell 5 is the end. The action {RIGHT} is a step to the right, {LEFT} one to the left; anything else "
    "leaves it where it is."
)
"""What the corridor is, for a judge."""

CORRIDOR_SUBGOALS = ("reach cell 2", "reach cell 4")
"""Stations on the way through a corridor of six cells."""

MOVES = {RIGHT: 1, LEFT: -1}


@dataclass(frozen=True)
class _Place:
    """Where an observation says the agent stands, and where the end is."""

    cell: int
    end: int

    @staticmethod
    def read(text: str | None, name: str) -> _Place:
        found = re.fullmatch("([0-9])([0-9])=", text or "", re.ASCII)
        if found is None:
            raise InputError(
                f"the scripted judge {name} reads corridors, with observations such as 05=, and was asked about "
                "something else: name a judge of your own, with judge='package.module:name'."
            )
        return _Place(int(found.group(1)), int(found.group(2)))

    def after(self, action: str) -> int:
        """The cell that an action leads to."""
        return max(self.cell + MOVES.get(action.strip().rstrip("."), 0), 0)


def corridor_subgoals() -> Judge:
    """Names the subgoals ``reach cell N`` whose cell an action led to from another."""

    def corridor_subgoals(prompts: Sequence[str]) -> list[str]:
        replies = []
        for prompt in prompts:
            suffix = _suffix(prompt)
            place = _Place.read(_between(prompt, f"observation{suffix}"), "corridor_subgoals")
            cell = place.after(_between(prompt, f"action{suffix}") or "")
            goals = re.findall(rf"<subgoal_([0-9]+){suffix}>reach cell ([0-9]+)</", prompt)
            achieved = [number for number, goal in goals if int(goal) == cell != place.cell]
            replies.append(f"It came to cell {cell}.\n<achieved{suffix}>{', '.join(achieved)}</achieved{suffix}>")
        return replies

    return corridor_subgoals


def corridor_moves() -> Judge:
    """Gives the most to a step towards the end, -1 to a step away from it and 0 to standing still."""

    def corridor_moves(prompts: Sequence[str]) -> list[str]:
        replies = []
        for prompt in prompts:
            suffix = _suffix(prompt)
            turns = re.findall(
                rf"<heard_([0-9]+){suffix}>(.*?)</heard_\1{suffix}>\n"
                rf"<utterance_\1{suffix}>(.*?)</utterance_\1{suffix}>",
                prompt,
                re.DOTALL,
            )
            most = re.findall(r"from 0 \(nothing\) to ([0-9]+)", prompt)  # the last is the question's
            given = {}
            for number, heard, said in turns:
                place = _Place.read(heard, "corridor_moves")
                step = place.after(said) - place.cell
                given[number] = int(most[-1]) if step > 0 else step
            replies.append(f"Steps were counted.\n<attributions{suffix}>{json.dumps(given)}</attributions{suffix}>")
        return replies

    return corridor_moves


def _suffix(prompt: str) -> str:
    """What the tags of a prompt end with, from the form of the reply at its end."""
    found = re.search(r"</[a-z]+(-[0-9]+|)>\s*$", prompt)
    return found.group(1) if found else ""


def _between(prompt: str, name: str) -> str | None:
    found = re.search(rf"<{name}>(.*?)</{name}>", prompt, re.DOTALL)
    return found.group(1) if found else None


CORRIDOR_JUDGES: dict[str, Callable[..., Judge]] = {
    "corridor_moves": corridor_moves,
    "corridor_subgoals": corridor_subgoals,
}
"""Scripted judges by name."""
