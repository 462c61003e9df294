"""Update batches in which what must not be read is NaN."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion.credit import Credit
from apportion.rollouts import Column, Rollouts, ragged


@dataclass(frozen=True, eq=False)
class Batch:
    """Rollouts and a credit whose masks have little to do with one another."""

    rollouts: Rollouts
    credit: Credit

    @property
    def trained(self) -> Tensor:
        """Numbers of the trained tokens ``[n]``."""
        return self.credit.trained.nonzero().squeeze(1)

    def now(self, names: Sequence[str], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Statistics of a policy ``[N]``, NaN where tokens are not trained."""
        generator = torch.Generator().manual_seed(self.rollouts.n_tokens)
        result = {}
        for name in names:
            size = torch.rand(self.rollouts.n_tokens, generator=generator, dtype=dtype) * 2 + 0.01
            values = -size if name.startswith(("log_prob", "max_log_prob")) else size
            result[name] = torch.where(self.credit.trained, values, torch.nan).requires_grad_()
        return result

    def rows(self, values: Tensor) -> list[list[float]]:
        """Token values as one list an episode."""
        return ragged.unflatten(values, self.rollouts.episode_offsets)

    def read(self, name: str, now: Mapping[str, Tensor]) -> Tensor:
        """A statistic ``now/<name>``, or a token column of the rollouts or the credit ``[N]``."""
        if name.startswith("now/"):
            return now[name.removeprefix("now/")].detach()
        return self.credit.record().columns[f"token:{name}"].tensor

    def select(self, episodes: Tensor) -> Batch:
        """Some episodes."""
        return Batch(self.rollouts.select(episodes), self.credit.select(episodes))


def batch(
    seed: int,
    weighted: bool = False,
    prepare: Callable[[Rollouts], Rollouts] = lambda rollouts: rollouts,
    details: Callable[[Rollouts], Mapping[str, Tensor]] = lambda rollouts: {},
    silent: bool = False,
) -> Batch:
    """Six episodes in two groups, of one or two responses of up to four tokens, some empty.

    Args:
        seed: of everything random.
        weighted: sampling weights below 1, as on branches.
        prepare: adds columns.
        details: columns of the credit, by name.
        silent: whether episodes may have no token that trains; otherwise the last of each does.
    """
    dice = random.Random(seed)
    responses = [dice.randint(1, 2) for _ in range(6)]
    episodes = [e for e, count in enumerate(responses) for _ in range(count)]
    ids = [[dice.randint(0, 9) for _ in range(dice.choice([0, 1, 2, 4, 4]))] for _ in episodes]
    trained = [[int(dice.random() < 0.8) for _ in row] for row in ids]
    last = [bounds - 1 for bounds in itertools.accumulate(responses)]
    for row in () if silent else last:
        ids[row], trained[row] = [*ids[row], 0], [*trained[row], 1]
    rewards = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    groups = [e % 2 for e in episodes]
    rollouts = Rollouts.from_lists(ids, groups=groups, episodes=episodes, rewards=rewards, trained=trained)
    for name in ("log_probs/old", "log_probs/reference"):
        values = [-dice.uniform(0.01, 2) if train else torch.nan for row in trained for train in row]
        rollouts = rollouts.with_statistic(name, torch.tensor(values, dtype=torch.float64), "trainer")
    if weighted:
        weights = [dice.choice([1.0, 0.5, 0.25]) for _ in range(rollouts.n_tokens)]
        rollouts = rollouts.with_column("weight", torch.tensor(weights, dtype=torch.float64))
    rollouts = prepare(rollouts)
    ends = torch.tensor([], dtype=torch.int64) if silent else rollouts.episode_offsets[1:] - 1
    columns = {f"token:credit/{name}": Column(values) for name, values in details(rollouts).items()}
    return Batch(rollouts, replace(random_credit(rollouts, ends, dice), columns=columns))


def random_credit(rollouts: Rollouts, ends: Tensor, dice: random.Random) -> Credit:
    """Any advantages, some 0; a token in six is trained and not counted, or counted and not trained, unless an end."""

    def mask() -> Tensor:
        some = torch.tensor([dice.random() < 5 / 6 for _ in range(rollouts.n_tokens)], dtype=torch.bool)
        return some.index_fill(0, ends, True)

    trained, counted = rollouts.trained & mask(), rollouts.trained & mask()
    values = torch.tensor([dice.choice([-2.0, -0.5, 0.0, 0.7, 1.5]) for _ in range(rollouts.n_tokens)])
    advantages = torch.where(trained, values.double(), 0.0)
    return Credit(rollouts, advantages, trained, counted, {}, None, torch.zeros(rollouts.n_episodes, dtype=torch.bool))


def cut(tokens: Tensor, seed: int) -> list[Tensor]:
    """Tokens in random order, cut at random places; some pieces may be empty."""
    dice = random.Random(seed)
    order = torch.tensor(dice.sample(tokens.tolist(), len(tokens)), dtype=torch.int64)
    bounds = [0, *sorted(dice.randint(0, len(tokens)) for _ in range(3)), len(tokens)]
    return [order[a:b] for a, b in itertools.pairwise(bounds)]
