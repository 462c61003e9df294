"""The ordered decisions of every episode, however it was stored.

An agent may write one response a turn, or one growing response with a ``turn`` span for every turn. Step methods
read :func:`steps` and nothing else, so both give the same credit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.errors import InputError, MissingColumn
from apportion.rollouts import ragged
from apportion.rollouts.makers import maker_of
from apportion.rollouts.model import Rollouts


@dataclass(frozen=True, eq=False)
class Steps:
    """Decisions in order, T in all.

    Attributes:
        rollouts: what they are steps of.
        level: where step columns live: ``turn`` where turns are marked, else ``response``; or the kind asked for.
        episode: episode of every step ``[T]``.
        index: 0-based number of the step in its episode ``[T]``.
        starts: first token ``[T]``.
        ends: one past the last token ``[T]``.
    """

    rollouts: Rollouts
    level: str
    episode: Tensor
    index: Tensor
    starts: Tensor
    ends: Tensor

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def offsets(self) -> Tensor:
        """Steps of every episode ``[E + 1]``."""
        return ragged.offsets_of(torch.bincount(self.episode, minlength=self.rollouts.n_episodes))

    @property
    def step_of_token(self) -> Tensor:
        """``[N]``; -1 where a token belongs to no step."""
        result = torch.full((self.rollouts.n_tokens,), -1, dtype=torch.int64, device=self.rollouts.device)
        tokens = ragged.ranges(self.starts, self.ends)
        result[tokens] = torch.repeat_interleave(torch.arange(len(self), device=result.device), self.ends - self.starts)
        return result

    def column(self, name: str, reader: str = "this") -> Tensor:
        """Numbers of a step column ``[T]``, such as ``reward/step``."""
        return self.rollouts.column(f"{self.level}:{name}", reader=reader)

    def text(self, name: str, reader: str = "this") -> tuple[str | None, ...]:
        """Text of a step column, such as ``state_key``."""
        full = f"{self.level}:{name}"
        if full not in self.rollouts.columns:
            raise MissingColumn(full, reader, maker_of(name))
        return self.rollouts.columns[full].text


def steps(rollouts: Rollouts, level: str | None = None) -> Steps:
    """The decisions of every episode: its ``turn`` spans where there are any, else its responses.

    Args:
        rollouts: whose.
        level: decisions of another size: ``response``, or a kind of span, such as the ``step`` of a response.

    Raises:
        InputError: there are no spans of that kind.

    Example:
        >>> one = Rollouts.from_lists([[7, 8, 9]], groups=[0])
        >>> one = one.with_spans("step", torch.tensor([0, 2]), torch.tensor([2, 3]))
        >>> len(steps(one)), steps(one, "step").index.tolist()
        (1, [0, 1])
    """
    level = level or ("turn" if "turn" in rollouts.spans else "response")
    if level == "response":
        starts, ends, episode = rollouts.token_offsets[:-1], rollouts.token_offsets[1:], rollouts.episode_of_response
    elif level in rollouts.spans:
        starts, ends = rollouts.spans[level].starts, rollouts.spans[level].ends
        episode = rollouts.episode_of_response[rollouts.response_of_span[level]]
    else:
        raise InputError(f"these rollouts have no spans of kind {level!r}: an annotator, such as steps, makes them.")
    counts = torch.bincount(episode, minlength=rollouts.n_episodes)
    return Steps(rollouts, level, episode, ragged.position_in_row(ragged.offsets_of(counts)), starts, ends)
