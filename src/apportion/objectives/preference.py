"""DPO: prefer one episode to another, token by token.

Suffix legend: E episodes, K pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.errors import InputError
from apportion.objectives import episodes
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Pairs, Rollouts, ragged


def compared_pairs(rollouts: Rollouts, credit: Credit) -> tuple[Pairs, Tensor]:
    """The pairs that say something, and the weight of each ``[K]``.

    Ties (``pair:tie``) say nothing; pairs with an episode of which nothing trains are left out too.

    Raises:
        InputError: no pairs at all, a pair of different prompts, an episode without any token, or a negative weight.
    """
    if rollouts.pairs is None:
        raise InputError("these rollouts have no pairs, expected preferences between episodes: add pair records.")
    both = torch.stack([rollouts.pairs.preferred, rollouts.pairs.other])
    if bool((ragged.lengths_of(rollouts.episode_offsets)[both] == 0).any()):
        raise InputError("an episode of a pair has no tokens, expected at least the end token: leave it out.")
    keep = (episodes.count_by_episode(episodes.trained_tokens(credit), rollouts)[both] > 0).all(0)
    if rollouts.has("pair:tie"):
        keep &= ~rollouts.column("pair:tie", where=keep).bool()
    pairs = Pairs(*both[:, keep])
    _check_prompts(rollouts, pairs)
    if not rollouts.has("pair:weight"):
        return pairs, torch.ones(len(pairs.preferred), device=rollouts.device)
    weight = rollouts.column("pair:weight", where=keep)[keep]
    if bool((weight < 0).any()):
        raise InputError(f"a pair has the weight {float(weight.min()):g}, expected 0 or more.")
    return pairs, weight


def _check_prompts(rollouts: Rollouts, pairs: Pairs) -> None:
    """Both episodes of a pair answer the same prompt, by content."""
    first = rollouts.prompts[rollouts.response_offsets[:-1]]
    starts, ends = rollouts.prompt_offsets[:-1], rollouts.prompt_offsets[1:]
    one, two = first[pairs.preferred], first[pairs.other]
    same = bool((ends[one] - starts[one] == ends[two] - starts[two]).all())
    if same:
        tokens = (rollouts.prompt_ids[ragged.ranges(starts[side], ends[side])] for side in (one, two))
        same = torch.equal(*tokens)
    if not same:
        raise InputError(
            "the episodes of a pair have different prompts, expected the same: pair answers to one prompt."
        )


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
    rhat); means over pairs.

    Raises:
        InputError: ``beta`` that is not positive; when evaluated, rollouts without pairs, a pair of different prompts,
            an episode without tokens, a negative weight, or forced branches.

    Source: arXiv 2305.18290; per token arXiv 2404.12358.
    """
    if not 0 < beta < math.inf:
        raise InputError(f"beta is {beta}, expected more than 0.")

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        pairs, weight = compared_pairs(rollouts, credit)
        tokens, delta = episodes.log_ratios(now["log_probs"], "log_probs/reference", rollouts, credit)
        reward = beta * episodes.sum_by_episode(delta, tokens, rollouts)
        chosen, rejected = reward[pairs.preferred], reward[pairs.other]
        z, share = chosen - rejected, weight.to(reward.dtype) / weight.sum().clamp(min=torch.finfo(reward.dtype).tiny)
        shown = {"margin": z, "pair_accuracy": z > 0, "reward_chosen": chosen, "reward_rejected": rejected}
        metrics = {name: values.detach().double().sum() / max(len(z), 1) for name, values in shown.items()}
        return Loss((share * softplus(-z)).sum(), metrics)

    return Objective("pair", ("log_probs",), ("log_probs/reference",), evaluate)
