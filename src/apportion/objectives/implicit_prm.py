"""The implicit process reward model of OPRL: a second model that learns to prefer successful trajectories.

Suffix legend: n trained tokens, T decisions, E episodes, m members, K pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.errors import InputError, unknown_name
from apportion.objectives import episodes
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Rollouts, ragged, steps

TRAJECTORY_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda total, count: total / count.clamp(min=1),
    "sum": lambda total, count: total,
}
"""Score of a trajectory from the sum over its decisions and their number."""


def implicit_prm(
    beta: float = 0.05, traj_score: str = "mean", threshold: float = 0.0, component: str = "outcome"
) -> Objective:
    """Preference loss over all pairs of a success and a failure in a group, of the reward model's own log-ratios.

        q_i = sum over the decision's tokens of (log pi_phi(y_t) - log pi_old(y_t))
        Q   = beta * mean (or sum) of q over the decisions of the trajectory
        L   = mean over pairs of softplus(-(Q_success - Q_failure)),   0 without pairs

    ``now`` are the reward model's statistics. Only trained tokens inside decisions count, and decisions with none do
    not enter the mean.

    Args:
        beta: scale of the log-ratios.
        traj_score: ``mean`` (the authors' code) or ``sum`` (the paper).
        threshold: episodes rewarded more than this are successes.
        component: the reward.

    Metrics: ``prm_pairs``, how many; ``prm_accuracy``, the share in which the success scores higher.

    Raises:
        InputError: ``beta`` that is not positive, or an unknown ``traj_score``; when evaluated, an unknown reward that
            the credit did not leave out, or forced branches.

    Source: arXiv 2509.19199; Tongyi-ConvAI/Qwen-Character, CharacterRL-iStar.
    """
    if not 0 < beta < math.inf:
        raise InputError(f"beta is {beta}, expected more than 0.")
    if traj_score not in TRAJECTORY_SCORES:
        raise unknown_name("traj_score", traj_score, TRAJECTORY_SCORES)

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        members, reward = episodes.rewarded(component, rollouts, credit)
        success, failure = _pairs(reward > threshold, rollouts.group_of_episode[members])
        score = beta * _trajectory_scores(now["log_probs"], rollouts, credit, traj_score)[members]
        z = score[success] - score[failure]
        pairs = max(len(z), 1)
        metrics = {"prm_pairs": z.new_tensor(len(z)), "prm_accuracy": (z > 0).double().sum() / pairs}
        return Loss(softplus(-z).sum() / pairs, metrics)

    return Objective("group", ("log_probs",), ("log_probs/old", f"reward/{component}"), evaluate)


def _trajectory_scores(log_probs: Tensor, rollouts: Rollouts, credit: Credit, traj_score: str) -> Tensor:
    """``[E]``, before beta."""
    tokens, delta = episodes.log_ratios(log_probs, "log_probs/old", rollouts, credit)
    decisions = steps(rollouts)
    step = decisions.step_of_token[tokens]
    inside = step >= 0
    total = episodes.sum_by_episode(delta[inside], tokens[inside], rollouts)
    taken = decisions.episode[torch.unique(step[inside])]
    return TRAJECTORY_SCORES[traj_score](total, torch.bincount(taken, minlength=rollouts.n_episodes))


def _pairs(success: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of a success and a failure of the same group, as places among the members ``[K]`` each.

    Example:
        >>> right = torch.tensor([True, False, True, False])
        >>> [side.tolist() for side in _pairs(right, torch.tensor([0, 0, 0, 1]))]
        [[0, 2], [1, 1]]
    """
    wins, losses = success.nonzero().squeeze(1), (~success).nonzero().squeeze(1)
    losses = losses[torch.argsort(group[losses], stable=True)]
    groups = int(group.max()) + 1 if len(group) else 0
    of_group = ragged.offsets_of(torch.bincount(group[losses], minlength=groups))
    starts, ends = of_group[group[wins]], of_group[group[wins] + 1]
    return torch.repeat_interleave(wins, ends - starts), losses[ragged.ranges(starts, ends)]
