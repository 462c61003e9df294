"""Token-level DPO: a preference-tuned model's own log-ratios, read as credit."""

from __future__ import annotations

import math

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, estimator
from apportion.credit.recursions import on_tokens, trained_tokens
from apportion.errors import InputError
from apportion.rollouts import ORIGINS


def implicit_reward(beta: float = 0.1) -> Stage:
    """Implicit reward of every token.

        rhat_t = beta (log pi(y_t) - log pi_ref(y_t)) = r_t + V(s_{t+1}) - V(s_t)

    where pi is soft-optimal for some dense reward r with soft values V: an advantage under that reward. Over a finished
    episode it sums to the return minus V of the first state; one that was cut off lacks V of its last.

    Args:
        beta: the temperature pi was tuned with.

    Details: ``implicit_reward`` at every token.

    Covers stored responses and demonstrations too.

    Source: arXiv 2404.12358.

    Example:
        >>> from apportion.rollouts import Rollouts
        >>> logs = {"log_probs_old": [[-1.0, -2.0]], "log_probs_reference": [[-2.0, -1.5]]}
        >>> implicit_reward(beta=0.5)(Rollouts.from_lists([[1, 2]], groups=[0], **logs)).advantages.tolist()
        [0.5, -0.25]
    """
    if not 0 < beta < math.inf:
        raise InputError(f"beta is {beta}, expected more than 0.")
    needs = ("log_probs/old", "log_probs/reference")
    bias = Bias(Claim.BIASED, "an advantage under the reward the model was tuned to, not under the task's")

    @estimator(needs=needs, bias=bias, covers=ORIGINS, by_group=True)
    def log_ratio(work: Work) -> Result:
        tokens, _ = trained_tokens(work.rollouts)
        policy, reference = (work.rollouts.column(name)[tokens].to(work.advantages.dtype) for name in needs)
        values = on_tokens(beta * (policy - reference), tokens, work.rollouts.n_tokens)
        return Result(values, {"implicit_reward": values})

    return log_ratio
