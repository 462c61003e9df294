"""Trees by temporal differences: the change of prefix value that every token caused."""

from __future__ import annotations

import torch

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, estimator
from apportion.credit.prefixes import prefix_tree
from apportion.credit.reduce import check_options, standardised, statistics
from apportion.credit.trees.backups import back_up, node_values, on_tokens, scored
from apportion.credit.trees.draws import BACKUPS, draw_tree
from apportion.errors import InputError


def tree_td(
    component: str = "outcome",
    backup: str = "rule",
    outcome: float = 0.0,
    norm_by_std: bool = False,
    eps: float = 1e-6,
) -> Stage:
    """Differences of prefix values, perhaps with the outcome added.

        A_t = V(y[..t]) - V(y[..t-1]) + outcome (X_t - V(prompt))

    with V a weighted mean of the draws through a prefix and X what a token's draw led to. ``outcome=0`` is the
    difference alone: of a path it adds up to the outcome less the prompt's value, and it is 0 wherever nothing but the
    path itself is known. ``outcome=1`` adds the outcome: for flat samples this is TEMPO.

    Args:
        component: the reward.
        backup: one of :data:`apportion.credit.trees.BACKUPS`.
        outcome: weight of the outcome.
        norm_by_std: divide by the standard deviation of the group's outcomes.
        eps: added to it.

    Details: ``prefix_value_before`` and ``prefix_value_after`` at every drawn token.

    Raises:
        InputError: an unknown backup, a weight that is negative or not finite; when run, branches that are no trees.

    Source: TEMPO, arXiv 2509.18314, on forced branches.
    """
    check_options(eps)
    if backup not in BACKUPS:
        raise InputError(f"backup is {backup!r}, expected one of {', '.join(BACKUPS)}.")
    if not 0 <= outcome < float("inf"):
        raise InputError(f"outcome is {outcome}, expected a finite weight from 0.")
    bias = Bias(Claim.BIASED, "prefix values include the draw itself; exact only as draws grow")

    @estimator(needs=(f"reward/{component}",), bias=bias, compares_groups=True, by_group=True, reads_ids=True)
    def value_change(work: Work) -> Result:
        given = scored(work, component)
        draws = draw_tree(given.rollouts, backup)
        values = back_up(draws, given.outcome, given.known, by_leaves=backup == "leaves")
        prefixes = prefix_tree(given.rollouts)
        value = node_values(given.rollouts, draws, values, prefixes)
        known = on_tokens(draws, values.count) > 0
        before = torch.where(known, value[prefixes.before], 0.0)
        after = torch.where(known, value[prefixes.after], 0.0)
        root = value[prefixes.root][given.rollouts.episode_of_token]
        advantages = after - before + outcome * torch.where(known, on_tokens(draws, values.draw) - root, 0.0)
        if norm_by_std:
            group = given.rollouts.group_of_episode
            spread = statistics(given.outcome, group, members=given.known).std
            advantages = standardised(advantages, spread[given.rollouts.episode_of_token], eps)
        details = {"prefix_value_before": given.seen(before), "prefix_value_after": given.seen(after)}
        return Result(given.seen(advantages), details)

    return value_change
