"""The output head's gradient, added where it belongs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, Module, Sequential

from apportion.models.head import logits_of


def parts(bias: bool = False) -> tuple[Linear, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    head = Linear(4, 7, bias=bias, dtype=torch.float64)
    hidden = torch.randn((5, 4), generator=draw, dtype=torch.float64)
    return head, hidden.requires_grad_(), torch.randn((5, 7), generator=draw, dtype=torch.float64)


def gradients(head: Module, hidden: Tensor, slope: Tensor, before: float | None) -> list[Tensor | None]:
    """Of every parameter and of the states, after a backward pass on top of what was there."""
    for parameter in head.parameters():
        parameter.grad = None if before is None else torch.full_like(parameter, before)
    hidden.grad = None
    (logits_of(head, hidden) * slope).sum().backward()
    return [p.grad for p in (*head.parameters(), hidden)]


@pytest.mark.parametrize("before", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_gradient_of_the_linear_map(bias: bool, before: float | None) -> None:
    head, hidden, slope = parts(bias)
    found = gradients(head, hidden, slope, before)
    expected = [slope.T @ hidden.detach(), *([slope.sum(0)] if bias else []), slope @ head.weight.detach()]
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one is not None
        assert torch.allclose(one, other + (before or 0.0) * (i < len(found) - 1), atol=1e-12)


def test_it_is_added_in_place() -> None:
    head, hidden, slope = parts()
    kept = head.weight.grad = torch.zeros_like(head.weight)
    (logits_of(head, hidden) * slope).sum().backward()
    assert head.weight.grad is kept
    assert bool((kept != 0).all())


def test_a_frozen_head_gets_none_and_hands_the_states_theirs() -> None:
    head, hidden, slope = parts()
    head.requires_grad_(False)
    found = gradients(head, hidden, slope, None)
    assert found[0] is None
    assert found[1] is not None
    assert torch.allclose(found[1], slope @ head.weight)


def test_whoever_watches_the_head_is_told() -> None:
    head, hidden, slope = parts()
    told: list[str] = []
    forward = head.register_forward_hook(lambda *_: told.append("forward"))
    gradients(head, hidden, slope, None)
    forward.remove()
    head.weight.register_post_accumulate_grad_hook(lambda _: told.append("gradient"))
    found = gradients(head, hidden, slope, None)
    assert told == ["forward", "gradient"]
    assert found[0] is not None
    assert torch.allclose(found[0], slope.T @ hidden.detach())


def test_a_head_of_several_modules_is_called_as_it_is() -> None:
    head, hidden, _ = parts()
    both = Sequential(head, Linear(7, 7, bias=False, dtype=torch.float64))
    assert torch.equal(logits_of(both, hidden), both(hidden))


def test_autocast_is_left_to_torch() -> None:
    head, hidden, _ = parts()
    head, hidden = head.float(), hidden.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert logits_of(head, hidden).dtype == torch.bfloat16
