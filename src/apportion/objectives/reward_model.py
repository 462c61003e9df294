"""What a reward model minimises that writes a critique before it scores.

Suffix legend: n trained tokens, E episodes, K pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.algebra import Clock, last_of_row, row_of_token
from apportion.credit.assign import Credit
from apportion.credit.reduce import group_by
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError
from apportion.objectives import episodes
from apportion.objectives.preference import compared_pairs, tied
from apportion.objectives.protocol import Loss, Now, Objective
from apportion.rollouts import Rollouts

CRITIQUE = "critique"
"""The kind of span that holds critiques."""


def reward_model(
    reward_weight: float = 1.0,
    tie_weight: float = 1.0,
    center_coefficient: float = 0.01,
    critic_weight: float = 1.0,
    margin: bool = False,
    head: str = "reward",
) -> Objective:
    """Preferences between scores, ties and centring, and the likelihood of the critiques before the scores.

        L = reward_weight ( mean over non-ties of softplus(r_other - r_preferred + margin)
                            + tie_weight * mean over ties of (r_preferred - r_other)^2 )
            + center_coefficient * mean over pairs of (r_preferred + r_other)^2
            + critic_weight * share of pairs with critiques * (nll_preferred + nll_other)

    r is the model's score after the last trained token of an episode. An episode's critique are its trained tokens
    in spans of kind ``critique``; a pair has critiques if both its episodes have one. nll are means of - log pi over
    the critique tokens of all such preferred episodes, and of all such others. A mean over nothing is 0.

    Args:
        reward_weight: of the terms that compare.
        tie_weight: of ties (``pair:tie``) among them; ours, no default of the authors' was found.
        center_coefficient: draws scores to 0.
        critic_weight: of the critiques; 0: there are none, and the model need not speak.
        margin: the preferred score should lead by the pair column ``margin``; without ties only.
        head: which score head.

    ``now`` are the reward model's statistics: it is trained beside a policy, by learner ``reward_model``. Pair weights
    as in ``dpo``.

    Metrics: ``pair_accuracy`` (ACC, the share of non-ties in which the preferred episode scores higher),
    ``item_accuracy`` (ACC+, the share of groups all of whose non-ties are right), ``score_preferred``,
    ``score_other`` and ``critique_nll``, the sum of both.

    Raises:
        InputError: a negative setting; when evaluated, a margin beside ties, no spans of critiques though
            ``critic_weight`` is not 0, and all that ``dpo`` refuses.

    Source: arXiv 2502.10391; Kwai-YuanQi/MM-RLHF, ``compute_loss`` of the reward model.
    """
    given = {
        "reward_weight": reward_weight,
        "tie_weight": tie_weight,
        "center_coefficient": center_coefficient,
        "critic_weight": critic_weight,
    }
    for name, value in given.items():
        check_coefficient(name, value)
    score = f"scores/{head}"

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        compared = compared_pairs(rollouts, credit, ties=True)
        preferred, other = compared.sides(_last_score(now[score], rollouts, credit))
        tie = tied(rollouts, compared.rows)[compared.rows]
        lead = preferred - other
        if margin:
            if bool(tie.any()):
                raise InputError("margin=True and some pairs are ties, expected margins without ties: leave one out.")
            lead_by = rollouts.column("pair:margin", where=compared.rows, reader="this objective")[compared.rows]
            missing = softplus(lead_by.to(lead.dtype) - lead)
        else:
            missing = softplus(-lead)
        compare = compared.mean(missing, over=~tie) + tie_weight * compared.mean(lead**2, over=tie)
        value = reward_weight * compare + center_coefficient * compared.mean((preferred + other) ** 2)
        nll = value.new_zeros(())
        if critic_weight:
            total_E, count_E = _critiques(now["log_probs"], rollouts, credit)
            totals, counts = compared.sides(total_E), compared.sides(count_E)
            speaks = (counts[0] > 0) & (counts[1] > 0)
            of_sides = (_over(side, count, speaks) for side, count in zip(totals, counts, strict=True))
            nll = torch.stack(list(of_sides)).sum()
            value = value + critic_weight * compared.mean(speaks.to(nll.dtype)) * nll
        pair, item = accuracies(preferred[~tie], other[~tie], rollouts.group_of_episode[compared.preferred][~tie])
        metrics = {"pair_accuracy": pair, "item_accuracy": item, "critique_nll": nll.detach().double()}
        metrics |= compared.report(score_preferred=preferred, score_other=other)
        return Loss(value, metrics)

    now = (score, "log_probs") if critic_weight else (score,)
    return Objective("pair", now, ("pair:margin",) if margin else (), evaluate)


def accuracies(preferred: Tensor, other: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
    """ACC and ACC+: how many pairs are in the right order, and of how many items all pairs are.

    Args:
        preferred: scores ``[K]``; equal to the other's is wrong.
        other: scores ``[K]``.
        item: the item a pair belongs to ``[K]``, by any number.

    Returns:
        two scalars; 0 without pairs.

    Example:
        >>> scores = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
        >>> [round(float(share), 3) for share in accuracies(*scores, torch.tensor([7, 7, 8]))]
        [0.667, 0.5]
    """
    right = preferred.detach() > other.detach()
    number, items = group_by(item)
    wrong = torch.zeros(items, dtype=torch.bool, device=item.device)
    wrong[number[~right]] = True
    return right.double().sum() / max(len(right), 1), (~wrong).double().sum() / max(items, 1)


def _last_score(score: Tensor, rollouts: Rollouts, credit: Credit) -> Tensor:
    """The score after the last trained token of every episode ``[E]``; 0 where nothing trains."""
    last = last_of_row(rollouts.episode_of_token, credit.trained).nonzero().squeeze(1)
    return score.new_zeros(rollouts.n_episodes).index_put((rollouts.episode_of_token[last],), score[last])


def _critiques(log_probs: Tensor, rollouts: Rollouts, credit: Credit) -> tuple[Tensor, Tensor]:
    """Of every episode, minus the sum of log-probs over its critique's trained tokens, and their number ``[E]``."""
    if CRITIQUE not in rollouts.spans:
        raise InputError(
            f"these rollouts have no spans of kind {CRITIQUE!r}, expected the critiques that the model learns to "
            "write: add such spans, or set critic_weight=0."
        )
    inside = credit.trained & (row_of_token(rollouts, CRITIQUE) >= 0)
    tokens = inside.nonzero().squeeze(1)
    total = episodes.sum_by_episode(-log_probs[tokens], tokens, rollouts)
    return total, episodes.count_by_episode(tokens, rollouts)


def _over(total: Tensor, count: Tensor, speaks: Tensor) -> Tensor:
    """The mean over the critique tokens of one side of the pairs that have critiques."""
    return torch.where(speaks, total, 0.0).sum() / torch.where(speaks, count, 0).sum().clamp(min=1)
