"""The drift of one preference: against autograd and small steps, and what displaces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.evals.displacement import margin_step, token_drift


def head(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Five tokens, three dimensions."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(5, 3, generator=generator, dtype=torch.float64), torch.randn(3, generator=generator).double())


@given(seed=st.integers(0, 2**32), chosen=st.integers(0, 4), other=st.integers(1, 4))
def test_drift_is_the_slope_of_small_steps(seed: int, chosen: int, other: int) -> None:
    W, h = head(seed)
    rejected = (chosen + other) % 5
    drift = token_drift(W, h, chosen, rejected)
    before, after = margin_step(W, h, chosen, rejected, lr=1e-6)
    torch.testing.assert_close((after.log() - before.log()) / 1e-6, drift, rtol=1e-3, atol=1e-3)
    assert float(before @ drift) == pytest.approx(0, abs=1e-12)  # probabilities go on summing to 1


def test_of_two_tokens_the_chosen_one_only_gains() -> None:
    W, h = head(0)
    for chosen in (0, 1):
        assert token_drift(W[:2], h, chosen, 1 - chosen)[chosen] > 0


def test_a_third_token_along_the_direction_takes_the_mass() -> None:
    W = torch.tensor([[1.0, 0.0], [1.0, -1.0], [0.9, 2.0]], dtype=torch.float64)
    h = torch.tensor([0.5, 0.1], dtype=torch.float64)
    drift = token_drift(W, h, 0, 1)
    before, after = margin_step(W, h, 0, 1, lr=0.3)
    assert drift[0] < 0 < drift[2]
    assert after[0] < before[0]
    assert after[0] / after[1] > before[0] / before[1]  # the margin did grow


def test_nothing_given_is_changed() -> None:
    W, h = head(1)
    copies = W.clone(), h.clone()
    token_drift(W, h, 0, 1)
    margin_step(W, h, 0, 1, 0.1)
    assert torch.equal(W, copies[0])
    assert torch.equal(h, copies[1])


def test_bad_input() -> None:
    W, h = head(2)
    for change, message in (
        ((W, h[:2], 0, 1), r"shape \(5, 3\) and the state \(2,\), expected \[V, D\] and \[D\]"),
        ((W, h, 5, 1), "the chosen token is 5, expected 0 to 4"),
        ((W, h, 0, -1), "the rejected token is -1, expected 0 to 4"),
        ((W * torch.nan, h, 0, 1), "not finite, expected numbers"),
    ):
        with pytest.raises(InputError, match=message):
            token_drift(*change)
    with pytest.raises(InputError, match="lr is 0, expected more than 0"):
        margin_step(W, h, 0, 1, 0)
