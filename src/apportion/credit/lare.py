"""LaRe: a learned decoder's rewards in place of the step rewards that are missing.

Suffix legend: N tokens, T steps (decisions).
"""

from __future__ import annotations

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, chain, estimator
from apportion.credit.decisions import on_tokens_of, step_rewards
from apportion.credit.recursions import on_tokens, reverse_discounted_sum, trained_tokens, whiten
from apportion.credit.reduce import Singleton
from apportion.credit.shaping import check_coefficient
from apportion.credit.step_returns import step_relative
from apportion.errors import unknown_name
from apportion.rollouts import steps

BASELINES = ("group", "batch")

_PROXY = Bias(Claim.BIASED, "a learned decoder's rewards stand in for the outcome; their sum need not be the return")


def lare(
    component: str = "proxy",
    gamma: float = 1.0,
    baseline: str = "group",
    level: str = "step",
    norm_by_std: bool = False,
    eps: float = 1e-6,
    singleton: Singleton = "zero",
) -> Stage:
    """Returns of proxy rewards of decisions t.

        G_it = sum_{k >= t} gamma^(k - t) r^_ik,    r^_it = f(z_it)
        A_it = G_it - mean_{j != i} G_jt                              group
        A_it = (G_it - mean) / std over the batch's trained tokens    batch

    where z are the factors of annotator ``latent_reward`` and f the learner ``return_decoder``, trained so that
    proxies sum to the return. The paper leaves the baseline to its learner's critic: ``gae(component='proxy')`` is
    that; ``group`` is :func:`~apportion.credit.step_returns.step_relative` by place.

    Args:
        component: the proxy reward, one a decision.
        gamma: discount a decision.
        baseline: ``group``, the other attempts' decisions at the same place, or ``batch``.
        level: what the decisions are: a kind of span, or ``response``.
        norm_by_std: with ``group``, divide by the sample standard deviation of the decisions compared.
        eps: added to it.
        singleton: with ``group``, a group of one attempt gets ``zero``, its ``raw`` returns, or is an ``error``.

    Details, of every decision: ``step_returns``.

    Raises:
        InputError: a setting out of range; when run with ``batch``, fewer than two trained tokens.

    Source: arXiv 2412.11120; thu-rllab/LaRe.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> pair = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0])
        >>> pair = pair.with_spans("step", torch.arange(4), torch.arange(1, 5))
        >>> pair = pair.with_reward("proxy", torch.tensor([0.5, 0.25, 0.5, -0.75]), level="step")
        >>> lare()(pair).advantages.tolist()
        [1.0, 1.0, -1.0, -1.0]
    """
    check_coefficient("gamma", gamma, most=1)
    if baseline not in BASELINES:
        raise unknown_name("baseline", baseline, BASELINES)
    if baseline == "group":
        compared = step_relative(component, gamma, norm_by_std=norm_by_std, eps=eps, singleton=singleton, level=level)
        return chain(compared, bias=_PROXY)

    @estimator(needs=(f"reward/{component}",), bias=_PROXY)
    def over_the_batch(work: Work) -> Result:
        table = steps(work.rollouts, level)
        return_T = reverse_discounted_sum(step_rewards(work, component, table), table.offsets, gamma)
        tokens, _ = trained_tokens(work.rollouts)
        tokens = tokens[table.step_of_token[tokens] >= 0]
        return_n = on_tokens_of(table, return_T)[tokens]
        result_n = whiten(return_n) if len(tokens) else return_n
        return Result(on_tokens(result_n, tokens, work.rollouts.n_tokens), {f"{table.level}:step_returns": return_T})

    return over_the_batch
