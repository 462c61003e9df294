"""Prefix values shrunk towards the value of the fork above, as far as their own draws are few.

Along a path the value V(s_t) = E[R | s_t] is a martingale: before its draws are seen, the best guess of a fork's value
is that of the fork above. Writing sigma^2 for the variance of a draw about its fork's value and tau^2 for that of the
change of value from a fork to the next,

    V(f) | V(above) ~ (V(above), tau^2)         mean of n draws | V(f) ~ (V(f), sigma^2 / n)

and with an estimate b of V(above) whose own error has variance p, the best linear estimate of V(f) and its error are

    B = (sigma^2 / n) / (sigma^2 / n + tau^2 + p)
    b(f) = (1 - B) mean + B b                   p(f) = (1 - B) sigma^2 / n

a Kalman filter down the path, in closed form: B is 1 where a fork has no draws to offer, and falls as they grow. Both
variances are moments over all groups *but the draw's own*, so that B is independent of what it weighs:

    sigma^2 = sum (X - mean)^2 / sum (n - 1)                                     over draws, within forks
    tau^2   = mean of (X(d) - m)^2 - sigma^2 (1/n + 1/o)                         over draws d that lead to a fork

with n the draws of the fork below, m the mean of d's o siblings; not below 0.

Suffix legend: D draws, F forks, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.credit.algebra import Result, Stage, Work, estimator
from apportion.credit.trees.backups import Values, back_up, on_tokens, others, scored
from apportion.credit.trees.draws import DrawTree, draw_tree
from apportion.credit.trees.siblings import BIASES
from apportion.errors import InputError


@dataclass(frozen=True, eq=False)
class Variances:
    """By group ``[G]``: of draws about their fork's value, and of the change of value between forks; NaN where there is
    nothing to estimate the first from."""

    draw: Tensor
    change: Tensor


def variances(tree: DrawTree, values: Values, leave_out: bool = True) -> Variances:
    """Moment estimates, every group's from the others.

    Args:
        tree: of draws.
        values: of them.
        leave_out: leave a group out of its own estimates, as unbiased gradients ask; False: one estimate from all.
    """
    groups = int(tree.group.max()) + 1 if len(tree.group) else 0
    zero = values.draw.new_zeros(groups)
    of_draw = tree.group[tree.above]

    def elsewhere(each: Tensor) -> Tensor:
        own = zero.index_add(0, of_draw, each)
        return own.sum() - own if leave_out else own.sum().expand(groups)

    deviation = values.count * (values.draw - values.fork[tree.above]) ** 2
    # n - 1 of a fork, shared out among its n draws.
    total = values.total[tree.above]
    freedom = values.count * (1 - 1 / total.clamp(min=1))
    squares, degrees = elsewhere(deviation), elsewhere(freedom)
    draw = torch.where(degrees > 1e-9, squares / degrees.clamp(min=1e-9), torch.nan)

    mean, rest = others(tree, values)
    below = values.total[tree.below.clamp(min=0)]
    leads = (tree.below >= 0) & (values.count > 0) & (rest > 0) & (below > 0)
    change = elsewhere(torch.where(leads, (values.draw - mean) ** 2, 0.0))
    noise = elsewhere(torch.where(leads, 1 / below.clamp(min=1) + 1 / rest.clamp(min=1), 0.0))
    count = elsewhere(leads.to(zero.dtype))
    between = ((change - draw * noise) / count.clamp(min=1)).clamp(min=0)
    return Variances(draw, torch.where(count > 0, between, 0.0))


def filtered(tree: DrawTree, mean: Tensor, count: Tensor, sizes: Variances) -> tuple[Tensor, Tensor]:
    """The filter down every path.

    Args:
        tree: of draws.
        mean: of what speaks for every draw's fork ``[D]``: its siblings, or all draws of the fork.
        count: how many those are ``[D]``.
        sizes: the variances.

    Returns:
        estimates ``[D]`` of the value of every draw's fork, and whether there is one, bool ``[D]``.
    """
    group = tree.group[tree.above]
    noise, change = sizes.draw[group], sizes.change[group]
    estimate, has = torch.where(count > 0, mean, 0.0), count > 0
    error = torch.where(has, noise / count.clamp(min=1), torch.inf)
    for level in range(1, tree.depth):
        # Where a rule looked ahead the place says something of the value: no martingale, nothing to shrink to.
        here = ((tree.level[tree.above] == level) & ~(tree.ahead[tree.above] & has)).nonzero().squeeze(1)
        parent = tree.into[tree.above[here]]
        prior = error[parent] + change[here]
        own = torch.where(count[here] > 0, noise[here] / count[here].clamp(min=1), torch.inf)
        weigh = has[parent] & (own + prior > 0) & ~noise[here].isnan()
        share = torch.where(own.isinf(), 1.0, own / (own + prior))  # B
        share = torch.where(weigh, share, (~has[here] & has[parent]).to(mean.dtype))
        estimate[here] = (1 - share) * estimate[here] + share * torch.where(has[parent], estimate[parent], 0.0)
        error[here] = torch.where(own.isinf(), prior, (1 - share) * own)
        has[here] = has[here] | has[parent]
    return estimate, has


def shrunk_values(tree: DrawTree, values: Values, sizes: Variances) -> Tensor:
    """Value of every fork ``[F]``, shrunk towards that of the fork above; 0 where nothing is known."""
    all_of = values.fork[tree.above], values.total[tree.above]
    estimate, has = filtered(tree, *all_of, sizes)
    result = values.fork.clone()
    result[tree.above[has]] = estimate[has]  # the draws of a fork all say the same
    return result


def tree_shrunk(component: str = "outcome", backup: str = "rule") -> Stage:
    """What a draw led to, against a baseline that draws on the whole path above.

        A_t = X(d) - b(d)                       for every token t of draw d

    X as of ``tree``; b the filter's estimate of the value of d's fork from d's siblings and, as far as they are few,
    from the siblings of the draws above. None of them depends on d, and the variances are those of other groups, so
    the gradient is as exact as with siblings alone, with less variance where forks have few draws. In a batch of one
    group, or whose other groups never fork the same state twice, it is ``tree``.

    Args:
        component: the reward.
        backup: one of :data:`apportion.credit.trees.BACKUPS` but ``leaves``.

    Details: ``draw_value`` and ``draw_baseline`` of every token's draw; ``fork_value``, the shrunk value of its fork.

    Raises:
        InputError: an unknown backup; when run, branches that are no trees.

    Source: own; the derivation is in this module's docstring.
    """
    if backup not in ("rule", "draws", "fresh"):
        raise InputError(f"backup is {backup!r}, expected rule, draws or fresh.")

    @estimator(needs=(f"reward/{component}",), bias=BIASES[backup], compares_groups=True, compares_branches=True)
    def against_the_path(work: Work) -> Result:
        given = scored(work, component)
        draws = draw_tree(given.rollouts, backup)
        values = back_up(draws, given.outcome, given.known)
        sizes = variances(draws, values)
        expected, has = filtered(draws, *others(draws, values), sizes)
        advantage = torch.where(has & (values.count > 0), values.draw - expected, 0.0)
        details = {
            "draw_value": values.draw,
            "draw_baseline": expected,
            "fork_value": shrunk_values(draws, values, sizes)[draws.above],
        }
        return Result(
            given.seen(on_tokens(draws, advantage)),
            {name: given.seen(on_tokens(draws, each)) for name, each in details.items()},
        )

    return against_the_path
