"""Episodes as a judge reads them: what the agent heard and said, turn after turn, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apportion.annotations.judging import Tags
from apportion.annotations.transcripts import JUDGED
from apportion.errors import InputError
from apportion.rollouts import Rollouts, steps


@dataclass(frozen=True)
class Turn:
    """One decision.

    Attributes:
        row: its number among the decisions of all episodes.
        heard: what the agent was told since its last turn; all it was told, where its prompt does not repeat the past.
        said: its words.
    """

    row: int
    heard: str
    said: str


@dataclass(frozen=True)
class Dialogue:
    """One episode to be judged.

    Attributes:
        episode: its number.
        turns: in order; none in an episode without decisions.
        cut: it ended at a limit.
    """

    episode: int
    turns: tuple[Turn, ...]
    cut: bool

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything in it that others wrote."""
        return tuple(text for turn in self.turns for text in (turn.heard, turn.said))

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return "(Cut off here, at a limit.)" if self.cut else "(It ended here.)"

    def tagged(self, tags: Tags) -> str:
        """The turns, what was heard between tags ``heard_i`` and what was said between tags ``utterance_i``."""
        lines = []
        for number, turn in enumerate(self.turns):
            lines += [tags.around(f"heard_{number}", turn.heard), tags.around(f"utterance_{number}", turn.said)]
        return "\n".join([*lines, self.ending])


def dialogues(rollouts: Rollouts, reader: str) -> list[Dialogue]:
    """The episodes that a judge is asked about, those that credit covers.

    Args:
        rollouts: with ``text`` and ``prompt_text`` of every decision, see :func:`apportion.rollouts.steps`.
        reader: the annotator that asks, for messages.

    Raises:
        MissingColumn: there are no such columns.
        InputError: an entry is missing where the judge is to be asked.
    """
    table = steps(rollouts)
    prompts, texts = (table.text(name, reader=reader) for name in ("prompt_text", "text"))
    outside = {
        e for e, o in zip(rollouts.episode_of_response.tolist(), rollouts.origin, strict=True) if o not in JUDGED
    }
    last = rollouts.response_offsets[1:] - 1
    truncated = rollouts.columns.get("response:truncated")
    cut = torch.zeros_like(last, dtype=torch.bool) if truncated is None else truncated.tensor.bool()[last]
    offsets = table.offsets.tolist()
    result = []
    for episode in range(rollouts.n_episodes):
        if episode in outside:
            continue
        rows = range(offsets[episode], offsets[episode + 1])
        both = [(prompts[row], texts[row]) for row in rows]
        told = [(prompt, text) for prompt, text in both if prompt is not None and text is not None]
        if len(told) < len(both):
            raise InputError(
                f"episode {episode} has a {table.level} without its prompt_text or text, expected both wherever "
                f"{reader} asks a judge: give them, or an origin that is not credited."
            )
        said = [text for _, text in told]
        turns = tuple(Turn(*turn) for turn in zip(rows, _news(told), said, strict=True))
        result.append(Dialogue(episode, turns, bool(cut[episode])))
    return result


def _news(told: Sequence[tuple[str, str]]) -> list[str]:
    """What every prompt says that the turn before did not, where all of them repeat what came before."""
    prompts = [prompt for prompt, _ in told]
    past = ["", *(prompt + text for prompt, text in told[:-1])]
    repeat = all(now.startswith(before) and len(now) > len(before) for now, before in zip(prompts, past, strict=False))
    return [now.removeprefix(before) for now, before in zip(prompts, past, strict=False)] if repeat else prompts


def tags_for(judged: Sequence[Dialogue], further: Iterable[str], names: Sequence[str]) -> Tags:
    """Tags for prompts about these episodes, apart from all they say and from further texts.

    Args:
        judged: the episodes.
        further: other texts that go into the prompts.
        names: beginnings of the tags' names, beside those of turns.
    """
    texts = (text for one in judged for text in one.texts)
    return Tags.apart_from([*texts, *further], ["heard_", "utterance_", *names])


def object_in(text: str) -> dict[str, Any]:
    """A JSON object in which every key stands once and every number is finite.

    Raises:
        ValueError: it is something else.

    Example:
        >>> object_in(' {"0": 3, "1": -1} ')
        {'0': 3, '1': -1}
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number")

    given = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    if not isinstance(given, dict):
        raise ValueError("not an object")
    return given
