"""DPH-RL: f-divergences to the policy that wrote stored responses, as a rehearsal loss.

With ``d = log pi - log pi_ref`` of a token drawn from pi_ref and ``u = exp(d)``, the expectation of every generator
f(d) under pi_ref is a divergence: f is at least 0, and 0 where both agree. d is bounded above by 20, without gradient
beyond; below nothing is lost, since every generator goes to a constant or to a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from apportion.credit.divergence import KL_ESTIMATORS, RATIO_BOUND
from apportion.errors import InputError, unknown_name
from apportion.objectives.aggregate import aggregation
from apportion.objectives.mixing import mix
from apportion.objectives.policy_gradient import clip
from apportion.objectives.protocol import Now, Objective, Terms, token_objective


def _log_midpoint(d: Tensor) -> Tensor:
    """``log((u + 1) / 2)``: the midpoint of both policies against pi_ref."""
    return softplus(d) - math.log(2)


def _js(d: Tensor, alpha: float) -> Tensor:
    m = _log_midpoint(d)
    return d.exp() * (d - m) - m


def _alpha(d: Tensor, alpha: float) -> Tensor:
    return (torch.expm1((1 - alpha) * d) - (1 - alpha) * torch.expm1(d)) / (alpha * (alpha - 1))


GENERATORS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "forward_kl": lambda d, alpha: KL_ESTIMATORS["k3"](-d),
    "js": _js,
    "alpha": _alpha,
    "js_definition": lambda d, alpha: KL_ESTIMATORS["k3"](-_log_midpoint(d)),
}


def generator(kind: str, alpha: float = 0.2) -> Callable[[Tensor, Tensor], Tensor]:
    """The terms of a divergence, ``(log pi [n], log pi_ref [n]) -> f [n]``; see :func:`divergence`."""
    if kind not in GENERATORS:
        raise unknown_name("divergence", kind, GENERATORS)
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}, expected between 0 and 1.")
    return lambda log_probs, reference: GENERATORS[kind]((log_probs - reference).clamp(max=RATIO_BOUND), alpha)


def expected_divergence(kind: str, probabilities: Tensor, reference: Tensor, alpha: float = 0.2) -> Tensor:
    """The divergence between two distributions over the same choices, by summing over them.

    Args:
        kind: which, see :func:`divergence`; with the two swapped, ``forward_kl`` is the reverse KL divergence.
        probabilities: of the policy ``[V]``.
        reference: of the policy that drew ``[V]``.
        alpha: of ``alpha``.

    Raises:
        InputError: shapes that differ, or probabilities that are not positive or do not sum to 1.
    """
    both = torch.stack([probabilities, reference])
    if not (bool((both > 0).all()) and torch.allclose(both.sum(1), torch.ones_like(both[:, 0]))):
        raise InputError("probabilities are not positive or do not sum to 1, expected two distributions.")
    return (reference * generator(kind, alpha)(probabilities.log(), reference.log())).sum()


def divergence(
    kind: str = "js", alpha: float = 0.2, coefficient: float = 1.0, aggregate: str = "token_mean"
) -> Objective:
    """A divergence from stored log-probs, on tokens drawn from the policy they are of: ``coefficient * f(d_t)``.

        forward_kl     f = u - d - 1                                     KL(ref || pi); d within ±20, f at most 10
        js             f = u log(2u / (u + 1)) + log(2 / (u + 1))        twice the Jensen-Shannon divergence
        alpha          f = (u^(1-a) - (1-a) u - a) / (a (a - 1))         a to 1: forward KL; a to 0: reverse KL
        js_definition  f = exp(m) - m - 1, m = log((u + 1) / 2)          KL(ref || midpoint); f at most 10

    with d and u as at the top of this module, and the reference in column ``log_probs/reference``.

    Args:
        kind: one of :data:`GENERATORS`.
        alpha: a, of ``alpha``.
        coefficient: multiplies the terms.
        aggregate: how token terms are averaged, see :mod:`apportion.objectives.aggregate`.

    Metrics: ``divergence``, before the coefficient.

    Raises:
        InputError: an unknown kind, ``alpha`` outside (0, 1), or a negative coefficient.

    Source: arXiv 2509.07430; seamoke/DPH-RL.
    """
    term = generator(kind, alpha)
    if not 0 <= coefficient < math.inf:
        raise InputError(f"the coefficient is {coefficient}, expected 0 or more.")

    def terms(now: Now, at: Mapping[str, Tensor]) -> Terms:
        estimate = term(now["log_probs"], at["log_probs/reference"])
        return Terms(coefficient * estimate, {"divergence": estimate})

    return token_objective(terms, aggregation(aggregate), ("log_probs",), ("log_probs/reference",))


def dph_rl(
    kind: str = "js",
    eta: float = 0.2,
    alpha: float = 0.2,
    low: float = 0.2,
    high: float = 0.28,
    dual: float | None = 3.0,
    aggregate: str = "token_mean",
) -> Objective:
    """Explore with an unregularised clipped surrogate, rehearse stored responses with a divergence.

        L = clip on responses of the policy + eta * divergence on stored ones, each with its own normaliser

    Pair it with credit ``grpo``, which leaves stored responses alone; they bring ``log_probs/reference``, of the
    policy that wrote them.

    Args:
        kind: of the divergence.
        eta: its weight: 0.05 to 0.2 for ``js``, 0.01 to 0.05 for ``forward_kl`` and ``alpha``.
        alpha: of the divergence ``alpha``.
        low: of the clip.
        high: of the clip.
        dual: of the clip.
        aggregate: of both.

    Metrics: those of ``clip`` and ``divergence``.

    Source: arXiv 2509.07430; seamoke/DPH-RL.
    """
    return mix(
        policy=clip(low, high, dual, aggregate),
        stored=divergence(kind, alpha, coefficient=eta, aggregate=aggregate),
    )
