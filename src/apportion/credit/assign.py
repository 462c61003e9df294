"""Run a credit method on rollouts: check what it needs, leave out what it may not see, put the result back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from apportion.credit.algebra import Clock, Reward, Stage, Work
from apportion.credit.blocks import Joined, blocks_of
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Column, Rollouts, ragged, to_padded
from apportion.rollouts.columns import qualify, split_name
from apportion.rollouts.makers import maker_of


@dataclass(frozen=True, eq=False)
class Credit:
    """Who earned what.

    Attributes:
        rollouts: what was credited.
        advantages: ``[N]``; 0 at tokens that get none.
        trained: ``[N]``, may carry loss.
        counted: ``[N]``, enters normalisers.
        columns: the method's details, as columns ``credit/<name>`` at their level.
        state: to be handed back at the next call.
        unknown: ``[E]``, episodes left out because their reward is unknown.
    """

    rollouts: Rollouts
    advantages: Tensor
    trained: Tensor
    counted: Tensor
    columns: Mapping[str, Column]
    state: Any
    unknown: Tensor

    def to_padded(self, width: int | None = None) -> Tensor:
        """Advantages as a right-padded matrix ``[B, width]``, for trainers that pad."""
        return to_padded(self.rollouts, self.advantages, width)

    def select(self, episodes: Tensor) -> Credit:
        """The credit of some episodes (mask or indices)."""
        index = self.rollouts.indices(episodes)
        return Credit(
            self.rollouts.select(episodes),
            self.advantages[index["token"]],
            self.trained[index["token"]],
            self.counted[index["token"]],
            {name: column.take(index[split_name(name)[0]]) for name, column in self.columns.items()},
            self.state,
            self.unknown[index["episode"]],
        )

    def record(self) -> Rollouts:
        """The rollouts with credit as columns, as the store keeps them."""
        result = self.rollouts.with_column("credit/advantages", self.advantages)
        result = result.with_column("credit/trained", self.trained).with_column("credit/counted", self.counted)
        for name, column in self.columns.items():
            result = result.with_column(name, column.values, column.present, column.maker)
        return result


def assign(
    stage: Stage, rollouts: Rollouts, state: Any = None, clock: Clock | None = None, unscored: str = "error"
) -> Credit:
    """Assign credit to every token.

    Args:
        stage: the method.
        rollouts: what to credit. Stages see only episodes whose origin the method covers.
        state: from the previous call; None starts anew.
        clock: needed by methods that anneal.
        unscored: what to do with episodes whose reward is unknown. ``error`` refuses; ``drop`` takes them out of
            every statistic and gives their tokens no advantage, no loss and no share of normalisers.

    Raises:
        MissingColumn: a column the method reads is not there.
        InputError: unknown rewards and ``unscored="error"``, an absent reward, no clock for a method that reads it,
            or a result that is not finite.

    Example:
        >>> from apportion import credit
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> credit.METHODS["rloo"]()(group).advantages.tolist()
        [1.0, 1.0, -1.0, -1.0]
    """
    if unscored not in ("error", "drop"):
        raise InputError(f"unscored is {unscored!r}, expected 'error' or 'drop'.")
    if stage.reads_clock and clock is None:
        raise InputError(
            "this credit method anneals over training and was given no clock: pass Clock(step, total_steps)."
        )
    for name in stage.needs:
        if not rollouts.has(name):
            raise MissingColumn(
                name if name.startswith("reward/") else qualify(name), "this credit method", maker_of(name)
            )

    covered = _covered(rollouts, stage.covers)
    unknown = _unknown(rollouts, stage, covered)
    if bool(unknown.any()) and unscored == "error":
        raise InputError(
            f"{int(unknown.sum())} of {rollouts.n_episodes} episodes have an unknown reward: score them, or pass "
            "unscored='drop' to leave them out."
        )
    blocks = blocks_of(rollouts) if stage.by_group else []
    if len(blocks) < 2:
        return _credit(stage, rollouts, covered, unknown, state, clock)
    joined = Joined(rollouts, "credit")
    for first, last in blocks:
        block = slice(first, last)
        part = _credit(stage, rollouts.between(first, last), covered[block], unknown[block], state, clock)
        own = {name: Column(getattr(part, name)) for name in ("advantages", "trained", "counted")}
        joined.add(part.rollouts, {**own, **part.columns})
    columns = joined.columns()
    advantages, trained, counted = (columns.pop(name).tensor for name in ("advantages", "trained", "counted"))
    return Credit(rollouts, advantages, trained, counted, columns, part.state, unknown)


def _credit(
    stage: Stage, rollouts: Rollouts, covered: Tensor, unknown: Tensor, state: Any, clock: Clock | None
) -> Credit:
    """The credit of rollouts that hold what the stage reads, given which episodes ``[E]`` it covers and may not see."""
    gone = unknown | _left_out(rollouts, stage, covered)
    seen = covered & ~gone
    everything = bool(seen.all())
    part = rollouts if everything else rollouts.select(seen)
    begun = replace(_begin(stage, part, _shrunk(rollouts, gone)[seen]), whole=rollouts, members=seen)
    work, state = stage.apply(begun, stage.init() if state is None else state, clock)
    advantages = work.advantages.to(_output_dtype(rollouts)).contiguous()
    if not bool(torch.isfinite(advantages.sum(dtype=torch.float64))):  # isfinite of every entry would copy them all
        given = str(advantages.dtype).removeprefix("torch.")
        raise InputError(
            f"the credit method made an advantage that is not finite in {given}, the precision of the log-probs: look "
            "at the rewards it read, and report it if they are in order."
        )

    details = {_credit_name(name): Column(values, maker="credit") for name, values in work.details.items()}
    if everything:
        return Credit(rollouts, advantages, work.trained, work.counted, details, state, unknown)

    index = rollouts.indices(seen)
    lost = gone[rollouts.episode_of_token]
    return Credit(
        rollouts,
        advantages.new_zeros(rollouts.n_tokens).index_put_((index["token"],), advantages),
        (rollouts.trained & ~lost).index_put_((index["token"],), work.trained),
        (rollouts.trained & ~lost).index_put_((index["token"],), work.counted),
        {
            name: _scatter(c, index[split_name(name)[0]], rollouts.rows(split_name(name)[0]))
            for name, c in details.items()
        },
        state,
        unknown,
    )


def _covered(rollouts: Rollouts, origins: tuple[str, ...]) -> Tensor:
    """``[E]``: all responses of the episode come from an origin the method covers."""
    if "response:origin" not in rollouts.columns:
        return torch.full((rollouts.n_episodes,), "policy" in origins, device=rollouts.device)
    outside = torch.tensor([origin not in origins for origin in rollouts.origin], device=rollouts.device)
    return ragged.sum_rows(outside.long(), rollouts.response_offsets) == 0


def _unknown(rollouts: Rollouts, stage: Stage, covered: Tensor) -> Tensor:
    """``[E]``: a reward the method reads was asked for and has no verdict, at any level below the episode.

    Raises:
        InputError: a reward the method reads is absent (was never asked for) at a covered episode.
    """
    unknown = torch.zeros(rollouts.n_episodes, dtype=torch.bool, device=rollouts.device)
    for name in stage.needs:
        if not name.startswith("reward/"):
            continue
        component = name.removeprefix("reward/")
        full = rollouts.find(name)
        assert full is not None  # needs were checked
        level = split_name(full)[0]
        column = rollouts.columns[full]
        scored = rollouts.columns.get(f"{level}:scored/{component}")
        episode = _episode_of_row(rollouts, level)
        if column.present is not None:
            absent = ~column.present & covered[episode]
            if bool(absent.any()):
                raise InputError(
                    f"{int(absent.sum())} rows of {full!r} are absent where the credit method reads them, expected a "
                    "reward or an unknown verdict: score them, or give those responses an origin that is not credited."
                )
        if scored is not None and component not in stage.sees_unknown:
            holes = ~scored.tensor.bool()
            holes = holes.all(1) if holes.dim() == 2 else holes
            if column.present is not None:
                holes = holes & column.present
            unknown.index_put_((episode[holes],), torch.tensor(True, device=unknown.device))
    return unknown & covered


def _left_out(rollouts: Rollouts, stage: Stage, covered: Tensor) -> Tensor:
    """``[E]``: covered episodes that the method wants treated as though they had not been sampled."""
    if not stage.leaves_out:
        return torch.zeros_like(covered)
    inside = rollouts if bool(covered.all()) else rollouts.select(covered)
    which = torch.stack([of(inside) for of in stage.leaves_out]).any(0)
    return torch.zeros_like(covered).index_put_((covered,), which)


def _episode_of_row(rollouts: Rollouts, level: str) -> Tensor:
    if level == "episode":
        return torch.arange(rollouts.n_episodes, device=rollouts.device)
    if level == "response":
        return rollouts.episode_of_response
    if level == "token":
        return rollouts.episode_of_token
    return rollouts.episode_of_response[rollouts.response_of_span[level]]


def _shrunk(rollouts: Rollouts, gone: Tensor) -> Tensor:
    """Bool ``[E]``: the episode's group lost members."""
    lost = torch.zeros(rollouts.n_groups, dtype=torch.bool, device=rollouts.device)
    lost[rollouts.group_of_episode[gone]] = True
    return lost[rollouts.group_of_episode]


