"""GAE: a critic's values against the rewards that came, with a dial between bias and variance."""

from __future__ import annotations

from torch import Tensor

from apportion.credit import recursions
from apportion.credit.algebra import EXACT, Bias, Claim, Result, Stage, Work, chain, estimator
from apportion.credit.recursions import next_in_row, on_tokens, reverse_discounted_sum, trained_tokens
from apportion.credit.shaping import check_coefficient, kl_in_reward


def gae(
    gamma: float = 1.0,
    lam: float = 1.0,
    component: str = "outcome",
    head: str = "critic",
    whiten: bool = True,
    kl_coefficient: float = 0.0,
    kl_estimator: str = "k1",
) -> Stage:
    """Generalised advantage estimation over the trained tokens of an episode, across its responses.

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t     = delta_t + gamma lam A_{t+1}
        returns = A + V

    where t + 1 is the next trained token; rewards of untrained tokens are ignored. After the last token V is
    ``values_end/<head>`` of the last response (0 if terminated, bootstrapped if truncated) and A is 0. With
    gamma = lam = 1 this is the return minus the value.

    Args:
        gamma: discount a token.
        lam: 0 trusts the critic, 1 the rewards.
        component: the reward; one above the token stands on the last trained token of its row.
        head: which critic.
        whiten: subtract the mean over the batch's trained tokens and divide by their deviation.
        kl_coefficient: of the divergence from the reference policy in the reward, see
            :func:`~apportion.credit.shaping.kl_in_reward`; 0: none.
        kl_estimator: how that divergence is estimated.

    Needs ``values/<head>``; reads the response column ``values_end/<head>`` where there is one, else 0.

    Details: ``returns`` (what the critic regresses, ``credit/returns``) and ``raw_advantages``, before whitening.

    Source: arXiv 1506.02438; verl ``compute_gae_advantage_return``.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> one = Rollouts.from_lists([[1, 2]], groups=[0], rewards=[1.0])
        >>> one = one.with_column("values/critic", torch.tensor([0.25, 0.5]))
        >>> gae(whiten=False)(one).advantages.tolist()
        [0.75, 0.5]
    """
    check_coefficient("gamma", gamma, most=1)
    check_coefficient("lam", lam, most=1)
    check_coefficient("kl_coefficient", kl_coefficient)
    needs = (f"reward/{component}", f"values/{head}")

    bias = bias_of_gae(gamma, lam, whiten)

    @estimator(needs=needs, bias=bias, makes=("credit/returns",), by_group=not whiten)
    def generalised(work: Work) -> Result:
        rollouts = work.rollouts
        tokens, offsets = trained_tokens(rollouts)
        value, end = critic_values(work, head, tokens, reader="gae")
        raw = generalised_advantages(work.down(component)[tokens], value, end, offsets, gamma, lam)
        advantages = recursions.whiten(raw) if whiten and len(tokens) else raw
        details = {"returns": raw + value, "raw_advantages": raw}
        return Result(
            on_tokens(advantages, tokens, rollouts.n_tokens),
            {name: on_tokens(values, tokens, rollouts.n_tokens) for name, values in details.items()},
        )

    if kl_coefficient > 0:
        return chain(kl_in_reward(kl_coefficient, kl_estimator, component), generalised)
    return generalised


def critic_values(work: Work, head: str, tokens: Tensor, reader: str) -> tuple[Tensor, Tensor | float]:
    """What a critic says of the states before some tokens ``[n]``, and of those that episodes end in: ``[E]``, or 0."""
    rollouts, end_name = work.rollouts, f"response:values_end/{head}"
    value = rollouts.column(f"values/{head}", reader=reader)[tokens].to(work.advantages.dtype)
    if not rollouts.has(end_name):
        return value, 0.0
    last = rollouts.response_offsets[1:] - 1
    return value, rollouts.column(end_name, where=last, reader=reader)[last]


def generalised_advantages(
    reward: Tensor, value: Tensor, end: Tensor | float, offsets: Tensor, gamma: float, lam: float
) -> Tensor:
    """The recursion of :func:`gae` over rows of a ragged table; adding ``value`` gives the returns.

    Args:
        reward: r ``[n]``.
        value: V before every element ``[n]``.
        end: V after every row, ``[rows]`` or one number.
        offsets: of the rows.
        gamma: discount.
        lam: lambda.
    """
    delta = reward + gamma * next_in_row(value, offsets, end) - value
    return reverse_discounted_sum(delta, offsets, gamma * lam)


def bias_of_gae(gamma: float, lam: float, whiten: bool) -> Bias:
    """What generalised advantages claim."""
    if gamma < 1:
        return Bias(Claim.BIASED, "gamma < 1 discounts later rewards but not the tokens that earn them")
    if lam < 1:
        return Bias(Claim.BIASED, "lam < 1 lets the critic's error in; none if the critic is exact")
    if whiten:
        return Bias(Claim.CONSISTENT, "the batch's mean and deviation include the token itself; exact up to scale")
    return EXACT
