"""B-Coder: regress a Q-function made of logits on outcomes, after a checkpoint and a value fitted to it.

The policy begins as a pretrained model, and so does Q: its advantage part is what the logits say, its value part is
pretrained on the checkpoint (*stage 1*, :func:`b_coder_value`) before anything else moves (*stage 2*,
:func:`b_coder`). What Q is made of is in :mod:`apportion.objectives.bellman`.
"""

from __future__ import annotations

import torch

from apportion.credit.algebra import Clock
from apportion.credit.assign import Credit
from apportion.credit.provenance import made_with
from apportion.credit.shaping import check_coefficient
from apportion.errors import InputError
from apportion.objectives import episodes
from apportion.objectives.bellman import GREEDY, PRETRAINED, RESIDUAL, Scale, Values, bellman_errors, read_values
from apportion.objectives.mixing import from_origin
from apportion.objectives.protocol import Loss, Now, Objective, read
from apportion.rollouts import Rollouts, ragged

HUMAN = "demonstration"
"""The origin of human programs."""


def b_coder(
    alpha: float = 1.0,
    gamma: float = 0.999,
    beta_adv: float = 0.1,
    beta_ce: float = 0.5,
    cap_values: bool = False,
    r_max: float = 1.0,
    value_steps: int = 20,
    component: str = "outcome",
) -> Objective:
    """Squared Bellman errors of a Q made of logits, backed up along the checkpoint's greedy token.

        target_t = r_t + gamma Q(s_{t+1}, argmax_a pi_ref(a | s_{t+1}))     (no gradient; the last term is 0 at the end)
        L_Q      = mean over programs of the mean over their tokens of (target_t - Q(s_t, a_t))^2
        L_adv    = mean over human programs of sum_t |A(s_t, a_t)|
        L_ce     = mean over human programs of sum_t -log pi(a_t | s_t)
        L        = L_Q + beta_adv L_adv + beta_ce L_ce

    with Q = A + V as :class:`~apportion.objectives.bellman.Scale` says and t + 1 the program's next trained token.
    V_res is a head on the policy's trunk that begins at 0, V_pre column ``values/pretrained``. Programs may come from
    anywhere; those of origin ``demonstration`` are human, and without any the last two terms are 0. Programs that were
    never scored are in no Bellman error.

    Args:
        alpha: temperature of the policy over values.
        gamma: discount a token.
        beta_adv: weight of L_adv.
        beta_ce: weight of L_ce.
        cap_values: keep Q at or below ``r_max``.
        r_max: the largest reward there is.
        value_steps: length of stage 1: until then V_pre is being fitted (``--learners pretrained_value``, with the
            same settings) and the policy must not move, so the loss is 0.
        component: the reward, one an episode, given after its last token.

    Metrics: ``td_loss`` (L_Q), ``advantage_size`` (L_adv), ``human_nll`` (L_ce), ``value`` (mean V).

    Raises:
        InputError: a number out of range; when evaluated, a reward below the episode, forced branches, no clock
            although there is a stage 1, or pretrained values fitted with other settings.

    Source: arXiv 2310.03173; no authors' code found.
    """
    scale = Scale(alpha, gamma, cap_values, r_max)
    check_coefficient("beta_adv", beta_adv)
    check_coefficient("beta_ce", beta_ce)
    check_value_steps(value_steps)

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        if value_steps and clock is None:
            raise InputError(
                f"b_coder trains nothing in its first {value_steps} steps and was given no clock: pass Clock(step, "
                "total_steps), or value_steps=0."
            )
        made_with(rollouts, PRETRAINED, "objective b_coder", value_steps=value_steps)
        at = read_values(now, rollouts, credit, scale)
        td_loss = bellman_errors(at, component, rollouts, credit).mean
        human = from_origin(rollouts, HUMAN) & (ragged.lengths_of(at.offsets) > 0)
        many = max(int(human.sum()), 1)
        size = ragged.sum_rows(at.advantages.abs(), at.offsets)[human].sum() / many
        nll = ragged.sum_rows(-now["log_probs"][at.tokens], at.offsets)[human].sum() / many
        mean_value = at.values.sum() / max(len(at.tokens), 1)
        said = {"td_loss": td_loss, "advantage_size": size, "human_nll": nll, "value": mean_value}
        metrics = {name: value.detach() for name, value in said.items()}
        if clock is not None and clock.step < value_steps:
            return Loss(torch.zeros((), device=rollouts.device), metrics)
        return Loss(td_loss + beta_adv * size + beta_ce * nll, metrics)

    now = ("log_probs", "max_log_prob", RESIDUAL)
    return Objective("episode", now, (PRETRAINED, f"reward/{component}"), evaluate, watches=(GREEDY,))


def b_coder_value(
    alpha: float = 1.0,
    gamma: float = 0.999,
    cap_values: bool = False,
    r_max: float = 1.0,
    component: str = "outcome",
) -> Objective:
    """Stage 1 of ``b_coder``: the same Bellman errors over V_pre, with the checkpoint's logits.

        target_t = r_t + gamma V(s_{t+1})      (no gradient; the last term is 0 at the end)
        L        = mean over programs of the mean over their tokens of (target_t - A_ref(s_t, a_t) - V(s_t))^2

    The checkpoint's advantage of its own greedy token is 0, so what is backed up is V. What learner
    ``pretrained_value`` minimises.

    Args:
        alpha: temperature of the policy over values.
        gamma: discount a token.
        cap_values: keep Q at or below ``r_max``.
        r_max: the largest reward there is.
        component: the reward, one an episode, given after its last token.

    Metrics: ``td_loss``, ``value`` (mean V).

    Raises:
        InputError: a number out of range; when evaluated, a reward below the episode, or forced branches.

    Source: arXiv 2310.03173.
    """
    scale = Scale(alpha, gamma, cap_values, r_max)
    needs = ("log_probs/reference", "max_log_prob/reference")

    def evaluate(now: Now, rollouts: Rollouts, credit: Credit, clock: Clock | None) -> Loss:
        episodes.refuse_branches(rollouts)
        tokens = episodes.trained_tokens(credit)
        raw = now[PRETRAINED][tokens]
        log_probs, top = (read(name, rollouts, credit)[tokens].to(raw.dtype) for name in needs)
        advantages = scale.advantage(log_probs, top)
        at = Values.of(scale, tokens, rollouts, advantages, torch.zeros_like(raw), raw)
        loss = bellman_errors(at, component, rollouts, credit).mean
        metrics = {"td_loss": loss.detach(), "value": at.values.detach().sum() / max(len(tokens), 1)}
        return Loss(loss, metrics)

    return Objective("episode", (PRETRAINED,), (*needs, f"reward/{component}"), evaluate)


def check_value_steps(steps: int) -> None:
    """Refuse a length of stage 1 that is no number of steps.

    Raises:
        InputError: it is negative, or not whole.
    """
    if not isinstance(steps, int) or steps < 0:
        raise InputError(f"value_steps is {steps!r}, expected a whole number from 0.")
