"""The clipped value loss beyond the common suite."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from apportion.credit import Credit
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Column, Rollouts


def credited(old: list[float], returns: list[float]) -> Credit:
    """One episode of which a critic said ``old`` and which turned out to be worth ``returns``."""
    rollouts = Rollouts.from_lists([range(len(old))], groups=[0])
    rollouts = rollouts.with_column("values/critic", torch.tensor(old, dtype=torch.float64))
    everything = torch.ones(len(old), dtype=torch.bool)
    column = Column(torch.tensor(returns, dtype=torch.float64), maker="credit")
    return Credit(
        *(rollouts, torch.zeros(len(old)), everything, everything),
        *({"token:credit/returns": column}, None, torch.zeros(1, dtype=torch.bool)),
    )


def test_inside_the_clip_it_is_half_the_squared_error() -> None:
    credit = credited(old=[0.0, 1.0, -1.0], returns=[1.0, 1.0, 0.5])
    values = torch.tensor([0.4, 1.5, -0.5], dtype=torch.float64)
    loss = OBJECTIVES["value"](clip=0.5)({"values/critic": values}, credit.rollouts, credit)
    assert loss.value.item() == pytest.approx((0.36 + 0.25 + 1.0) / 6)
    assert loss.metrics["value_error"].item() == pytest.approx((0.36 + 0.25 + 1.0) / 3)
    assert loss.metrics["value_clip_fraction"].item() == 0


def test_a_value_that_ran_ahead_towards_the_return_stops() -> None:
    """The clipped term is the larger and has no slope; a value that ran away is drawn back as ever."""
    credit = credited(old=[0.0, 0.0], returns=[2.0, -2.0])
    values = torch.tensor([1.5, 1.5], dtype=torch.float64, requires_grad=True)
    loss = OBJECTIVES["value"](clip=0.5)({"values/critic": values}, credit.rollouts, credit)
    loss.value.backward()
    assert loss.value.item() == pytest.approx((1.5**2 + 3.5**2) / 4)
    assert loss.metrics["value_clip_fraction"].item() == 0.5
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 3.5 / 2]


def test_another_head_reads_its_own_column() -> None:
    objective = OBJECTIVES["value"](head="risk")
    assert objective.now == ("values/risk",)
    credit = credited(old=[0.0], returns=[1.0])
    with pytest.raises(MissingColumn, match="values/risk"):
        objective({"values/risk": torch.zeros(1)}, credit.rollouts, credit)


def test_returns_are_not_needed_of_episodes_that_were_left_out() -> None:
    rollouts = Rollouts.from_lists([[1, 2], [3]], groups=[0, 0])
    rollouts = rollouts.with_column("values/critic", torch.zeros(3, dtype=torch.float64))
    kept = torch.tensor([True, True, False])
    returns = Column(torch.tensor([1.0, 3.0, torch.nan], dtype=torch.float64), kept, "credit")
    unknown = torch.tensor([False, True])
    credit = Credit(rollouts, torch.zeros(3), kept, kept, {"token:credit/returns": returns}, None, unknown)
    values = torch.tensor([1.0, 1.0, torch.nan], dtype=torch.float64)
    loss = OBJECTIVES["value"](clip=9.0)({"values/critic": values}, rollouts, credit)
    assert loss.value.item() == pytest.approx(4 / 4)
    holed = replace(returns, present=torch.tensor([True, False, False]))
    wrong = replace(credit, columns={"token:credit/returns": holed})
    with pytest.raises(InputError, match="at 1 rows where it is missing"):
        OBJECTIVES["value"]()({"values/critic": values}, rollouts, wrong)


@pytest.mark.parametrize("clip", [-0.1, float("nan"), float("inf")])
def test_a_clip_that_is_none(clip: float) -> None:
    with pytest.raises(InputError, match=r"the value clip is .*, expected 0 or more"):
        OBJECTIVES["value"](clip=clip)
