"""The decoder of latent factors: what it reads, what it gives, and that it is what it was when loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.errors import InputError, MissingColumn
from apportion.models.return_decoder import PROXY, ReturnDecoder
from apportion.rollouts import Rollouts


def latent(trained: list[list[int]] | None = None) -> Rollouts:
    """Two responses; steps of two, one and two tokens and a token in none, with two factors each."""
    rollouts = Rollouts.from_lists([[1, 2, 3, 4], [5, 6]], groups=[0, 1], trained=trained)
    rollouts = rollouts.with_spans("step", torch.tensor([0, 2, 4]), torch.tensor([2, 3, 6]))
    factors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    return rollouts.with_column("step:latent", factors)


def linear(**settings: Any) -> ReturnDecoder:
    """``2 z_1 - z_2 + 10``."""
    decoder = ReturnDecoder(2, layers=1, dtype=torch.float64, **settings)
    with torch.no_grad():
        for (_, parameter), value in zip(decoder.named_parameters(), ([[2.0, -1.0]], [10.0]), strict=True):
            parameter.copy_(torch.tensor(value))
    return decoder


def test_every_trained_token_has_the_reward_of_its_step() -> None:
    rollouts, both = latent([[1, 1, 1, 1], [0, 1]]), torch.tensor([0, 1])
    assert linear().statistics(rollouts, both, [PROXY])[PROXY].tolist() == [12, 12, 9, 0, 11]
    assert linear().statistics(rollouts, both.flip(0), [PROXY])[PROXY].tolist() == [11, 12, 12, 9, 0]
    assert linear().decode(rollouts.columns["step:latent"].tensor).tolist() == [12, 9, 11]


def test_the_gradient_of_parts_adds_up() -> None:
    rollouts = latent()

    def gradient(parts: list[list[int]]) -> list[torch.Tensor]:
        decoder = ReturnDecoder(2, hidden=5, layers=3, dtype=torch.float64)
        for part in parts:
            decoder.accumulate(rollouts, torch.tensor(part), [PROXY], lambda now, at: (now[PROXY] * (at + 1)).sum())
        return [parameter.grad for _, parameter in decoder.named_parameters() if parameter.grad is not None]

    whole, cut = gradient([[0, 1]]), gradient([[1], [0]])
    assert len(whole) == 6
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_to_read() -> None:
    nothing = latent([[0, 0, 0, 0], [0, 0]])
    assert linear().statistics(nothing, torch.tensor([0, 1]), [PROXY])[PROXY].shape == (0,)
    outside = latent([[0, 0, 0, 1], [0, 0]])
    assert linear().statistics(outside, torch.tensor([0]), [PROXY])[PROXY].tolist() == [0.0]


def test_it_begins_alike_from_a_seed_and_ends_alike_from_a_file(tmp_path: Path) -> None:
    factors = torch.tensor([[0.5, -1.0]])
    state = torch.get_rng_state()
    one, other, third = (ReturnDecoder(2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.decode(factors), other.decode(factors))
    assert not torch.equal(one.decode(factors), third.decode(factors))
    one.save(tmp_path)
    third.load_weights(tmp_path)
    assert torch.equal(one.decode(factors), third.decode(factors))


def test_what_it_cannot_read() -> None:
    responses = torch.tensor([0])
    with pytest.raises(InputError, match=r"have 2 factors and the decoder reads 4: write return_decoder\(factors=2\)"):
        ReturnDecoder(4).statistics(latent(), responses, [PROXY])
    flat = latent().with_column("step:latent", torch.ones(3))
    with pytest.raises(InputError, match="have 1 factors and the decoder reads 2"):
        linear().statistics(flat, responses, [PROXY])
    bare = Rollouts.from_lists([[1]], groups=[0]).with_spans("step", torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(MissingColumn, match=r"'step:latent'.*--annotators latent_reward"):
        linear().statistics(bare, responses, [PROXY])
    with pytest.raises(InputError, match="unknown statistic 'entropy'"):
        linear().statistics(latent(), responses, ["entropy"])
    with pytest.raises(InputError, match="not finite"):
        latent().with_column("step:latent", torch.full((3, 2), torch.nan))
    for name in ("factors", "hidden", "layers"):
        with pytest.raises(InputError, match=f"{name} is 0, expected at least 1"):
            ReturnDecoder(**{"factors": 2, name: 0})
