"""Measures of attention maps against loops over their entries, and what is kept of them."""

from __future__ import annotations

import random
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion.annotations import attention
from apportion.annotations.attention import (
    RhythmOfResponse,
    RhythmSettings,
    check_map,
    choose_heads,
    fai,
    head_span,
    middle_layers,
    waad,
    with_rhythm,
)
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from reference import rhythm as naive

DICE = st.integers(0, 2**32).map(random.Random)


def causal(dice: random.Random, size: int) -> Tensor:
    """A random causal map."""
    rows = torch.tensor([[dice.random() for _ in range(size)] for _ in range(size)], dtype=torch.float64).tril()
    return rows / rows.sum(1, keepdim=True)


def same(given: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(given, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", [1, 3, 512])
@given(dice=DICE)
def test_measures_equal_the_loops(block: int, dice: random.Random) -> None:
    size = dice.randint(1, 9)
    prompt = dice.randint(0, size - 1)
    window, low = dice.randint(1, 11), dice.randint(0, 4)
    high = low + dice.randint(0, 9)
    one = causal(dice, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK", block)
        check_map(one, prompt)
        assert float(head_span(one, prompt)) == pytest.approx(naive.head_span(one.tolist(), prompt), abs=1e-12)
        same(waad(one, prompt, window), naive.waad(one.tolist(), prompt, window))
        same(fai(one, prompt, low, high), naive.fai(one.tolist(), prompt, low, high))


def test_measures_are_linear_in_the_map() -> None:
    dice = random.Random(0)
    one, other = causal(dice, 8), causal(dice, 8)
    for measure in (head_span, waad, fai):
        torch.testing.assert_close(measure((one + other) / 2, 3), (measure(one, 3) + measure(other, 3)) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_maps_are_measured_in_full_precision(dtype: torch.dtype) -> None:
    narrow = causal(random.Random(1), 40).to(dtype)
    for measure in (head_span, waad, fai):
        result = measure(narrow, 5)
        assert result.dtype == torch.float64
        assert torch.equal(result, measure(narrow.double(), 5))


def test_a_head_that_looks_at_itself_and_one_that_looks_at_the_beginning() -> None:
    near, far = torch.eye(6), torch.zeros(6, 6)
    far[:, 0] = 1
    assert (float(head_span(near, 2)), float(head_span(far, 2))) == (0.0, 3.5)
    assert waad(near, 2).tolist() == [0.0] * 4
    assert waad(far, 2, window=3).tolist() == [2.0, 3.0, 3.0, 3.0]
    assert fai(far, 0, low=1, high=2).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert fai(near, 2, low=0, high=0).tolist() == [1.0] * 4


def above(one: Tensor) -> Tensor:
    one[0, 1] = 1e-3
    return one


def unnormalised(one: Tensor) -> Tensor:
    return one * 1.01


def negative(one: Tensor) -> Tensor:
    one[2, 0], one[2, 2] = -0.5, one[2, 2] + one[2, 0] + 0.5
    return one


def broken(one: Tensor) -> Tensor:
    one[3, 3] = torch.nan
    return one


@pytest.mark.parametrize(
    ("change", "prompt", "said"),
    [
        (lambda one: one[:3], 1, "has shape .3, 4., expected .positions, positions."),
        (lambda one: one[None], 1, "has shape .1, 4, 4., expected"),
        (above, 1, "looks ahead"),
        (unnormalised, 1, "rows that do not sum to 1"),
        (negative, 1, "rows that do not sum to 1"),
        (broken, 1, "rows that do not sum to 1"),
        (lambda one: one, 4, "the prompt has 4 of 4 positions, expected 0 to one less"),
        (lambda one: one, -1, "the prompt has -1 of 4 positions, expected"),
        (lambda one: one[:0, :0], 0, "the prompt has 0 of 0 positions, expected"),
    ],
)
def test_what_is_no_attention_map(change: Any, prompt: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_map(change(causal(random.Random(0), 4)), prompt)
    with pytest.raises(InputError, match=said):
        RhythmOfResponse(prompt).add(0, 0, change(causal(random.Random(0), 4)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 0}, "window is 0, expected 1 or more"),
        ({"fai_low": 11, "fai_high": 10}, "the FAI horizon is 11 to 10, expected 0 <= low <= high"),
        ({"fai_low": -1}, "the FAI horizon is -1 to 100, expected"),
        ({"head_fraction": 0.0}, "head_fraction is 0.0, expected more than 0 and at most 1"),
        ({"head_fraction": 1.1}, "head_fraction is 1.1, expected"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RhythmSettings(**settings)


# Heads


@given(dice=DICE)
def test_heads_are_chosen_by_span_then_by_index(dice: random.Random) -> None:
    spans, fraction = [float(dice.randint(0, 3)) for _ in range(dice.randint(1, 12))], dice.choice([0.1, 0.3, 0.5, 1.0])
    chosen = choose_heads(torch.tensor(spans), fraction)
    assert tuple(heads.tolist() for heads in chosen) == naive.choose(spans, fraction)


def test_a_fraction_that_is_a_whole_number_of_heads() -> None:
    assert [len(heads) for heads in choose_heads(torch.arange(100.0), 0.29)] == [29, 29]  # 0.29 * 100 is 28.99...


@pytest.mark.parametrize(("layers", "chosen"), [(36, (12, 15, 18, 21, 24)), (2, (0, 1)), (1, (0,)), (6, (2, 3, 4))])
def test_layers_are_those_in_the_middle(layers: int, chosen: tuple[int, ...]) -> None:
    assert set(chosen) == set(middle_layers(layers))
    assert max(chosen) < layers


def test_heads_may_come_in_any_order_and_their_maps_are_let_go() -> None:
    dice = random.Random(2)
    maps = {(layer, head): causal(dice, 7) for layer in (3, 5) for head in range(2)}
    settings = RhythmSettings(window=2, fai_low=1, fai_high=3, head_fraction=0.5)
    results = []
    for order in (sorted(maps), sorted(maps, reverse=True)):
        response = RhythmOfResponse(2, settings)
        for layer, head in order:
            one = maps[layer, head].clone()
            kept = weakref.ref(one)
            response.add(layer, head, one)
            del one
            assert kept() is None
        results.append(response.result())
    first, second = results
    assert first.heads == second.heads == ((3, 0), (3, 1), (5, 0), (5, 1))
    for name in ("span", "local_heads", "global_heads", "waad", "fai"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    chosen = ([maps[first.heads[h]] for h in heads] for heads in (first.local_heads, first.global_heads))
    near, far = (torch.stack(heads).mean(0) for heads in chosen)
    same(first.waad, naive.waad(near.tolist(), 2, 2))
    same(first.fai, naive.fai(far.tolist(), 2, 1, 3))


def test_heads_of_one_response_each_once() -> None:
    response = RhythmOfResponse(1)
    with pytest.raises(InputError, match="got no attention maps"):
        response.result()
    response.add(0, 1, torch.eye(3))
    with pytest.raises(InputError, match="head 1 of layer 0 came twice"):
        response.add(0, 1, torch.eye(3))
    with pytest.raises(InputError, match="a map has 4 positions and others not"):
        response.add(0, 2, torch.eye(4))


# Columns


def test_columns_say_what_they_were_made_with() -> None:
    rollouts = Rollouts.from_lists([[1, 2], [], [3]], groups=[0, 0, 0], trained=[[1, 0], [], [1]])
    settings = RhythmSettings(window=4, fai_low=1, fai_high=2, head_fraction=0.5)
    rhythms = []
    for tokens in (2, 1):
        response = RhythmOfResponse(1, settings)
        far = torch.zeros(tokens + 1, tokens + 1)
        far[:, 0] = 1
        response.add(0, 0, far)
        rhythms.append(response.result())
    done = with_rhythm(rollouts, rhythms, settings)
    assert done.column("waad/old").tolist() == [1.0, 2.0, 1.0]
    assert done.columns["token:waad/old"].present.tolist() == [True, False, True]
    assert done.columns["token:waad/old"].parameters == {"window": 4, "head_fraction": 0.5}
    assert done.columns["token:fai/old"].parameters == {"fai_low": 1, "fai_high": 2, "head_fraction": 0.5}
    assert "token:fai/reference" in with_rhythm(rollouts, rhythms, settings, source="reference").columns
    for wrong in (rhythms[:1], rhythms[::-1], [*rhythms, rhythms[0]]):
        with pytest.raises(InputError, match="got attention of other responses"):
            with_rhythm(rollouts, wrong, settings)
    nobody = Rollouts.from_lists([[]], groups=[0])
    assert with_rhythm(nobody, [], settings).column("waad/old").shape == (0,)
