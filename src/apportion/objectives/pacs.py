"""PACS: the verdict as a class label, the policy's own log-ratios as the classifier.

Suffix legend: E episodes, m members of the comparison.
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
from apportion.credit.reduce import statistics
from apportion.errors import InputError, unknown_name
from apportion.objectives import episodes
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Rollouts


def _log_ratio_sum(now: Now, rollouts: Rollouts, credit: Credit) -> Tensor:
    tokens, delta = episodes.log_ratios(now["log_probs"], "log_probs/old", rollouts, credit)
    return episodes.sum_by_episode(delta, tokens, rollouts)


def _mean_logprob(now: Now, rollouts: Rollouts, credit: Credit) -> Tensor:
    tokens = episodes.trained_tokens(credit)
    total = episodes.sum_by_episode(now["log_probs"][tokens], tokens, rollouts)
    return total / episodes.count_by_episode(tokens, rollouts).clamp(min=1)


def _grpo(proxy: Tensor, group: Tensor, std: bool) -> Tensor:
    whole = statistics(proxy, group)
    deviation = proxy - whole.mean
    variance = statistics(deviation**2, group).mean * whole.count / (whole.count - 1).clamp(min=1)
    root = torch.where(variance > 0, torch.where(variance > 0, variance, 1.0).sqrt(), 0.0)  # no slope at 0
    return deviation / (root + 1e-6) if std else deviation


def _rloo(proxy: Tensor, group: Tensor, std: bool) -> Tensor:
    whole = statistics(proxy, group)
    return (proxy - whole.mean) * whole.count / (whole.count - 1).clamp(min=1)


def _question(label: Tensor, group: Tensor) -> Tensor:
    right = statistics(label, group).mean
    share = torch.where(label > 0, right, 1 - right)
    return torch.where((right > 0) & (right < 1), 0.5 / share, 1.0)


REWARD_PROXIES = {"log_ratio_sum": (_log_ratio_sum, ("log_probs/old",)), "mean_logprob": (_mean_logprob, ())}
"""How much the policy favours an episode ``[E]``, and the columns that takes."""

ESTIMATORS: dict[str, Callable[[Tensor, Tensor, bool], Tensor]] = {
    "rloo": _rloo,
    "grpo": _grpo,
    "naive": lambda proxy, group, std: proxy,
}
"""Logit of a member from the proxies of its group; a member alone has 0, except where members stand for themselves."""

STAND_ALONE = ("naive",)

CLASS_WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "question": _question,
    "only_positive": lambda label, group: label,
    "only_negative": lambda label, group: 1 - label,
    "none": lambda label, group: torch.ones_like(label),
}
"""Weight of a member's term from the labels of its group."""


@dataclass(frozen=True, eq=False)
class Classification:
    """By member ``[m]`` its label, proxy and score (both with gradient) and weight."""

    labels: Tensor
    proxy: Tensor
    score: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Classifier:
    """Makes the classification problem of a batch; the fields are the arguments of :func:`pacs`."""

    beta: float
    estimator: str
    class_weight: str
    reward_proxy: str
    grpo_std: bool
    component: str

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise InputError(f"beta is {self.beta}, expected more than 0.")
        choices: dict[str, Mapping[str, object]] = {
            "estimator": ESTIMATORS,
            "class_weight": CLASS_WEIGHTS,
            "reward_proxy": REWARD_PROXIES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)

    def __call__(self, now: Now, rollouts: Rollouts, credit: Credit) -> Classification:
        episodes.refuse_branches(rollouts)
        members, reward = episodes.rewarded(self.component, rollouts, credit)
        if not bool(((reward == 0) | (reward == 1)).all()):
            odd = float(reward[(reward != 0) & (reward != 1)][0])
            raise InputError(f"an episode has the reward {odd:g}, expected 0 or 1: it is a class label.")
        group, size = rollouts.group_of_episode[members], torch.bincount(rollouts.group_of_episode)
        if self.estimator not in STAND_ALONE and bool((size[group] < 2).any()):
            raise InputError("a group has one member, expected at least two to compare: choose estimator='naive'.")
        proxy = self.beta * REWARD_PROXIES[self.reward_proxy][0](now, rollouts, credit)[members]
        score = ESTIMATORS[self.estimator](proxy, group, self.grpo_std)
        label = reward.to(score.dtype)
        return Classification(label, proxy, score, CLASS_WEIGHTS[self.class_weight](label, group))


def pacs(
    beta: float = 1.0,
    estimator: str = "rloo",
    class_weight: str = "question",
    reward_proxy: str = "log_ratio_sum",
    grpo_std: bool = True,
    component: str = "outcome",
) -> Objective:
    """Cross-entropy of the verdict under a logit made of the policy's log-ratios against those of the group.

        s_i   = beta * sum_t (log pi(y_t) - log pi_old(y_t))
        psi_i = s_i - mean of s_j over the others of the group
        L     = mean_i w_i (softplus(psi_i) - y_i psi_i)

    with y the 0/1 reward; the gradient flows through every s of the group. At pi = pi_old it is a leave-one-out policy
    gradient with rewards ``w_i (y_i - 1/2)``. Pair it with credit ``none(component='outcome')``; a group that dropping
    unknown members leaves with one has no gradient. The authors do not clip the gradient's norm.

    Args:
        beta: scale of the proxy.
        estimator: of psi: ``rloo``; ``grpo``, ``(s_i - mean) / (sample std + 1e-6)``; or ``naive``, s_i.
        class_weight: ``question``, ``n / (2 n_label)`` where a group has both labels, else 1; ``only_positive``,
            ``only_negative``, ``none``.
        reward_proxy: ``log_ratio_sum``, or ``mean_logprob``: s_i is beta times the mean log-prob.
        grpo_std: whether ``grpo`` divides by the deviation.
        component: the reward.

    Metrics: ``pacs_accuracy`` (the score has the label's sign), ``pacs_score`` (largest absolute score).

    Raises:
        InputError: an unknown choice, or ``beta`` that is not positive; when evaluated, a reward other than 0 and 1, a
            group sampled with one member, an episode without tokens, or forced branches.

    Source: arXiv 2509.02522; ritzz-ai/PACS.
    """
    classifier = Classifier(beta, estimator, class_weight, reward_proxy, grpo_std, component)

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        at = classifier(now, rollouts, credit)
        count, sizes = max(len(at.labels), 1), at.score.detach().abs()
        value = (at.weights * (softplus(at.score) - at.labels * at.score)).sum() / count
        right = ((at.score > 0) == (at.labels > 0)).double().sum() / count
        return Loss(value, {"pacs_accuracy": right, "pacs_score": sizes.max() if len(sizes) else right})

    return Objective("group", ("log_probs",), (*REWARD_PROXIES[reward_proxy][1], f"reward/{component}"), evaluate)
