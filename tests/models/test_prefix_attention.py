"""Attention over trees: blocks and paths against one masked call, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion.models.packing import PrefixTree, prefix_tree
from apportion.models.packing.attention import blocks_work, by_blocks, by_mask, by_paths
from apportion.models.packing.flex import by_flex, flex_works
from apportion.models.packing.plan import plan

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8)
HEADS = st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)])
SCALE = 0.5

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def tree_of(rows: list[list[int]]) -> PrefixTree:
    flat = torch.tensor([token for row in rows for token in row])
    return prefix_tree(flat, torch.tensor([0, *map(len, rows)]).cumsum(0))


def with_gradients(attention: Attention, inputs: list[Tensor], slope: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = attention(*leaves)
    out.backward(slope)
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def forms(tree: PrefixTree) -> dict[str, Attention]:
    return {
        "paths": lambda q, k, v: by_paths(q, k, v, tree, SCALE),
        "blocks": lambda q, k, v: by_blocks(q, k, v, plan(tree, small=0), SCALE),
        "blocks, some masked": lambda q, k, v: by_blocks(q, k, v, plan(tree, small=4), SCALE),
        "one masked block a tree": lambda q, k, v: by_blocks(q, k, v, plan(tree), SCALE),
    }


def test_this_torch_has_the_fast_operators() -> None:
    assert blocks_work()


@given(rows=ROWS, heads=HEADS, seed=st.integers(0, 2**16))
def test_all_forms_are_one_masked_call(rows: list[list[int]], heads: tuple[int, int], seed: int) -> None:
    tree, draw = tree_of(rows), torch.Generator().manual_seed(seed)
    shared, group = heads
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        q, k, v, slope = (
            2 * torch.randn((n, len(tree), 4), generator=draw, dtype=dtype)
            for n in (shared * group, shared, shared, shared * group)
        )
        expected = with_gradients(lambda q, k, v: by_mask(q, k, v, tree, SCALE), [q, k, v], slope)
        for name, attention in forms(tree).items():
            for found, wanted in zip(with_gradients(attention, [q, k, v], slope), expected, strict=True):
                error = (found - wanted).norm() / wanted.norm().clamp(min=1.0)
                assert float(error) <= tolerance, (name, dtype)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@given(rows=ROWS, heads=HEADS, seed=st.integers(0, 2**16))
def test_the_form_for_gpus_is_one_masked_call(rows: list[list[int]], heads: tuple[int, int], seed: int) -> None:
    """Forward only: torch has no backward pass of it for this device."""
    tree, draw = tree_of(rows), torch.Generator().manual_seed(seed)
    shared, group = heads
    q, k, v = (torch.randn((n, len(tree), 4), generator=draw) for n in (shared * group, shared, shared))
    found = by_flex(tree, compiled=False)(q, k, v, SCALE)
    torch.testing.assert_close(found, by_mask(q, k, v, tree, SCALE), rtol=1e-5, atol=1e-5)


def test_the_form_for_gpus_is_taken_where_it_can_train() -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    assert [flex_works(device) for device in devices] == [device == "cuda" for device in devices]


def test_half_precision_is_that_of_one_masked_call() -> None:
    tree = tree_of([[1, 2, 3, 4], [1, 2, 5], [1, 6]])
    q, k, v = (torch.randn((2, len(tree), 8), generator=torch.Generator().manual_seed(i)) for i in range(3))
    exact = by_mask(q, k, v, tree, SCALE)
    rounded = [x.bfloat16() for x in (q, k, v)]
    error = (by_mask(*rounded, tree, SCALE).float() - exact).abs().max()
    for name, attention in forms(tree).items():
        found = attention(*rounded)
        assert found.dtype == torch.bfloat16
        assert float((found.float() - exact).abs().max()) <= 2 * float(error), name


def test_where_the_operators_are_missing_the_public_ones_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.models.packing import attention, forward

    def gone(*arguments: object, **settings: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(attention, "_forward", gone)
    blocks_work.cache_clear()
    try:
        assert not blocks_work()
        tree = tree_of([[1, 2], [1, 3]])
        q = torch.randn((1, 3, 4), generator=torch.Generator().manual_seed(0))
        found = forward.attention_over(tree)(q, q, q, SCALE)
        torch.testing.assert_close(found, by_mask(q, q, q, tree, SCALE))
    finally:
        monkeypatch.undo()
        blocks_work.cache_clear()
    assert blocks_work()
