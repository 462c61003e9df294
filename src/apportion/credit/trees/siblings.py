"""Trees with the siblings as baseline: the exact gradient, whatever the shape of the tree."""

from __future__ import annotations

import torch

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, estimator
from apportion.credit.trees.backups import back_up, baselines, on_tokens, scored
from apportion.credit.trees.draws import BACKUPS, draw_tree
from apportion.errors import InputError

BIASES = {
    "rule": Bias(Claim.EXACT),
    "draws": Bias(Claim.EXACT),
    "fresh": Bias(Claim.EXACT),
    "leaves": Bias(Claim.BIASED, "a fork's leaves count for all prefixes above it"),
}
"""Of the gradient, under rules that look at the prefix alone and with the weights the sampler records."""


def tree(component: str = "outcome", backup: str = "rule", baseline: str = "siblings") -> Stage:
    """What a draw led to, against its siblings.

        A_t = X(d) - b(d)                 for every token t of draw d
        X(d) = R where the draw ends, else the mean of the draws at the fork it leads to
        b(d) = mean of X over the other draws at d's fork; without others, b of the draw that leads there

    With the sampler's weights (1/k at a fork with k draws, multiplied along the path) this is the exact policy gradient
    if rules look at the prefix alone. At a fork s with draws a_1..a_k, independent given s, one of them contributes

        1/k E[ sum_i grad log pi(a_i | s) (X_i - b_i) ] = E[ grad log pi(a | s) Q(s, a) ]

    because b_i is made of draws other than i; at a token without a fork the nearest fork's other draws are as
    independent of it. A rule that looks ahead chooses where further gradient is taken: its forks' values are unbiased
    (fresh draws alone; ancestors keep the outcome they had), the states trained on are the rule's choice.

    Without branches it is RLOO.

    Args:
        component: the reward.
        backup: ``rule`` follows what each rule looked at; ``draws``, ``fresh`` and ``leaves`` are for comparison, see
            :data:`apportion.credit.trees.BACKUPS`.
        baseline: ``siblings``; or ``all``, the fork's value with the draw itself, which shrinks by (k - 1)/k.

    Details: ``draw_value`` and ``draw_baseline`` of every token's draw.

    Raises:
        InputError: an unknown backup or baseline; when run, branches that are no trees.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> tree()(group).advantages.tolist()
        [1.0, 1.0, -1.0, -1.0]
    """
    if backup not in BACKUPS:
        raise InputError(f"backup is {backup!r}, expected one of {', '.join(BACKUPS)}.")
    if baseline not in ("siblings", "all"):
        raise InputError(f"baseline is {baseline!r}, expected 'siblings' or 'all'.")
    bias = BIASES[backup] if baseline == "siblings" else Bias(Claim.BIASED, "baselines include the draw itself")

    @estimator(needs=(f"reward/{component}",), bias=bias, compares_groups=True, by_group=True, compares_branches=True)
    def against_siblings(work: Work) -> Result:
        given = scored(work, component)
        draws = draw_tree(given.rollouts, backup)
        values = back_up(draws, given.outcome, given.known, by_leaves=backup == "leaves")
        expected, has = baselines(draws, values)
        if baseline == "all":
            expected = torch.where(values.count > 0, values.fork[draws.above], expected)
        used = has & (values.count > 0)
        advantage = torch.where(used, values.draw - expected, 0.0)
        return Result(
            given.seen(on_tokens(draws, advantage)),
            {
                "draw_value": given.seen(on_tokens(draws, values.draw)),
                "draw_baseline": given.seen(on_tokens(draws, expected)),
            },
        )

    return against_siblings
