"""What judges say in the common suite, as functions of token ids, steps and outcomes, and the naive loops on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from apportion.rollouts import Rollouts, ragged, steps
from credit.columns import Naive, cut, with_scores
from credit.worlds import Flat
from reference import outcome, verdicts

CRITICS = 3
UNREADABLE = 2
"""A step of this many tokens got no critique that could be read."""


def with_outcome(rollouts: Rollouts, change: Callable[[Tensor], Tensor]) -> Rollouts:
    """The outcome, summed to the episode, as something else there."""
    full = rollouts.find("reward/outcome")
    assert full is not None
    level = full.split(":")[0]
    values, scored = (rollouts.columns[f"{level}:{name}/outcome"].tensor for name in ("reward", "scored"))
    values, lost = torch.where(scored, values.double(), 0.0), (~scored).long()
    if level != "episode":
        rows = {
            "token": rollouts.response_of_token,
            "response": torch.arange(rollouts.n_responses),
            **rollouts.response_of_span,
        }[level]
        at = rollouts.episode_of_response[rows]
        values = torch.zeros(rollouts.n_episodes, dtype=torch.float64).index_add(0, at, values)
        lost = torch.zeros(rollouts.n_episodes, dtype=torch.int64).index_add(0, at, lost)
    bare = replace(rollouts, columns={n: c for n, c in rollouts.columns.items() if not n.endswith("/outcome")})
    return bare.with_reward("outcome", change(values), lost == 0)


def right(reward: float) -> float:
    """An outcome of 0 or 1."""
    return float(reward > 0)


def share(reward: float) -> float:
    """An outcome from 0 to 1."""
    return min(max(reward / 8 + 0.5, 0.0), 1.0)


def with_right(rollouts: Rollouts) -> Rollouts:
    """:func:`right` outcomes."""
    return with_outcome(rollouts, lambda total: (total > 0).double())


def with_shares(rollouts: Rollouts) -> Rollouts:
    """:func:`share` outcomes."""
    return with_outcome(rollouts, lambda total: (total / 8 + 0.5).clamp(0, 1))


def said(ids: list[int]) -> list[bool | None]:
    """What every critic says of a step, None where it could not be read."""
    if len(ids) == UNREADABLE:
        return [None] * CRITICS
    return [None if (len(ids) + c) % 4 == 3 else (sum(ids) + len(ids) * c) % 3 != 1 for c in range(CRITICS)]


def step_ids(rollouts: Rollouts) -> list[list[int]]:
    """Token ids of every step."""
    ids, table = rollouts.ids.tolist(), rollouts.spans["step"]
    return [ids[a:b] for a, b in zip(table.starts.tolist(), table.ends.tolist(), strict=True)]


def with_critiques(rollouts: Rollouts) -> Rollouts:
    """Steps, and ``step:reward/critique`` with holes."""
    rollouts = with_scores(with_right(rollouts))
    heard = [said(ids) for ids in step_ids(rollouts)]
    known = torch.tensor([[v is not None for v in row] for row in heard], dtype=torch.bool).reshape(-1, CRITICS)
    values = torch.tensor([[float(bool(v)) for v in row] for row in heard]).double().reshape(-1, CRITICS)
    values[~known] = 9.0  # nobody may read it
    return rollouts.with_reward("critique", values, known, level="step")


def with_single_critiques(rollouts: Rollouts) -> Rollouts:
    """One critique a step."""
    rollouts = with_critiques(rollouts)
    values, scored = (rollouts.columns[f"step:{name}/critique"].tensor[:, 1] for name in ("reward", "scored"))
    bare = replace(rollouts, columns={n: c for n, c in rollouts.columns.items() if not n.endswith("/critique")})
    return bare.with_reward("critique", values, scored, level="step")


def labels_of(steps_of_episode: list[list[int]], is_right: bool) -> list[str] | None:
    """Labels of the steps of an episode; None where the judge could not be read."""
    if len(steps_of_episode) == 3 and sum(map(sum, steps_of_episode)) == 2:
        return None
    names = ("incorrect", "correct") if is_right else ("uncertain", "match")
    labels = [names[(sum(ids) + len(ids)) % 2] for ids in steps_of_episode]
    return [*labels[:-1], names[1]] if labels else []


def with_labels(rollouts: Rollouts) -> Rollouts:
    """Steps, and their labels."""
    rollouts = with_scores(with_right(rollouts))
    outcomes = rollouts.columns["episode:reward/outcome"].tensor.tolist()
    at = rollouts.episode_of_response[rollouts.response_of_span["step"]]
    offsets = ragged.offsets_of(torch.bincount(at, minlength=rollouts.n_episodes)).tolist()
    ids = step_ids(rollouts)
    labels: list[str | None] = []
    for reward, start, end in zip(outcomes, offsets, offsets[1:], strict=False):
        labels += labels_of(ids[start:end], reward == 1) or [None] * (end - start)
    return rollouts.with_column("step:label", labels)


def thinking_of(ids: list[int]) -> float | None:
    """What a judge thinks of the tokens of an episode's decisions."""
    return None if len(ids) == UNREADABLE else (3 * sum(ids) + len(ids)) % 8 / 8


