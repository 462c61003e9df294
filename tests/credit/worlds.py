"""Small rollouts as plain lists, which both the library and the naive loops can read, and how to draw them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from apportion.rollouts import Rollouts, from_padded

EIGHTHS = st.integers(-32, 32).map(lambda n: n / 8)
"""Rewards that are exact in float32 and whose sums are exact in float64."""


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
def flats(
    draw: st.DrawFn,
    episodes: tuple[int, int] = (1, 8),
    rewards: st.SearchStrategy[float] = EIGHTHS,
    untrained: bool = True,
) -> Flat:
    """Ragged groups, interleaved, of tokens so few that prefixes coincide; some responses empty."""
    count = draw(st.integers(*episodes))
    lengths = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    ids = [draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in lengths]
    trained = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) if untrained else [True] * n for n in lengths]
    groups = draw(st.lists(st.sampled_from([-3, 4, 11]), min_size=count, max_size=count))
    return Flat(ids, groups, draw(st.lists(rewards, min_size=count, max_size=count)), trained)


@dataclass(frozen=True)
class Dialogues:
    """Episodes of several turns, each the policy's tokens and what a tool then said."""

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
        one_prompt = [[100]] * len(ids)
        whole = Rollouts.from_lists(ids, groups=self.groups, rewards=self.rewards, trained=trained, prompts=one_prompt)
        return whole.with_spans("turn", torch.tensor(starts), torch.tensor(ends))

    def separate(self, history: bool) -> Rollouts:
        """One response a turn; its prompt is all before it, or what the tool said last."""
        ids, groups, prompts, episodes = [], [], [], []
        for episode, turns in enumerate(self.turns):
            prompt = [100]
            for said, heard in turns:
                ids.append(said)
                prompts.append(prompt)
                groups.append(self.groups[episode])
                episodes.append(episode)
                prompt = prompt + said + heard if history else heard
        return Rollouts.from_lists(ids, groups=groups, prompts=prompts, rewards=self.rewards, episodes=episodes)


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogues:
    """Up to three turns an episode; the tool has words of its own, and says nothing after the last turn."""
    said = st.lists(st.integers(0, 1), min_size=1, max_size=3)
    heard = st.lists(st.integers(50, 51), min_size=1, max_size=2)
    count = draw(st.integers(1, 6))
    turns = []
    for _ in range(count):
        *earlier, (last, _) = draw(st.lists(st.tuples(said, heard), min_size=1, max_size=3))
        turns.append([*earlier, (last, [])])
    groups = draw(st.lists(st.sampled_from([2, 5]), min_size=count, max_size=count))
    return Dialogues(turns, groups, draw(st.lists(EIGHTHS, min_size=count, max_size=count)))
