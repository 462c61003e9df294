"""Small rollouts as plain lists, which both the library and the naive loops can read, and how to draw them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st

from apportion.rollouts import Rollouts, from_padded

EIGHTHS = [n / 8 for n in range(-32, 33)]
"""Rewards that are exact in float32 and whose sums are exact in float64."""


DICE = st.integers(0, 2**32).map(random.Random)
"""Random numbers of one example: hypothesis draws the seed, since drawing every number would take most of a test."""


few = settings(max_examples=12)
"""Examples for a test that runs for every method: a world holds several groups, so few say much."""


@dataclass(frozen=True)
class Flat:
    """One response an episode; the reward ``outcome`` at its end."""

    ids: list[list[int]]
    groups: list[int]
    rewards: list[float]
    trained: list[list[bool]]

    def rollouts(self, rewards: Sequence[float | None] | None = None, **token_columns: Any) -> Rollouts:
        """As rollouts, perhaps with other rewards."""
        given = self.rewards if rewards is None else rewards
        return Rollouts.from_lists(self.ids, groups=self.groups, rewards=given, trained=self.trained, **token_columns)

    def padded(self, width: int, pad: int) -> Rollouts:
        """As rollouts that were once a right-padded matrix of this many further columns."""
        longest = max((len(row) for row in self.ids), default=0) + width
        ids = torch.full((len(self.ids), longest), pad)
        mask = torch.zeros_like(ids)
        for i, (row, trained) in enumerate(zip(self.ids, self.trained, strict=True)):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[i, : len(row)] = torch.tensor(trained, dtype=torch.int64)
        rewards = torch.tensor(self.rewards, dtype=torch.float64)
        lengths = torch.tensor([len(row) for row in self.ids])
        return from_padded(ids, mask, rewards, torch.tensor(self.groups), lengths=lengths)


@st.composite
def flats(draw: st.DrawFn, rewards: Sequence[float] = EIGHTHS, untrained: bool = True) -> Flat:
    """One to ten responses in ragged, interleaved groups, of tokens so few that prefixes coincide; some empty.

    Args:
        draw: given by hypothesis.
        rewards: what a world takes its one to four different rewards from.
        untrained: whether some tokens are.
    """
    count, dice = draw(st.integers(1, 10)), draw(DICE)
    ids = [[dice.randint(0, 1) for _ in range(dice.randint(0, 5))] for _ in range(count)]
    trained = [[not untrained or dice.random() < 0.7 for _ in row] for row in ids]
    palette = dice.sample(rewards, dice.randint(1, 4))
    return Flat(ids, dice.choices([-3, 4, 11], k=count), dice.choices(palette, k=count), trained)


@dataclass(frozen=True)
class Dialogues:
    """Episodes of several turns, each the policy's tokens and what a tool then said; some prompts bring a hint."""

    prompts: list[list[int]]
    turns: list[list[tuple[list[int], list[int]]]]
    groups: list[int]
    rewards: list[float]

    def growing(self) -> Rollouts:
        """One response an episode, tool output untrained inside, a ``turn`` span for every turn."""
        ids = [[token for said, heard in turns for token in said + heard] for turns in self.turns]
        trained = [[t for said, heard in turns for t in [1] * len(said) + [0] * len(heard)] for turns in self.turns]
        starts, ends, at = [], [], 0
        for said, heard in itertools.chain.from_iterable(self.turns):
            starts.append(at)
            ends.append(at + len(said))
            at += len(said) + len(heard)
        whole = Rollouts.from_lists(
            ids, groups=self.groups, rewards=self.rewards, trained=trained, prompts=self.prompts
        )
        return whole.with_spans("turn", torch.tensor(starts), torch.tensor(ends))

    def separate(self, history: bool) -> Rollouts:
        """One response a turn; its prompt is all before it, or what the tool said last."""
        ids, groups, prompts, episodes = [], [], [], []
        for episode, turns in enumerate(self.turns):
            prompt = self.prompts[episode]
            for said, heard in turns:
                ids.append(said)
                prompts.append(prompt)
                groups.append(self.groups[episode])
                episodes.append(episode)
                prompt = prompt + said + heard if history else heard
        return Rollouts.from_lists(ids, groups=groups, prompts=prompts, rewards=self.rewards, episodes=episodes)


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogues:
    """Up to three turns an episode; the tool uses the policy's words, and says nothing after the last turn."""
    count, dice = draw(st.integers(1, 6)), draw(DICE)

    def words(shortest: int, longest: int) -> list[int]:
        return [dice.randint(0, 1) for _ in range(dice.randint(shortest, longest))]

    prompts = [dice.choice([[100], [100, 101]]) for _ in range(count)]
    turns = [
        [*((words(1, 3), words(0, 2)) for _ in range(dice.randint(0, 2))), (words(1, 3), [])] for _ in range(count)
    ]
    return Dialogues(prompts, turns, dice.choices([2, 5], k=count), dice.choices(EIGHTHS, k=count))
