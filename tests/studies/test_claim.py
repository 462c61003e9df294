"""The verdict on a claim: each of its kinds, and how often it is wrong where nothing holds."""

from __future__ import annotations

import math

import pytest
import torch

from apportion.errors import InputError
from apportion.studies.claim import INCONCLUSIVE, LOOKS, NOT_REPRODUCED, REPRODUCED, Claim, judge

SPREAD = [0.9, 1.1, 1.0, 0.8, 1.2, 1.0]


@pytest.mark.parametrize(
    ("smallest", "verdict"), [(0.5, REPRODUCED), (1.5, NOT_REPRODUCED), (1.0, None), (0.9, None), (1.1, None)]
)
def test_verdicts_at_the_first_look(smallest: float, verdict: str | None) -> None:
    assert judge(SPREAD, smallest).verdict == verdict


@pytest.mark.parametrize(("smallest", "verdict"), [(0.5, REPRODUCED), (1.5, NOT_REPRODUCED), (1.0, INCONCLUSIVE)])
def test_at_the_last_look_there_is_a_verdict(smallest: float, verdict: str) -> None:
    assert judge((SPREAD * 4)[:20], smallest).verdict == verdict


def test_the_interval_by_hand() -> None:
    judged = judge(SPREAD, 0.5)
    half = 3.1634 * math.sqrt(0.1 / 5) / math.sqrt(6)  # t of 5 degrees of freedom at 97.5 %
    assert judged.effect == pytest.approx(1.0)
    assert (judged.low, judged.high) == pytest.approx((1 - half, 1 + half), rel=3e-3)


def test_an_effect_that_never_varies_is_judged_by_its_value() -> None:
    assert judge([1.0] * 6, 0.5).verdict == REPRODUCED
    assert judge([0.2] * 6, 0.5).verdict == NOT_REPRODUCED
    assert judge([0.5] * 20, 0.5).verdict == INCONCLUSIVE


def rates(effects: torch.Tensor, smallest: float) -> dict[str | None, float]:
    """How often each verdict is given when repeats ``[R, 20]`` are looked at as a run looks at them."""
    given: list[str | None] = []
    for row in effects.tolist():
        early = judge(row[: LOOKS[0]], smallest).verdict
        given.append(early or judge(row, smallest).verdict)
    return {verdict: given.count(verdict) / len(given) for verdict in (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE)}


def test_looking_twice_does_not_make_false_verdicts_likelier() -> None:
    """Effects exactly as large as the smallest that counts: 2.5 % may be called reproduced, 2.5 % not reproduced."""
    generator = torch.Generator().manual_seed(11)
    found = rates(1.0 + torch.randn((20000, 20), generator=generator, dtype=torch.float64), 1.0)
    for verdict in (REPRODUCED, NOT_REPRODUCED):
        assert 0.018 < found[verdict] < 0.026, found


def test_effects_that_count_are_found_early_or_late() -> None:
    generator = torch.Generator().manual_seed(12)
    noise = torch.randn((4000, 20), generator=generator, dtype=torch.float64)
    assert rates(2.0 + noise, 0.0)[REPRODUCED] > 0.99
    assert rates(noise - 2.0, 0.0)[NOT_REPRODUCED] > 0.99
    assert rates(0.75 + noise, 0.0)[REPRODUCED] > 0.75


@pytest.mark.parametrize("count", [0, 5, 7, 19, 21])
def test_other_numbers_of_seeds_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=rf"{count} effects were given, expected one of \(6, 20\)"):
        judge([1.0] * count, 0.5)


def test_effects_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="an effect is not finite"):
        judge([1.0, math.nan, 1.0, 1.0, 1.0, 1.0], 0.5)


@pytest.mark.parametrize("empty", ["method", "title", "says", "how", "against"])
def test_a_claim_without_its_sentences_is_refused(empty: str) -> None:
    words = dict.fromkeys(("method", "title", "says", "how", "against"), "x") | {empty: " "}
    with pytest.raises(InputError, match=f"empty '{empty}'"):
        Claim(**words, smallest=0.1, measure=lambda seed: {"effect": 1.0})
    with pytest.raises(InputError, match="smallest effect is inf"):
        Claim("a", "b", "c", "d", "e", math.inf, lambda seed: {"effect": 1.0})
