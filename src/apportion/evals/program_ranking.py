"""Choosing among candidate answers by what a model says of them, and what the choice is worth.

Suffix legend: E programs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.credit.baselines import none
from apportion.errors import InputError
from apportion.evals.pass_at_k import pass_at_k
from apportion.models.measuring import measure, micro_batches
from apportion.models.policy import Model
from apportion.objectives.bellman import GREEDY, PRETRAINED, RESIDUAL, Scale, read_values
from apportion.rollouts import Rollouts


def program_scores(
    policy: Model, pretrained: Model, rollouts: Rollouts, scale: Scale, max_tokens: int = 1 << 14
) -> Tensor:
    """What B-Coder's recovered reward says of every program, without running it ``[E]``.

        rtilde_t = Q(s_t, a_t) - gamma V(s_{t+1}),    score = sum_t rtilde_t

    Args:
        policy: trained by objective ``b_coder``, with its residual value head.
        pretrained: the critic of learner ``pretrained_value``.
        rollouts: the programs; all their trained tokens are read.
        scale: how both were trained.
        max_tokens: padded tokens in one forward pass.

    Source: arXiv 2310.03173.
    """
    parts = micro_batches(rollouts, max_tokens)
    own = measure(policy, rollouts, ("log_probs", "max_log_prob", RESIDUAL), parts)
    fixed = measure(pretrained, rollouts, (PRETRAINED,), parts)[PRETRAINED]
    # The greedy token of the checkpoint enters exact rewards only, which are not read.
    now = {**own, GREEDY: torch.zeros_like(own["log_probs"])}
    return read_values(now, rollouts.with_column(PRETRAINED, fixed), none()(rollouts), scale).scores


def rank(scores: Sequence[float]) -> list[int]:
    """Candidates from the highest score down; of equal ones the earlier first.

    Raises:
        InputError: a score that is not finite.

    Example:
        >>> rank([0.3, 0.9, 0.3])
        [1, 0, 2]
    """
    given = torch.tensor(scores, dtype=torch.float64)
    if not bool(given.isfinite().all()):
        raise InputError("a score is not finite, expected a number for every candidate.")
    return torch.argsort(given, descending=True, stable=True).tolist()


def ranked_pass(scores: Sequence[float], correct: Sequence[int], k: int) -> float:
    """1 if one of the k candidates of the highest score is correct, else 0.

    Args:
        scores: of every candidate.
        correct: 1 where the candidate is.
        k: how many are handed in.

    Raises:
        InputError: ``k`` outside 1 to the number of candidates, or not one verdict a candidate.

    Example:
        >>> [ranked_pass([0.3, 0.9, -1.0], [1, 0, 0], k) for k in (1, 2)]
        [0.0, 1.0]
    """
    if len(scores) != len(correct):
        raise InputError(f"got {len(scores)} scores and {len(correct)} verdicts, expected one each a candidate.")
    _check_k(k, len(scores))
    return float(any(correct[i] for i in rank(scores)[:k]))


def unranked_pass(correct: Sequence[int], k: int) -> float:
    """The chance that one of k candidates drawn without regard to score is correct: unbiased pass@k.

    Raises:
        InputError: ``k`` outside 1 to the number of candidates.

    Example:
        >>> unranked_pass([1, 0, 0, 0], 2)
        0.5
    """
    _check_k(k, len(correct))
    return float(pass_at_k([len(correct)], [sum(bool(c) for c in correct)], k)[0])


def _check_k(k: int, candidates: int) -> None:
    if not isinstance(k, int) or not 1 <= k <= candidates:
        raise InputError(f"k is {k!r} of {candidates} candidates, expected a whole number from 1 to {candidates}.")
