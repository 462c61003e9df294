"""Methods say whether they look at token ids or at branches, so that trainers without any can refuse them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from apportion.credit import METHODS, Stage, chain, scale
from apportion.rollouts import Rollouts


def rollouts() -> Rollouts:
    """Two groups over three symbols, so that many prefixes are shared, with rewards of 0 and 1."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 3, (12, 5), generator=draw).tolist()
    rewards = torch.randint(0, 2, (12,), generator=draw).double().tolist()
    return Rollouts.from_lists(ids, groups=[0] * 6 + [1] * 6, rewards=rewards)


OF_OUTCOMES = [name for name, make in METHODS.items() if set(make().needs) <= {"reward/outcome"}]


@pytest.mark.parametrize("method", OF_OUTCOMES)
def test_ids_matter_exactly_where_a_method_says_so(method: str) -> None:
    given, stage = rollouts(), METHODS[method]()
    renamed = replace(given, ids=torch.arange(given.n_tokens))
    alike = torch.equal(stage(given).advantages, stage(renamed).advantages)
    assert alike != stage.reads_ids


@pytest.mark.parametrize("method", [name for name, make in METHODS.items() if make().compares_branches])
def test_without_branches_methods_for_them_are_leave_one_out(method: str) -> None:
    given, expected = METHODS[method]()(rollouts()), METHODS["rloo"]()(rollouts())
    torch.testing.assert_close(given.advantages, expected.advantages)


def test_a_chain_reads_what_its_parts_read() -> None:
    tempo: Stage = METHODS["tempo"]()
    assert chain(tempo, scale(2.0)).reads_ids
    assert not chain(METHODS["rloo"](), scale(2.0)).reads_ids
    assert chain(METHODS["vine"](), scale(2.0)).compares_branches
    assert not chain(tempo, scale(2.0)).compares_branches
