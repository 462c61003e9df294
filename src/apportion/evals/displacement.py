"""Where probability goes when one token is preferred to another: the theory behind CHES, for answers of one token.

Suffix legend: V vocabulary, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.errors import InputError


def token_drift(unembedding: Tensor, hidden: Tensor, chosen: int, rejected: int) -> Tensor:
    """How fast every token's log-probability moves when training on one preference begins ``[V]``.

        logits = W h,   margin = e^T W h,   e = onehot(chosen) - onehot(rejected)
        d log pi(z)/dt = (onehot(z) - p)^T [ e ||h||^2 + W W^T e ]

    at unit rate, with W and h both trainable. The entry of ``chosen`` is the criterion for pairs of one token, of
    which CHES says nothing: negative where the preferred token itself is displaced, by tokens z that are probable and
    whose W_z lies along W_chosen - W_rejected.

    Args:
        unembedding: W ``[V, D]``.
        hidden: h, the state both tokens are drawn from ``[D]``.
        chosen: the preferred token.
        rejected: the other.

    Raises:
        InputError: shapes that do not go together, a token outside of the vocabulary, or an entry that is not finite.

    Source: arXiv 2410.08847.

    Example:
        >>> W, h = torch.tensor([[1.0, 0.0], [1.0, -1.0], [0.9, 2.0]]), torch.tensor([0.5, 0.1])
        >>> [round(x, 2) for x in token_drift(W, h, chosen=0, rejected=1).tolist()]
        [-0.21, -1.73, 1.53]
    """
    _check(unembedding, hidden, chosen, rejected)
    p = (unembedding @ hidden).softmax(0)
    towards = unembedding[chosen] - unembedding[rejected]
    logits_move = unembedding @ towards
    logits_move[chosen] += hidden @ hidden
    logits_move[rejected] -= hidden @ hidden
    return logits_move - p @ logits_move


def margin_step(unembedding: Tensor, hidden: Tensor, chosen: int, rejected: int, lr: float) -> tuple[Tensor, Tensor]:
    """Probabilities before and after one step of gradient ascent on the margin ``[V]`` each.

    Both gradients are taken at the old values. The chosen token is *displaced* if it is less likely afterwards.

    Args:
        unembedding: W ``[V, D]``.
        hidden: h ``[D]``.
        chosen: the preferred token.
        rejected: the other.
        lr: of the step, on W and on h.

    Raises:
        InputError: as :func:`token_drift`, or a rate that is not positive.
    """
    _check(unembedding, hidden, chosen, rejected)
    if not lr > 0:
        raise InputError(f"lr is {lr}, expected more than 0.")
    old = [values.detach().clone().requires_grad_() for values in (unembedding, hidden)]
    logits = old[0] @ old[1]
    slopes = torch.autograd.grad(logits[chosen] - logits[rejected], old)
    with torch.no_grad():
        new = [values + lr * slope for values, slope in zip(old, slopes, strict=True)]
        return logits.softmax(0), (new[0] @ new[1]).softmax(0)


def _check(unembedding: Tensor, hidden: Tensor, chosen: int, rejected: int) -> None:
    if unembedding.dim() != 2 or hidden.shape != unembedding.shape[1:]:
        raise InputError(
            f"the unembedding has shape {tuple(unembedding.shape)} and the state {tuple(hidden.shape)}, expected "
            "[V, D] and [D]."
        )
    for name, token in (("chosen", chosen), ("rejected", rejected)):
        if not 0 <= token < len(unembedding):
            raise InputError(f"the {name} token is {token}, expected 0 to {len(unembedding) - 1}.")
    if not bool(unembedding.isfinite().all() and hidden.isfinite().all()):
        raise InputError("an entry of the unembedding or the state is not finite, expected numbers.")
