"""OPRL: a process reward model trained online on outcomes scores every decision by its log-ratio to the policy.

Suffix legend: N tokens, T steps (decisions), E episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from apportion.credit.algebra import Bias, Claim, Result, Stage, Work
from apportion.credit.algebra import estimator as lift
from apportion.credit.decisions import on_tokens_of
from apportion.credit.members import against_members, without_others
from apportion.credit.reduce import Singleton, check_options
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError, unknown_name
from apportion.rollouts import Steps, steps

ESTIMATORS = {"rloo": (True, False), "grpo_mean": (False, False), "grpo_std": (False, True)}
"""Whether values are compared with those of others alone, and whether they are divided by their deviation."""

STEP_BASELINES = ("first_row", "all_rows")


def _by_batch_max(reward_T: Tensor) -> Tensor:
    return reward_T / (reward_T.abs().max() + 1e-6) if len(reward_T) else reward_T


def _as_they_are(reward_T: Tensor) -> Tensor:
    return reward_T


NORMS: dict[str, Callable[[Tensor], Tensor]] = {"batch_max": _by_batch_max, "none": _as_they_are}


def oprl(
    beta: float = 0.05,
    alpha: float = 1.0,
    estimator: str = "rloo",
    norm: str = "batch_max",
    step_baseline: str = "all_rows",
    eps: float = 1e-6,
    component: str = "outcome",
    singleton: Singleton = "zero",
) -> Stage:
    """Outcome advantages of attempts plus advantages of implicit rewards of their decisions t.

        s_t = beta sum_{tokens of t} (log pi_prm - log pi_old),   divided by max |s| + 1e-6 over the batch
        A_t = A^E + alpha A^S_t

    A^E compares the outcome with those of the group's other attempts; A^S_t compares s_t with the group's decisions,
    all of them or the first of every attempt. Both subtract the mean of n values and multiply by n/(n - 1) (``rloo``),
    nothing (``grpo_mean``), or divide by the sample standard deviation plus ``eps`` (``grpo_std``). Decisions without
    trained tokens are not compared.

    Args:
        beta: scale of the implicit reward.
        alpha: weight of its advantages.
        estimator: ``rloo``, ``grpo_mean`` or ``grpo_std``.
        norm: ``batch_max`` or ``none``.
        step_baseline: ``all_rows`` (the paper), where attempts of many decisions dominate, or ``first_row`` (the code).
        eps: added to the standard deviation.
        component: the outcome.
        singleton: a group of one attempt gets ``zero``, or is an ``error``; with ``raw`` a value that is alone in its
            comparison is taken as it is.

    Needs ``log_probs/prm`` and ``log_probs/old``. The model behind the first learns from the objective
    ``implicit_prm``; whether credit reads it before or after its update is the learner's ``order``.

    Details, of every step: ``step_rewards``, ``episode_advantages``, ``step_advantages``.

    Raises:
        InputError: a setting out of range.

    Source: arXiv 2509.19199; Tongyi-ConvAI/Qwen-Character, CharacterRL-iStar.

    Example:
        >>> import torch
        >>> from apportion.rollouts import Rollouts
        >>> given = {"rewards": [1.0, 0.0], "log_probs_old": [[-1.0], [-1.0]]}
        >>> pair = Rollouts.from_lists([[1], [2]], groups=[0, 0], **given)
        >>> pair = pair.with_column("log_probs/prm", torch.tensor([-0.5, -1.5]))
        >>> oprl(beta=1.0, norm="none")(pair).advantages.tolist()
        [2.0, -2.0]
    """
    check_options(eps, singleton)
    check_coefficient("alpha", alpha)
    if not (beta > 0 and math.isfinite(beta)):
        raise InputError(f"beta is {beta}, expected more than 0.")
    for name, value, known in (
        ("estimator", estimator, ESTIMATORS),
        ("norm", norm, NORMS),
        ("step baseline", step_baseline, STEP_BASELINES),
    ):
        if value not in known:
            raise unknown_name(name, value, known)
    leave_one_out, by_std = ESTIMATORS[estimator]
    compare = partial(against_members, leave_one_out=leave_one_out, norm_by_std=by_std, eps=eps, singleton=singleton)
    bias = Bias(Claim.BIASED, "a learned model's log-ratios stand in for what decisions are worth")
    needs = (f"reward/{component}", "log_probs/prm", "log_probs/old")

    @lift(needs=needs, bias=bias, compares_groups=True, by_group=NORMS[norm] is _as_they_are)
    def implicit(work: Work) -> Result:
        table, group_E = steps(work.rollouts), work.rollouts.group_of_episode
        ratio_T, own_T = _log_ratios(table, work.advantages.dtype)
        reward_T = NORMS[norm](beta * ratio_T)
        members_T = own_T & (table.index == 0) if step_baseline == "first_row" else own_T
        episode_T = compare(work.up(component), group_E)[table.episode]
        step_T = compare(reward_T, group_E[table.episode], members_T)

        dead_T = ~own_T | without_others(work, singleton)[table.episode]
        episode_T, step_T = (torch.where(dead_T, 0.0, part) for part in (episode_T, step_T))
        details = {"step_rewards": reward_T, "episode_advantages": episode_T, "step_advantages": step_T}
        return Result(
            on_tokens_of(table, episode_T + alpha * step_T),
            {f"{table.level}:{name}": values for name, values in details.items()},
        )

    return implicit


def _log_ratios(table: Steps, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The sequence log-ratio of every decision ``[T]``, and whether it has trained tokens ``[T]``."""
    step = table.step_of_token
    tokens = ((step >= 0) & table.rollouts.trained).nonzero().squeeze(1)
    prm, old = (
        table.rollouts.column(name, reader="oprl")[tokens].to(dtype) for name in ("log_probs/prm", "log_probs/old")
    )
    ratio = prm.new_zeros(len(table)).index_add_(0, step[tokens], prm - old)
    return ratio, torch.bincount(step[tokens], minlength=len(table)) > 0