def with_thinking(rollouts: Rollouts) -> Rollouts:
    """``episode:reward/thinking``."""
    rollouts = with_shares(rollouts)
    table, ids = steps(rollouts), rollouts.ids.tolist()
    of_episode: list[list[int]] = [[] for _ in range(rollouts.n_episodes)]
    for episode, start, end in zip(table.episode.tolist(), table.starts.tolist(), table.ends.tolist(), strict=True):
        of_episode[episode] += ids[start:end]
    scores = [thinking_of(row) for row in of_episode]
    known = torch.tensor([s is not None for s in scores], dtype=torch.bool)
    values = torch.tensor([9.0 if s is None else s for s in scores], dtype=torch.float64)
    return rollouts.with_reward("thinking", values, known)


def spans_of(ids: list[int]) -> list[list[int]]:
    """The steps of a response."""
    return [[a, b] for a, b in zip([0, *cut(ids)], cut(ids), strict=False)]


def capo(vote: str, w_process: float = 1.0, ddof: int = 0, critics: slice = slice(None)) -> Naive:
    """The naive loop with these settings."""

    def advantages(world: Flat) -> list[list[float]]:
        places = [spans_of(ids) for ids in world.ids]
        weights = [
            [verdicts.penalty([v for v in said(ids[a:b])[critics] if v is not None], vote) for a, b in row]
            for ids, row in zip(world.ids, places, strict=True)
        ]
        outcomes = [right(r) for r in world.rewards]
        lengths = [len(ids) for ids in world.ids]
        rewards = verdicts.token_rewards(lengths, places, weights, outcomes, w_whole=2.0, w_process=w_process)
        return verdicts.against_tokens(rewards, world.trained, world.groups, ddof=ddof, eps=1e-8)

    return advantages


def tp_grpo(alpha: float, r_incorrect: float = -1.0) -> Naive:
    """The naive loop with these settings."""

    def advantages(world: Flat) -> list[list[float]]:
        places = [spans_of(ids) for ids in world.ids]
        outcomes = [int(right(r)) for r in world.rewards]
        labels = [
            labels_of([ids[a:b] for a, b in row], reward == 1)
            for ids, row, reward in zip(world.ids, places, outcomes, strict=True)
        ]
        result = verdicts.tp_grpo(
            outcomes, world.groups, [len(ids) for ids in world.ids], places, labels,
            alpha=alpha, r_correct=1.0, r_incorrect=r_incorrect, ddof=1, eps=1e-4,
        )  # fmt: skip
        return [
            [a if train else 0.0 for a, train in zip(*row, strict=True)]
            for row in zip(result, world.trained, strict=True)
        ]

    return advantages


def trust_grpo(alpha: float, total_steps: int = 10, code: bool = False) -> Naive:
    """The naive loop with these settings at the suite's clock, step 3 of 10."""

    def advantages(world: Flat) -> list[list[float]]:
        outcomes, thinking = [share(r) for r in world.rewards], [thinking_of(ids) for ids in world.ids]
        settings = {"alpha": alpha, "step": 3, "total_steps": total_steps, "code": code}
        per_episode = verdicts.trust_grpo(outcomes, thinking, world.groups, eps=1e-6, **settings)
        return outcome.on_tokens(per_episode, world.trained)

    return advantages
