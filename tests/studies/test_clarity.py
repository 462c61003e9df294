"""How much of an update is the exact gradient, against updates made of known parts."""

from __future__ import annotations

import pytest
import torch

from apportion.errors import InputError
from apportion.studies.clarity import noise, samples_saved


def test_noise_is_what_was_put_in_and_its_scale_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    exact = torch.tensor([3.0, 4.0, 0.0, 0.0], dtype=torch.float64)
    dice = torch.randn((200_000, 4), generator=generator, dtype=torch.float64)
    updates = exact + 2.0 * dice
    assert noise(updates, exact) == pytest.approx(4 * 4 / 25, rel=0.02)
    assert noise(7.0 * updates, 0.1 * exact) == pytest.approx(noise(updates, exact))


def test_as_many_samples_are_saved_as_averaging_makes_up_for() -> None:
    generator = torch.Generator().manual_seed(2)
    exact = torch.ones(5, dtype=torch.float64)
    control = exact + 3.0 * torch.randn((40_000, 5), generator=generator, dtype=torch.float64)
    averaged = (exact + 3.0 * torch.randn((40_000, 4, 5), generator=generator, dtype=torch.float64)).mean(1)
    assert samples_saved(averaged, control, exact) == pytest.approx(0.75, abs=0.02)
    assert samples_saved(control, control, exact) == 0


def test_updates_that_go_nowhere_are_refused() -> None:
    with pytest.raises(InputError, match="go -1 along the exact gradient"):
        noise(-torch.ones((2, 1)), torch.ones(1))
