"""CHES: how much training on a preference pair will lower the likelihood of the preferred answer itself.

The more alike the hidden states of both answers, the more of the preferred one's probability moves to something else.

Suffix legend: B responses, E episodes, K pairs, D hidden size.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from apportion.annotations.annotator import Annotator
from apportion.errors import InputError, check_share
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.pairs import check_prompts, pairs_of, with_some_pairs

SCORES = ("pair:ches", "pair:ches_length_normalised")


def ches_scores(preferred: Tensor, other: Tensor) -> Tensor:
    """``<S+, S-> - ||S+||^2`` of sums or means of hidden states ``[K, D]`` each; higher displaces more.

    Example:
        >>> ches_scores(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]])).tolist()
        [2.0]
    """
    return (preferred * (other - preferred)).sum(1)


def ches(evaluator: Literal["old", "reference"] = "reference") -> Annotator:
    """Pair columns ``ches`` and ``ches_length_normalised``: centred hidden embedding similarity.

        ches                    = <S+, S-> - ||S+||^2
        ches_length_normalised  = <S+, S->/(n+ n-) - ||S+||^2/(n+)^2

    S sums the hidden states from which an episode's n trained tokens were drawn. Answers that are equal score 0; so do
    all pairs of answers of one token, of which this says nothing: see :mod:`apportion.evals.displacement` for those.
    Rank pairs of similar length by the first, filter by the second, which does not grow with the length.

    Args:
        evaluator: whose hidden states; the paper takes the model as it is before all training, the ``reference``.

    Needs ``response:hidden_sum/<evaluator>``, of an annotator ``hidden_states`` before this one, and pairs.

    Raises:
        InputError: an unknown evaluator; when applied, no pairs, a pair of different prompts, or an episode of one
            without tokens that train.

    Source: arXiv 2410.08847; princeton-nlp/unintentional-unalignment, ches.py.
    """

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        pairs = pairs_of(rollouts)
        check_prompts(rollouts, pairs)
        sums_B = rollouts.column(f"response:hidden_sum/{evaluator}", reader="ches").double()
        total_E = ragged.sum_rows(sums_B, rollouts.response_offsets)
        count_E = ragged.sum_rows(rollouts.trained.double(), rollouts.episode_offsets)
        if bool((count_E[torch.stack([pairs.preferred, pairs.other])] == 0).any()):
            raise InputError("an episode of a pair has no token that trains, expected one or more: leave it out.")
        mean_E = total_E / count_E.clamp(min=1)[:, None]
        for name, value_E in zip(SCORES, (total_E, mean_E), strict=True):
            scores = ches_scores(value_E[pairs.preferred], value_E[pairs.other])
            rollouts = rollouts.with_column(name, scores, maker="ches", evaluator=evaluator)
        return rollouts

    return Annotator(apply, SCORES, evaluator, reads_policy=False)


def ches_filter(keep_fraction: float = 0.05, length_normalised: bool = True) -> Annotator:
    """Keep the pairs of a batch that displace least; the others are no pairs any more.

    Args:
        keep_fraction: the ``ceil(keep_fraction K)`` pairs of lowest score are kept. The paper's 0.05 is of a whole
            data set; to filter one before training, use :func:`apportion.curricula.pair_filter.filter_file`.
        length_normalised: score by ``ches_length_normalised``, else by ``ches``.

    Needs the pair columns of an annotator ``ches`` before this one.

    Raises:
        InputError: a fraction that is not more than 0 and at most 1.

    Source: arXiv 2410.08847.
    """
    check_share("keep_fraction", keep_fraction)

    def apply(rollouts: Rollouts, policy: Any) -> Rollouts:
        scores = rollouts.column(SCORES[length_normalised], reader="ches_filter")
        return with_some_pairs(rollouts, keep_lowest(scores, keep_fraction))

    return Annotator(apply, (), reads_policy=False)


def keep_lowest(scores: Tensor, keep_fraction: float) -> Tensor:
    """The ``ceil(keep_fraction K)`` lowest scores' indices, ascending; of equal scores the first.

    Example:
        >>> keep_lowest(torch.tensor([2.0, 1.0, 1.0, 3.0]), 0.3).tolist()
        [1, 2]
    """
    check_share("keep_fraction", keep_fraction)
    count = math.ceil(keep_fraction * len(scores) - 1e-12)
    return torch.argsort(scores, stable=True)[:count].sort().values


def quantile_window(scores: Tensor, quantile: float, count: int) -> Tensor:
    """Indices of ``count`` neighbours in the order of scores, ascending, around a quantile; fewer if there are.

    The window begins ``count // 2`` before ``round(quantile (K - 1))``, halves rounded to even, and is shifted to lie
    inside.

    Example:
        >>> quantile_window(torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0]), quantile=1.0, count=2).tolist()
        [2, 0]
    """
    if not 0 <= quantile <= 1:
        raise InputError(f"the quantile is {quantile}, expected 0 to 1.")
    if count < 1:
        raise InputError(f"count is {count}, expected 1 or more.")
    total = len(scores)
    start = max(0, min(max(0, round(quantile * (total - 1)) - count // 2), total - count))
    return torch.argsort(scores, stable=True)[start : start + count]
