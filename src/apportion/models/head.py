"""The output head in a backward pass that adds to its gradient in place.

Autograd makes a matrix of the head's size for every chunk of tokens and adds it to ``grad`` afterwards; with a large
vocabulary that is the largest array of a training step, made again for every chunk.

Suffix legend: n tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Linear, Module


def logits_of(head: Module, hidden: Tensor) -> Tensor:
    """``[n, V]`` from states ``[n, D]``.

    A backward pass through them adds to the head's ``grad``, and ``torch.autograd.grad`` sees no gradient of it, where
    the head is nothing but a matrix of the states' precision; any other module is called as it is.
    """
    if not _is_matrix(head) or torch.is_autocast_enabled(hidden.device.type) or head.weight.dtype != hidden.dtype:
        logits: Tensor = head(hidden)
        return logits
    return _Logits.apply(hidden, head.weight)


def _is_matrix(head: Module) -> bool:
    """A linear map without offset, and nobody to be told when it runs or its gradient is there."""
    return (
        type(head) is Linear
        and head.bias is None
        and not (head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks)
        and not (head.weight._backward_hooks or head.weight._post_accumulate_grad_hooks)
    )


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        ctx.weight = weight  # itself: its grad is added to, and what save_for_backward gives back has another
        return F.linear(hidden, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        (hidden,), weight = ctx.saved_tensors, ctx.weight
        if ctx.needs_input_grad[1]:
            if weight.grad is None:
                weight.grad = gradient.T @ hidden
            else:
                weight.grad.addmm_(gradient.T, hidden)
        return gradient @ weight if ctx.needs_input_grad[0] else None, None
