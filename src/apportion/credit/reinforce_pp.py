"""REINFORCE++: returns, or rewards against their group, whitened over all tokens of the batch.

Suffix legend: N tokens, n trained tokens, E episodes.
"""

from __future__ import annotations

from torch import Tensor

from apportion.credit import recursions
from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, chain, estimator
from apportion.credit.gae import bias_of_gae
from apportion.credit.recursions import on_tokens, reverse_discounted_sum, trained_tokens
from apportion.credit.reduce import Singleton, check_options, relative
from apportion.credit.shaping import check_coefficient, kl_in_reward


def reinforce_pp(
    gamma: float = 1.0,
    component: str = "outcome",
    whiten: bool = True,
    reset: bool = False,
    kl_coefficient: float = 0.0,
    kl_estimator: str = "k1",
) -> Stage:
    """Discounted returns of the trained tokens, whitened over the batch.

        G_t = r_t + gamma G_{t+1}
        A   = (G - mean) / std        over all trained tokens of the batch

    where t + 1 is the next trained token of the episode, across its responses; rewards of untrained tokens are ignored.

    Args:
        gamma: discount a token.
        component: the reward; one above the token stands on the last trained token of its row.
        whiten: as :func:`~apportion.credit.recursions.whiten` does it.
        reset: nothing is carried over untrained tokens, as in verl: with tool output between turns only the last turn
            earns the outcome. Otherwise they are passed over.
        kl_coefficient: of the divergence from the reference policy in the reward, see
            :func:`~apportion.credit.shaping.kl_in_reward`; 0: none.
        kl_estimator: how that divergence is estimated.

    Details: ``returns``, before whitening (``credit/returns``).

    Raises:
        InputError: ``gamma`` outside 0 to 1 or a negative coefficient; when run, a single trained token to whiten.

    Source: arXiv 2501.03262; verl ``compute_reinforce_plus_plus_outcome_advantage``.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> two = Rollouts.from_lists([[1, 2], [3, 4]], groups=[0, 1], rewards=[1.0, 0.0])
        >>> [round(a, 3) for a in reinforce_pp(gamma=0.5)(two).advantages.tolist()]
        [0.261, 1.306, -0.783, -0.783]
    """
    check_coefficient("gamma", gamma, most=1)
    check_coefficient("kl_coefficient", kl_coefficient)

    not_carried = Bias(Claim.BIASED, "tokens do not earn what comes after tool output")
    bias = not_carried if reset else bias_of_gae(gamma, 1.0, whiten)

    @estimator(needs=(f"reward/{component}",), bias=bias, makes=("credit/returns",), by_group=not whiten)
    def returns_to_go(work: Work) -> Result:
        tokens, offsets = trained_tokens(work.rollouts)
        discount: Tensor | float = gamma
        if reset:
            following = tokens.roll(-1)  # what follows the last of a row is never read
            discount = gamma * (following == tokens + 1).to(work.advantages.dtype)
        returns = reverse_discounted_sum(work.down(component)[tokens], offsets, discount)
        advantages = recursions.whiten(returns) if whiten and len(tokens) else returns
        return Result(
            on_tokens(advantages, tokens, work.rollouts.n_tokens),
            {"returns": on_tokens(returns, tokens, work.rollouts.n_tokens)},
        )

    if kl_coefficient > 0:
        return chain(kl_in_reward(kl_coefficient, kl_estimator, component), returns_to_go)
    return returns_to_go


def reinforce_pp_baseline(component: str = "outcome", whiten: bool = True, singleton: Singleton = "zero") -> Stage:
    """Rewards minus their group's mean, repeated on the trained tokens and whitened over the batch.

        A_it = (R_i - mean_g R - mean) / std        mean and std over all trained tokens of the batch

    The deviation is the batch's, so easy prompts are not weighed up as by GRPO's.

    Args:
        component: the reward.
        whiten: as :func:`~apportion.credit.recursions.whiten` does it; without, this is Dr.GRPO.
        singleton: a group of one has ``zero``, its ``raw`` reward (verl), or is an ``error``; before whitening.

    Details: ``raw_advantages``, before whitening.

    Raises:
        InputError: a group of one with ``singleton="error"``, or a single trained token to whiten.

    Source: arXiv 2501.03262; verl ``compute_reinforce_plus_plus_baseline_outcome_advantage``.
    """
    check_options(singleton=singleton)
    own = Bias(Claim.EXACT_UP_TO_SCALE, "the mean includes the response itself: (n - 1)/n of the gradient")
    bias = bias_of_gae(1.0, 1.0, whiten) if whiten else own

    @estimator(needs=(f"reward/{component}",), bias=bias, compares_groups=True, by_group=not whiten)
    def whitened_relative(work: Work) -> Result:
        tokens, _ = trained_tokens(work.rollouts)
        relative_E = relative(
            work.up(component), work.rollouts.group_of_episode, singleton=singleton, shrunk=work.shrunk
        )
        raw = work.spread(relative_E)[tokens]
        advantages = recursions.whiten(raw) if whiten and len(tokens) else raw
        return Result(
            on_tokens(advantages, tokens, work.rollouts.n_tokens),
            {"raw_advantages": on_tokens(raw, tokens, work.rollouts.n_tokens)},
        )

    return whitened_relative