def _begin(stage: Stage, part: Rollouts, shrunk: Tensor) -> Work:
    dtype = torch.float32 if part.device.type == "mps" else torch.float64
    rewards = {}
    for name in (n for n in stage.needs if n.startswith("reward/")):
        full = part.find(name)
        assert full is not None  # needs were checked
        level, component = split_name(full)[0], name.removeprefix("reward/")
        values = part.columns[full].tensor.to(dtype)
        scored = part.columns.get(f"{level}:scored/{component}")
        mask = torch.ones_like(values, dtype=torch.bool) if scored is None else scored.tensor.bool()
        rewards[component] = Reward(level, values, mask)
    return Work(
        part,
        rewards,
        advantages=torch.zeros((), dtype=dtype, device=part.device).expand(part.n_tokens),
        trained=part.trained,
        counted=part.trained,
        shrunk=shrunk,
    )


def _output_dtype(rollouts: Rollouts) -> torch.dtype:
    for name in ("token:log_probs/old", "token:log_probs/behaviour"):
        if name in rollouts.columns:
            return rollouts.columns[name].tensor.dtype
    return torch.float32 if rollouts.device.type == "mps" else torch.float64


def _credit_name(name: str) -> str:
    level, short = split_name(name)
    return f"{level}:credit/{short}"


def _scatter(column: Column, index: Tensor, rows: int) -> Column:
    values = column.tensor.new_zeros((rows, *column.tensor.shape[1:]))
    values[index] = column.tensor
    present = torch.zeros(rows, dtype=torch.bool, device=index.device)
    present[index] = True
    return Column(values, present, column.maker)
