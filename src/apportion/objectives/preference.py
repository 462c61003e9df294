"""DPO: prefer one episode to another, token by token; and what objectives over pairs share.

Suffix legend: E episodes, K pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.errors import InputError
from apportion.objectives import episodes
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Pairs, Rollouts
from apportion.rollouts.pairs import check_prompts, pairs_of


@dataclass(frozen=True, eq=False)
class Compared:
    """Pairs that say something.

    Attributes:
        preferred: episodes ``[K]``.
        other: episodes ``[K]``.
        rows: which of the rollouts' pairs they are ``[K]``.
        weight: of each, 1 unless the pairs have weights ``[K]``.
    """

    preferred: Tensor
    other: Tensor
    rows: Tensor
    weight: Tensor

    def sides(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values of episodes ``[E]`` at the preferred and at the other of every pair ``[K]``."""
        return values[self.preferred], values[self.other]

    def mean(self, values: Tensor, over: Tensor | None = None) -> Tensor:
        """Weighted mean of values ``[K]`` over all pairs, or those of a mask ``[K]``; 0 without any."""
        weight = self.weight.to(values.dtype)
        weight = weight if over is None else torch.where(over, weight, 0.0)
        return (values * weight).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)

    def report(self, **shown: Tensor) -> dict[str, Tensor]:
        """What to report of every pair ``[K]``, as plain means."""
        return {name: values.detach().double().sum() / max(len(values), 1) for name, values in shown.items()}


def compared_pairs(rollouts: Rollouts, credit: Credit, ties: bool = False) -> Compared:
    """The pairs that say something.

    Pairs with an episode of which nothing trains are left out.

    Args:
        rollouts: with pairs.
        credit: says what trains.
        ties: keep ties (``pair:tie``) too; a preference says nothing of them.

    Raises:
        InputError: no pairs at all, a pair of different prompts, an episode without any token, or a negative weight.
    """
    pairs = pairs_of(rollouts)
    both = torch.stack([pairs.preferred, pairs.other])
    keep = (episodes.count_by_episode(episodes.trained_tokens(credit), rollouts)[both] > 0).all(0)
    if not ties:
        keep &= ~tied(rollouts, keep)
    kept = Pairs(*both[:, keep])
    check_prompts(rollouts, kept)
    rows = keep.nonzero().squeeze(1)
    if not rollouts.has("pair:weight"):
        return Compared(kept.preferred, kept.other, rows, torch.ones(len(rows), device=rollouts.device))
    weight = rollouts.column("pair:weight", where=keep)[keep]
    if bool((weight < 0).any()):
        raise InputError(f"a pair has the weight {float(weight.min()):g}, expected 0 or more.")
    return Compared(kept.preferred, kept.other, rows, weight)


def tied(rollouts: Rollouts, rows: Tensor) -> Tensor:
    """Which pairs are ties, of all pairs; only some (a mask or indices) will be used."""
    if not rollouts.has("pair:tie"):
        return torch.zeros(rollouts.rows("pair"), dtype=torch.bool, device=rollouts.device)
    return rollouts.column("pair:tie", where=rows).bool()


@dataclass(frozen=True)
class ImplicitReward:
    """What a policy's log-probs say an episode is worth, before the scale beta.

    Attributes:
        of_episodes: ``(log-probs of the policy [N], rollouts, credit) -> [E]``.
        needs: columns it reads.
    """

    of_episodes: Callable[[Tensor, Rollouts, Credit], Tensor]
    needs: tuple[str, ...] = ()


def _summed_log_ratio(log_probs: Tensor, rollouts: Rollouts, credit: Credit) -> Tensor:
    tokens, delta = episodes.log_ratios(log_probs, "log_probs/reference", rollouts, credit)
    return episodes.sum_by_episode(delta, tokens, rollouts)


def _mean_log_prob(log_probs: Tensor, rollouts: Rollouts, credit: Credit) -> Tensor:
    tokens = episodes.trained_tokens(credit)
    total = episodes.sum_by_episode(log_probs[tokens], tokens, rollouts)
    return total / episodes.count_by_episode(tokens, rollouts).clamp(min=1)


IMPLICIT_REWARDS: Mapping[str, ImplicitReward] = {
    "dpo": ImplicitReward(_summed_log_ratio, ("log_probs/reference",)),
    "simpo": ImplicitReward(_mean_log_prob),
}
"""``dpo``: the sum over trained tokens of ``log pi - log pi_ref``; ``simpo``: the mean of ``log pi``."""


def check_beta(beta: float) -> None:
    """Refuse a scale of the implicit reward that is not positive."""
    if not 0 < beta < math.inf:
        raise InputError(f"beta is {beta}, expected more than 0.")


def dpo(beta: float = 0.1) -> Objective:
    """Direct preference optimisation, written per token.

        rhat_t = beta (log pi(y_t) - log pi_ref(y_t))
        z      = sum of rhat over the preferred episode - sum of rhat over the other
        L      = mean over pairs of softplus(-z)

    Sums run over trained tokens, the end token included, without dividing by length. With a pair column ``weight`` the
    mean is weighted. Ties are left out.

    Args:
        beta: scale of the implicit reward.

    Metrics: ``margin`` (mean z), ``pair_accuracy`` (z is positive), ``reward_chosen``, ``reward_rejected`` (sums of
    rhat); means over pairs. A falling ``reward_chosen`` is displacement: see :mod:`apportion.annotations.ches`.

    Raises:
        InputError: ``beta`` that is not positive; when evaluated, rollouts without pairs, a pair of different prompts,
            an episode without tokens, a negative weight, or forced branches.

    Source: arXiv 2305.18290; per token arXiv 2404.12358.
    """
    check_beta(beta)
    implicit = IMPLICIT_REWARDS["dpo"]

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        compared = compared_pairs(rollouts, credit)
        chosen, rejected = compared.sides(beta * implicit.of_episodes(now["log_probs"], rollouts, credit))
        z = chosen - rejected
        metrics = compared.report(margin=z, pair_accuracy=z > 0, reward_chosen=chosen, reward_rejected=rejected)
        return Loss(compared.mean(softplus(-z)), metrics)

    return Objective("pair", ("log_probs",), implicit.needs, evaluate)
