"""Attention maps seen through the interface are the model's own, and looking changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.models.attention import observe_attention
from builders import small_llama


def test_maps_equal_those_of_eager_attention_and_the_output_is_unchanged() -> None:
    policy = small_llama("float32")
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    seen: dict[tuple[int, int], Tensor] = {}
    before = policy.model(input_ids=ids[None], use_cache=False).logits
    observe_attention(policy, ids, [0, 1], lambda layer, head, attention: seen.update({(layer, head): attention}))
    assert torch.equal(policy.model(input_ids=ids[None], use_cache=False).logits, before)
    usual = policy.config._attn_implementation
    policy.model.set_attn_implementation("eager")
    expected = policy.model(input_ids=ids[None], use_cache=False, output_attentions=True).attentions
    policy.model.set_attn_implementation(usual)
    assert sorted(seen) == [(layer, head) for layer in range(2) for head in range(4)]
    for (layer, head), attention in seen.items():
        assert torch.allclose(attention, expected[layer][0, head], atol=1e-6)


def test_only_the_layers_asked_for_are_shown_and_deeper_ones_see_the_same_states() -> None:
    policy = small_llama("float32")
    ids = torch.tensor([3, 1, 4, 1, 5])
    alone: list[Tensor] = []
    both: list[Tensor] = []
    observe_attention(policy, ids, [1], lambda layer, head, attention: alone.append(attention))
    observe_attention(policy, ids, [0, 1], lambda layer, head, attention: both.append(attention))
    assert len(alone) == 4
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, both[4:], strict=True))


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"layers \[0, 2\] were asked for, expected some of 0..1"):
        observe_attention(small_llama("float32"), torch.tensor([1, 2]), [0, 2], lambda *_: None)
