"""How far a policy is from a reference, estimated from single sampled tokens.

Here because both credit (divergence as part of the reward) and objectives (as part of the loss) read it.
"""

from __future__ import annotations

from torch import Tensor

from apportion.errors import InputError, unknown_name

RATIO_BOUND = 20.0
"""Log-ratios are clamped to this in absolute value before they are exponentiated, as in verl."""


def _k1(delta: Tensor) -> Tensor:
    return delta


def _abs(delta: Tensor) -> Tensor:
    return delta.abs()


def _k2(delta: Tensor) -> Tensor:
    return 0.5 * delta**2


def _k3(delta: Tensor) -> Tensor:
    bounded = (-delta).clamp(-RATIO_BOUND, RATIO_BOUND)
    return (bounded.exp() - bounded - 1).clamp(-10, 10)


KL_ESTIMATORS = {"k1": _k1, "abs": _abs, "k2": _k2, "k3": _k3}


def check_estimator(estimator: str) -> None:
    """Raise an :class:`InputError` for an estimator that does not exist."""
    if estimator not in KL_ESTIMATORS:
        raise unknown_name("KL estimator", estimator, KL_ESTIMATORS)


def kl_estimate(log_probs: Tensor, reference: Tensor, estimator: str = "k3") -> Tensor:
    """Per-token estimate of KL(pi || reference) from the sampled token.

    With ``d = log pi - log reference``: ``k1 = d``, ``abs = |d|``, ``k2 = d^2 / 2``, ``k3 = exp(-d) + d - 1`` with d
    clamped to ±20 and the result to ±10.

    Args:
        log_probs: of the policy ``[n]``.
        reference: of the reference policy ``[n]``.
        estimator: one of :data:`KL_ESTIMATORS`.

    Raises:
        InputError: unknown estimator, or tensors of different shapes.

    Source: John Schulman, "Approximating KL divergence"; verl ``kl_penalty``.
    """
    check_estimator(estimator)
    if log_probs.shape != reference.shape:
        raise InputError(
            f"log-probs have shapes {tuple(log_probs.shape)} and {tuple(reference.shape)}, expected equal."
        )
    return KL_ESTIMATORS[estimator](log_probs - reference)
