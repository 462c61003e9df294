"""What is HICRA's own: which tokens are raised, by how much, and what it may be put on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.annotations import ANNOTATORS
from apportion.credit import METHODS, Claim, Credit
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import DICE, Flat, flats


def planned(plans: Sequence[Sequence[float]], rewards: Sequence[float | None], **given: Any) -> Rollouts:
    """Responses of one group and their planning tokens."""
    rollouts = Rollouts.from_lists(
        [range(len(row)) for row in plans], groups=[0] * len(plans), rewards=rewards, **given
    )
    return rollouts.with_column("planning/grams", torch.tensor([p for row in plans for p in row]))


def hicra(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["hicra"](**settings)(rollouts)


def test_planning_tokens_are_praised_more_and_blamed_less() -> None:
    credit = hicra(planned([[1, 0], [1, 0], [0]], [1.0, 0.0, 0.5]), alpha=0.5)
    assert credit.advantages.tolist() == [0.75, 0.5, -0.25, -0.5, 0.0]
    assert credit.columns["token:credit/base_advantages"].tensor.tolist() == [0.5, 0.5, -0.5, -0.5, 0.0]
    assert credit.columns["token:credit/planning"].tensor.tolist() == [True, False, True, False, False]


@given(dice=DICE)
def test_the_order_of_advantages_and_their_signs_stay(dice: random.Random) -> None:
    plans = [[dice.randint(0, 1) for _ in range(dice.randint(1, 4))] for _ in range(4)]
    credit = hicra(planned(plans, [dice.randint(0, 8) / 8 for _ in plans]), alpha=dice.choice([0.01, 0.2, 0.99]))
    base = credit.columns["token:credit/base_advantages"].tensor
    assert torch.equal(credit.advantages.sign(), base.sign())
    assert (credit.advantages >= base).all()


@given(world=flats())
def test_without_planning_tokens_it_is_its_base(world: Flat) -> None:
    rollouts = world.rollouts()
    none = rollouts.with_column("planning/grams", torch.zeros(rollouts.n_tokens, dtype=torch.bool))
    close(hicra(none).advantages, METHODS["dr_grpo"]()(rollouts).advantages, atol=0)
    every = rollouts.with_column("planning/grams", torch.ones(rollouts.n_tokens))
    base = METHODS["rloo"]()(rollouts).advantages
    close(hicra(every, base="rloo").advantages, base + 0.2 * base.abs(), atol=0)


def test_any_method_and_any_column_of_marks() -> None:
    rollouts = planned([[0, 0], [0, 0]], [1.0, 0.0]).with_column("mine", torch.tensor([0, 1, 0, 0]))
    credit = hicra(rollouts, base=METHODS["rloo"](), column="mine")
    assert credit.advantages.tolist() == [1.0, 1.2, -1.0, -1.0]
    assert METHODS["hicra"](column="mine").needs == ("reward/outcome", "mine")
    assert METHODS["hicra"](base="rloo").bias.claim is Claim.BIASED


def test_untrained_tokens_get_nothing_and_may_be_marked_with_anything() -> None:
    for mark in (1, 7):
        credit = hicra(planned([[1, mark], [0]], [1.0, 0.0], trained=[[1, 0], [1]]))
        assert credit.advantages.tolist() == [0.6, 0.0, -0.5]
        assert credit.columns["token:credit/planning"].tensor.tolist() == [True, False, False]


def test_from_grams_to_advantages() -> None:
    rollouts = Rollouts.from_lists([[5, 6, 7], [6, 5]], groups=[0, 0], rewards=[1.0, 0.0])
    annotated = ANNOTATORS["planning_grams"](grams=[[5, 6]]).apply(rollouts, None)
    assert hicra(annotated).advantages.tolist() == [0.6, 0.6, 0.5, -0.5, -0.5]


def test_a_missing_column_names_the_annotator() -> None:
    with pytest.raises(MissingColumn, match=r"planning/grams.*in a run --annotators planning_grams"):
        hicra(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0]))


def test_a_column_that_does_not_mark() -> None:
    with pytest.raises(InputError, match=r"'planning/grams' is 0\.5 at a token, expected 0 or 1"):
        hicra(planned([[1, 0.5], [0.0]], [1.0, 0.0]))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.2, 1.5, math.nan])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(InputError, match=f"alpha is {alpha}, expected more than 0 and less than 1"):
        METHODS["hicra"](alpha=alpha)
