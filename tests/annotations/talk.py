"""Episodes with text, and judges that say what a test wants."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from apportion.rollouts import Rollouts

Episode = Sequence[tuple[str, str]]


def corridor(*walks: str, end: int = 5) -> list[Episode]:
    """Walks as lists of what was seen and done, from cell 0; anything but 0 and 1 stands still."""
    episodes = []
    for walk in walks:
        cell, turns = 0, []
        for action in walk:
            turns.append((f"{cell}{end}=", action))
            cell = max(cell + {"1": 1, "0": -1}.get(action, 0), 0)
        episodes.append(turns)
    return episodes


def talk(*episodes: Episode) -> Rollouts:
    """One response a turn, all in one group; a turn is a prompt and the words said, and three are the limit."""
    turns = [turn for episode in episodes for turn in episode]
    numbers = [number for number, episode in enumerate(episodes) for _ in episode]
    rollouts = Rollouts.from_lists(
        [[ord(c) % 100 for c in said] for _, said in turns], groups=[0] * len(turns), episodes=numbers
    )
    last = [i + 1 == len(episode) and len(episode) == 3 for episode in episodes for i in range(len(episode))]
    return (
        rollouts.with_column("response:prompt_text", [heard for heard, _ in turns])
        .with_column("response:text", [said for _, said in turns])
        .with_column("response:truncated", torch.tensor(last, dtype=torch.bool))
    )


def as_turns(rollouts: Rollouts) -> Rollouts:
    """The same words as one growing response an episode, with turn spans that keep the texts."""
    episode, offsets = rollouts.episode_of_response.tolist(), rollouts.token_offsets.tolist()
    ids: list[list[int]] = [[] for _ in range(rollouts.n_episodes)]
    for b, e in enumerate(episode):
        ids[e] += rollouts.ids[offsets[b] : offsets[b + 1]].tolist()
    grown = Rollouts.from_lists(ids, groups=[0] * len(ids))
    grown = grown.with_spans("turn", rollouts.token_offsets[:-1], rollouts.token_offsets[1:])
    for name in ("prompt_text", "text"):
        grown = grown.with_column(f"turn:{name}", rollouts.columns[f"response:{name}"].text)
    return grown


class Script:
    """A judge that gives the replies of a list, whatever it is asked, and keeps the prompts."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.prompts = list(replies), []  # type: ignore[var-annotated]

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        self.prompts += prompts
        return [self.replies.pop(0) if len(self.replies) > 1 else self.replies[0] for _ in prompts]
