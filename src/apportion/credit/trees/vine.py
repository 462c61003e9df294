"""VinePPO: prefix values from extra continuations, which are drawn for nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, chain, estimator, token_filter
from apportion.credit.trees.backups import back_up, on_tokens, others, scored
from apportion.credit.trees.draws import draw_tree
from apportion.errors import InputError
from apportion.rollouts import branches_of, is_branched


def vine(component: str = "outcome") -> Stage:
    """Differences of Monte-Carlo values between the places where a response was continued anew.

        V(s) = mean outcome of the further continuations drawn at s, the response itself left out
        A_t  = V(next place) - V(last place)     V(end) = R, V(prompt) = mean outcome of the group's other responses

    for every token between two places. Only the responses drawn from the prompt train, and they count; the extra
    continuations do neither. Sample with branches at the ends of steps: ``--sampling "branching(rule='step_boundary',
    forks=None, children=8, weigh=False)"``.

    Args:
        component: the reward.

    Raises:
        InputError: when run, branches where a rule looked ahead: whether there is a place would depend on what came of
            it, and differences between places would be biased however good the values are.

    Details: ``draw_value`` and ``draw_baseline``: V at the next and at the last place.

    Source: arXiv 2410.01679; McGill-NLP/VinePPO.
    """
    bias = Bias(Claim.EXACT)

    @estimator(needs=(f"reward/{component}",), bias=bias, compares_groups=True, by_group=True, compares_branches=True)
    def between_places(work: Work) -> Result:
        given = scored(work, component)
        if bool(branches_of(given.rollouts).ahead.any()):
            raise InputError(
                "the responses branch where a rule looked ahead, expected places that do not depend on what follows "
                "them: sample with a rule that looks at the prefix, such as step_boundary."
            )
        every = draw_tree(given.rollouts, "draws")
        fresh = draw_tree(given.rollouts, "fresh")
        plain = back_up(fresh, given.outcome, given.known)
        first = torch.zeros_like(given.outcome, dtype=torch.int64).index_put_(
            (fresh.row,), torch.arange(len(fresh.row), device=fresh.row.device)
        )
        rest, count = others(fresh, plain)
        value, known = _values(given.outcome, given.known, every.row, every.above, every.original, every.n_forks)
        start, has = value[every.above], known[every.above]
        root = every.into[every.above] < 0
        start = torch.where(root, rest[first[every.row]], start)
        has = torch.where(root, count[first[every.row]] > 0, has)
        # A place all of whose continuations are unknown has the value of the one before.
        for level in range(1, every.depth):
            here = ((every.level[every.above] == level) & ~has).nonzero().squeeze(1)
            before = every.into[every.above[here]]
            start[here], has[here] = start[before], has[before]
        end = torch.where(every.below < 0, given.outcome[every.row], 0.0)
        leads = (every.below >= 0).nonzero().squeeze(1)
        end[leads] = torch.where(known[every.below[leads]], value[every.below[leads]], start[leads])
        advantage = torch.where(has, end - start, 0.0)
        return Result(
            given.seen(on_tokens(every, advantage)),
            {"draw_value": given.seen(on_tokens(every, end)), "draw_baseline": given.seen(on_tokens(every, start))},
        )

    @token_filter(by_group=True)
    def from_the_prompt(work: Work) -> tuple[Tensor, Tensor]:
        whole, members = work.whole, work.members
        if whole is None or members is None or not is_branched(whole):
            return work.trained, work.counted
        extra = work.spread((branches_of(whole).parent >= 0)[members])
        return work.trained & ~extra, work.counted & ~extra

    return chain(between_places, from_the_prompt)


def _values(
    outcome: Tensor, known: Tensor, row: Tensor, above: Tensor, original: Tensor, forks: int
) -> tuple[Tensor, Tensor]:
    """Mean outcome of the fresh continuations at every fork, and whether any is known."""
    used = (~original & known[row]).to(outcome.dtype)
    total = outcome.new_zeros(forks).index_add_(0, above, used * outcome[row])
    count = outcome.new_zeros(forks).index_add_(0, above, used)
    return total / count.clamp(min=1), count > 0
