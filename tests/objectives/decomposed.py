"""What the common suite needs of return decomposition: steps, what was drawn of them, and the naive loop."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from apportion.rollouts import Rollouts
from objectives.batches import Batch
from reference import decomposition


def with_steps(rollouts: Rollouts) -> Rollouts:
    """Spans of kind ``step`` of up to two tokens, and ``step:drawn``, one to three times by their last token's id."""
    starts, ends = [], []
    for first, last in zip(rollouts.token_offsets[:-1].tolist(), rollouts.token_offsets[1:].tolist(), strict=True):
        starts += range(first, last, 2)
        ends += [min(start + 2, last) for start in range(first, last, 2)]
    at, to = (torch.tensor(x, dtype=torch.int64) for x in (starts, ends))
    drawn = (1 + rollouts.ids[to - 1] % 3).double()
    # Every episode ends with a token that trains; its step twice at least, for the sample variance.
    drawn[torch.isin(to, rollouts.episode_offsets[1:])] += 1
    return rollouts.with_spans("step", at, to).with_column("step:drawn", drawn)


def naive(kind: str) -> object:
    """The loop over the steps in which something trains."""

    def loss(given: Batch, now: Mapping[str, Tensor]) -> float:
        rollouts, trained = given.rollouts, given.credit.trained.tolist()
        proxy, drawn = now["proxy_reward"].detach().tolist(), rollouts.columns["step:drawn"].tensor.long().tolist()
        episode_of = rollouts.episode_of_token.tolist()
        rows: list[list[float]] = [[] for _ in range(rollouts.n_episodes)]
        chosen: list[list[int]] = [[] for _ in rows]
        spans = rollouts.spans["step"]
        for start, end, times in zip(spans.starts.tolist(), spans.ends.tolist(), drawn, strict=True):
            inside = [t for t in range(start, end) if trained[t]]
            if inside:
                episode = episode_of[start]
                chosen[episode] += [len(rows[episode])] * times
                rows[episode].append(proxy[inside[-1]])
        rewards = rollouts.columns["episode:reward/outcome"].tensor.tolist()
        return decomposition.loss(kind, rows, rewards, chosen)

    return loss
