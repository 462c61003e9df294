"""HICRA: more praise and less blame for the tokens that plan."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work, chain, modifier
from apportion.errors import InputError


def hicra(alpha: float = 0.2, base: str | Stage = "grpo(norm_by_std=False)", column: str = "planning/grams") -> Stage:
    """Advantages of another method, raised by a share of their size at tokens that plan.

        A'_t = A_t + alpha |A_t| p_t,    p_t = 1 at planning tokens, else 0

    A positive advantage is multiplied by 1 + alpha there, a negative one by 1 - alpha, and 0 stays 0.

    Args:
        alpha: that share, more than 0 and less than 1.
        base: the method whose advantages are raised. The paper prints the reward minus the group's mean; ``grpo``
            divides by the group's standard deviation too.
        column: which tokens plan, 0 or 1 each.

    Needs ``planning/grams``, or the column given.

    Details: ``base_advantages``, as they were, and ``planning``, the trained tokens that plan.

    Raises:
        InputError: alpha out of range; when run, a column with other numbers than 0 and 1.

    Source: arXiv 2509.03646.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> pair = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])
        >>> pair = pair.with_column("planning/grams", torch.tensor([True, False, True, False]))
        >>> hicra()(pair).advantages.tolist()
        [0.6, 0.5, -0.4, -0.5]
    """
    from apportion.credit import build  # which imports this module

    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}, expected more than 0 and less than 1.")
    method = build(base) if isinstance(base, str) else base
    bias = Bias(Claim.BIASED, "planning tokens are praised more and blamed less than they earned")

    @modifier(needs=(column,), bias=bias, covers=method.covers, by_group=True)
    def planned(work: Work) -> Result:
        plans = _zero_or_one(work.rollouts.column(column, reader="hicra"), column, work.trained)
        raised = work.advantages + alpha * work.advantages.abs() * plans.to(work.advantages.dtype)
        return Result(raised, {"base_advantages": work.advantages, "planning": plans})

    return chain(method, planned, bias=bias)


def _zero_or_one(values: Tensor, column: str, used: Tensor) -> Tensor:
    """A column as a mask ``[N]``, False where it is not used."""
    wrong = used & (values != 0) & (values != 1)
    if bool(wrong.any()):
        raise InputError(
            f"{column!r} is {float(values[wrong][0])} at a token, expected 0 or 1: give a column that marks tokens."
        )
    return used & torch.as_tensor(values == 1)
