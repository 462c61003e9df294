"""Agents of several turns, as lists, as one growing response and as one response a turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.rollouts import Rollouts
from credit.worlds import Dialogues


@dataclass(frozen=True)
class Agents:
    """Attempts of several turns, each with a state and a reward.

    Attributes:
        said: the policy's words, by attempt and turn.
        heard: what the tool said after each turn.
        groups: of the attempts.
        rewards: of the turns.
        states: in which the turns were taken.
    """

    said: list[list[list[int]]]
    heard: list[list[list[int]]]
    groups: list[int]
    rewards: list[list[float]]
    states: list[list[str]]

    @staticmethod
    def draw(dice: random.Random) -> Agents:
        """Up to six attempts of up to four turns in three states."""
        turns = [dice.randint(1, 4) for _ in range(dice.randint(1, 6))]
        return Agents(
            [[[dice.randint(0, 1) for _ in range(dice.randint(1, 3))] for _ in range(n)] for n in turns],
            [[[9] * dice.randint(0, 2) for _ in range(n - 1)] + [[]] for n in turns],
            [dice.choice([2, 5]) for _ in turns],
            [[dice.randint(-4, 4) / 4 for _ in range(n)] for n in turns],
            [[dice.choice("abc") for _ in range(n)] for n in turns],
        )

    def stored(self) -> list[tuple[Rollouts, str]]:
        """The attempts as they may be stored, with the level of turns: rewards ``step`` and state keys there."""
        turns = [list(zip(*both, strict=True)) for both in zip(self.said, self.heard, strict=True)]
        outcomes = [sum(row) for row in self.rewards]
        world = Dialogues([[100] for _ in self.said], turns, self.groups, outcomes)
        rewards = torch.tensor([r for row in self.rewards for r in row], dtype=torch.float64)
        states = [s for row in self.states for s in row]
        return [
            (
                rollouts.with_reward("step", rewards, level=level).with_column(f"{level}:state_key", states),
                level,
            )
            for rollouts, level in (
                (world.growing(), "turn"),
                (world.separate(history=True), "response"),
                (world.separate(history=False), "response"),
            )
        ]

    def on_tokens(self, per_turn: Sequence[Sequence[float]]) -> Tensor:
        """Numbers of turns on the policy's words, one after another."""
        numbers = [
            number
            for row, turns in zip(per_turn, self.said, strict=True)
            for number, words in zip(row, turns, strict=True)
            for _ in words
        ]
        return torch.tensor(numbers, dtype=torch.float64)

    def of_words(self, number: Callable[[int], float]) -> list[list[list[float]]]:
        """A number a word, by attempt and turn."""
        return [[[number(word) for word in turn] for turn in turns] for turns in self.said]


def flat(rows: Sequence[Sequence[float]]) -> Tensor:
    """Numbers of turns end to end."""
    return torch.tensor([x for row in rows for x in row], dtype=torch.float64)
