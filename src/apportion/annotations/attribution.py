"""Attributions: after an episode a judge says how much every utterance contributed to each of its scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from apportion.annotations.annotator import Annotator
from apportion.annotations.corridor_judges import CORRIDOR_JUDGES
from apportion.annotations.dialogues import Dialogue, dialogues, object_in, tags_for
from apportion.annotations.dimensions import described
from apportion.annotations.judging import Judge, Tags, ask, build_judge
from apportion.annotations.transcripts import GUARD, presence
from apportion.errors import InputError
from apportion.rollouts import Rollouts, steps

REPLY = "attributions"
SOTOPIA = {
    "goal": "whether the agent reaches its own goal in the conversation",
    "relationship": "whether the relationship between the speakers becomes better or worse",
    "knowledge": "whether the agent learns something new and important",
    "believability": "whether the agent behaves as a person with its background would",
    "secret": "whether the agent keeps what it has to keep secret",
    "social_rules": "whether the agent keeps to social rules and the law",
    "financial": "whether the agent gains or loses money or other material benefits",
}
"""What SOTOPIA's dimensions are about, in the library's words."""


def attribution(
    judge: str = "corridor_moves",
    dimensions: Sequence[str] | Mapping[str, str] = ("goal", "relationship", "knowledge"),
    most: int = 3,
    retries: int = 5,
) -> Annotator:
    """How much every utterance contributed to every dimension: 0 (nothing) to ``most``, or -1 (it did harm).

    One question an episode and dimension, about all its utterances at once, asked again until the reply has one number
    for each; where it never has, those of the episode are unknown.

    Args:
        judge: a scripted judge by name, or ``package.module:name``; see :mod:`apportion.annotations.judging`.
        dimensions: names of episode rewards, or names with what they are about; of SOTOPIA's that is known.
        most: the largest attribution: 3, 5 or 10 of the scales of credit ``sotopia_rl``.
        retries: how often an unreadable reply is asked for again.

    Makes ``reward/attribution/<dimension>`` of decisions, at the level they live at, and, of episodes,
    ``reward/key/<dimension>``, the number of the utterance that contributed most, the first of several.

    Source: arXiv 2508.03905; the prompt is the library's.
    """
    about = described(dimensions, SOTOPIA)
    if type(most) is not int or most < 1:
        raise InputError(f"most is {most!r}, expected a whole number of 1 or more.")
    asked = build_judge(judge, CORRIDOR_JUDGES)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        judged, table, device = dialogues(rollouts, "attribution"), steps(rollouts), rollouts.device
        spoken = [one for one in judged if one.turns]
        tags = tags_for(spoken, about.values(), ("dimension", "dialogue", REPLY))
        questions = [(one, what) for what in about.values() for one in spoken]
        given = _asked(asked, questions, most, tags, retries)

        of_turns = presence([turn.row for one in spoken for turn in one.turns], len(table), device)
        of_episodes = presence([one.episode for one in judged], rollouts.n_episodes, device)
        for i, name in enumerate(about):
            values, key = (torch.zeros(size, dtype=torch.float64) for size in (len(table), rollouts.n_episodes))
            scored, keyed = (torch.zeros(len(part), dtype=torch.bool) for part in (values, key))
            for one, numbers in zip(spoken, given[i * len(spoken) : (i + 1) * len(spoken)], strict=True):
                if numbers is not None:
                    rows = torch.tensor([turn.row for turn in one.turns])
                    values[rows], scored[rows] = torch.tensor(numbers, dtype=torch.float64), True
                    key[one.episode], keyed[one.episode] = numbers.index(max(numbers)), True
            values, scored, key, keyed = (part.to(device) for part in (values, scored, key, keyed))
            rollouts = rollouts.with_reward(
                f"attribution/{name}", values, scored, of_turns, level=table.level, maker="attribution"
            ).with_reward(f"key/{name}", key, keyed, of_episodes, maker="attribution")
        return rollouts

    levels = ("", "turn:", "response:")
    made = [f"{level}reward/attribution/{name}" for name in about for level in levels]
    made += [f"{level}reward/key/{name}" for name in about for level in ("", "episode:")]
    return Annotator(apply, tuple(made), reads_policy=False)


def _asked(
    judge: Judge, questions: Sequence[tuple[Dialogue, str]], most: int, tags: Tags, retries: int
) -> list[list[int] | None]:
    """The numbers of every question's utterances; episodes of one length are asked about together."""
    lengths = [len(one.turns) for one, _ in questions]
    result: list[list[int] | None] = [None] * len(questions)
    for length in dict.fromkeys(lengths):
        places = [i for i, other in enumerate(lengths) if other == length]
        prompts = [attribution_prompt(*questions[i], most, tags) for i in places]
        numbers = ask(judge, prompts, partial(_numbers, tags=tags, count=length, most=most), retries)
        for i, of_one in zip(places, numbers, strict=True):
            result[i] = of_one
    return result


def attribution_prompt(one: Dialogue, dimension: str, most: int, tags: Tags) -> str:
    """What the judge is asked about one episode and dimension."""
    form = ", ".join(f'"{number}": number' for number in range(len(one.turns)))
    turns = f"\n{one.tagged(tags)}\n"
    return f"""Below is what an agent heard and said, turn after turn: its utterances are numbered 0 to \
{len(one.turns) - 1}. {GUARD}

{tags.around("dialogue", turns)}

It was scored on one dimension:
{tags.around("dimension", dimension)}
How much did each utterance of the agent contribute to that score? Give each a whole number from 0 (nothing) to {most} \
(as much as an utterance can), or -1 if it did harm.
End with one number for every utterance as JSON between tags:
{tags.opening(REPLY)}{{{form}}}{tags.closing(REPLY)}"""


def _numbers(reply: str, tags: Tags, count: int, most: int) -> list[int]:
    said = object_in(tags.last(REPLY, reply))
    given = {_number_of(key): value for key, value in said.items()}
    if set(given) != set(range(count)) or len(said) != count:
        raise ValueError("not one number for every utterance")
    if not all(type(value) is int and -1 <= value <= most for value in given.values()):
        raise ValueError("an attribution that is not on the scale")
    return [given[number] for number in range(count)]


def _number_of(key: str) -> int:
    """The number in ``3``, ``utterance_3`` or ``Utterance 3``."""
    found = re.fullmatch(r"(?:utterance[_ ]?)?([0-9]{1,6})", key.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise ValueError(f"{key!r} is no utterance")
    return int(found.group(1))
