"""TEMPO: the change of prefix value that every token caused, added to the group-relative outcome."""

from __future__ import annotations

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, estimator
from apportion.credit.prefixes import prefix_tree
from apportion.credit.reduce import check_options, standardised, statistics


def tempo(component: str = "outcome", norm_by_std: bool = True, eps: float = 1e-6) -> Stage:
    """Prefix-tree advantage.

        V(p)  = mean of R_k over the episodes k of the group that begin with p
        A_it  = ( R_i - mean_g R + V(y_i[..t]) - V(y_i[..t-1]) ) / (std_g R + eps)

    with the sample standard deviation of the raw rewards. Where no other episode shares the prefix the difference is
    0 and the method is GRPO. The prefix runs through untrained tokens, which get no advantage themselves.

    Args:
        component: the reward.
        norm_by_std: divide the whole bracket by the group's standard deviation.
        eps: added to it.

    Details: ``prefix_value_before`` and ``prefix_value_after`` at every token, ``episode:prefix_value_root``.

    A group of one gets 0 (the authors' code gives NaN).

    Source: arXiv 2509.18314; fatebreaker/tempo.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> group = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> tempo(norm_by_std=False)(group).advantages.tolist()
        [0.5, 1.0, -0.5, -1.0]
    """
    check_options(eps)
    bias = Bias(Claim.BIASED, "prefix means include the episode itself; exact only as groups grow")

    @estimator(needs=(f"reward/{component}",), bias=bias, compares_groups=True, by_group=True, reads_ids=True)
    def prefix_change(work: Work) -> Result:
        reward_E = work.up(component)
        tree = prefix_tree(work.rollouts)
        value = tree.mean(reward_E)
        group = statistics(reward_E, work.rollouts.group_of_episode)
        before, after = value[tree.before], value[tree.after]
        advantages = work.spread(reward_E - group.mean) + after - before
        if norm_by_std:
            advantages = standardised(advantages, work.spread(group.std), eps)
        return Result(
            advantages,
            {
                "prefix_value_before": before,
                "prefix_value_after": after,
                "episode:prefix_value_root": value[tree.root],
            },
        )

    return prefix_change
