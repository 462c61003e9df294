"""The table of positions: it draws from, measures and copies one row a place."""

from __future__ import annotations

import torch

from apportion.studies.positions import PositionPolicy, certain
from apportion.studies.tabular import every_response, expected, sample


def policy() -> PositionPolicy:
    made = PositionPolicy(vocabulary=3, depth=4, prompts=2)
    with torch.no_grad():
        made.logits[:] = torch.randn(made.logits.shape, generator=torch.Generator().manual_seed(1))
    return made


def test_what_was_drawn_has_the_log_probs_of_its_place() -> None:
    table = policy()
    rollouts = sample(table, [1, 0], 5, torch.Generator().manual_seed(2))
    place = torch.arange(4).repeat(10)
    prompt = torch.tensor([1, 0]).repeat_interleave(20)
    by_hand = table.likely[prompt, place, rollouts.ids].log()
    assert torch.allclose(rollouts.column("log_probs/behaviour"), by_hand)
    measured = table.statistics(rollouts, torch.arange(10), ["log_probs"])["log_probs"]
    assert torch.allclose(measured, by_hand)


def test_expectations_are_products_over_places() -> None:
    table = policy()
    responses = every_response(table, lambda prompt, tokens: float(tokens == (0, 1, 2, 0)))
    by_hand = table.likely[:, torch.arange(4), [0, 1, 2, 0]].prod(1).mean()
    assert abs(expected(table, responses) - float(by_hand)) < 1e-12


def test_a_copy_stays_as_it_was() -> None:
    table = policy()
    twin = table.frozen_copy()
    certain(table, torch.tensor([0]), torch.tensor([2]))
    assert table.likely[0, 0].tolist() == [0.0, 0.0, 1.0]
    assert float(twin.likely[0, 0, 2]) < 1
    assert twin.prompts == 2
    assert twin.depth == 4
