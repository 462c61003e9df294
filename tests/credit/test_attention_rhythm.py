"""What is attention rhythm's own: which tokens are marked, and the columns it may read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from apportion.credit import METHODS, Claim, Credit, Stage, Work, estimator
from apportion.credit.ranks import medians, peak_before, top_share
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts, ragged
from credit.cases import close
from credit.worlds import DICE
from golden.files import VECTORS, Case, differences, read_cases
from reference import rhythm as naive

MADE: dict[str, dict[str, Any]] = {
    "waad/old": {"window": 10, "head_fraction": 0.3},
    "fai/old": {"fai_low": 10, "fai_high": 100, "head_fraction": 0.3},
}


def given_advantages(values: Sequence[float]) -> Stage:
    """A method that gives these."""

    @estimator()
    def same(work: Work) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return same


def measured(
    waad: Sequence[Sequence[float]], fai: Sequence[Sequence[float]], made: Any = MADE, **given: Any
) -> Rollouts:
    """Responses with their two numbers a token."""
    rollouts = Rollouts.from_lists([[0] * len(row) for row in waad], groups=[0] * len(waad), **given)
    for name, rows in (("waad/old", waad), ("fai/old", fai)):
        values = ragged.flatten(rows, torch.float64)[0]
        rollouts = rollouts.with_statistic(name, values, "attention", **made[name])
    return rollouts


def rhythm(rollouts: Rollouts, advantages: Sequence[float] | None = None, **settings: Any) -> Credit:
    values = [1.0] * rollouts.n_tokens if advantages is None else advantages
    return METHODS["attention_rhythm"](**{"base": given_advantages(values), **settings})(rollouts)


@pytest.mark.parametrize("case", read_cases(VECTORS / "attention_rhythm.json"), ids=lambda case: case.name)
def test_the_naive_loop_agrees_with_the_golden_file(case: Case) -> None:
    given = dict(case.arguments)
    advantages, sign = given.pop("advantages"), given.pop("scale_sign")
    result: dict[str, Any] = {}
    if "attentions" in given:
        maps, prompt = given.pop("attentions"), given.pop("prompt_length")
        spans = [naive.head_span(m, prompt) for m in maps]
        local, far = naive.choose(spans, given.pop("head_fraction"))
        window, low, high = (given.pop(name) for name in ("window", "fai_low", "fai_high"))
        waads = [naive.waad(maps[h], prompt, window) for h in local]
        fais = [naive.fai(maps[h], prompt, low, high) for h in far]
        given |= {
            "waad": [sum(column) / len(local) for column in zip(*waads, strict=True)],
            "fai": [sum(column) / len(far) for column in zip(*fais, strict=True)],
        }
        result = {"head_span": spans, "local_heads": local, "global_heads": far, "waad": given["waad"]}
    waad, fai = given.pop("waad"), given.pop("fai")
    result |= {"fai": fai, "delta": naive.changes(waad), "local_set": naive.top(naive.changes(waad), given["quantile"])}
    for name in ("local", "global", "coupled"):
        factors = naive.gamma(waad, fai, rhythm=name, **given)
        result |= {f"gamma_{name}": factors, f"advantages_{name}": naive.scaled(advantages, factors, sign)}
    expected = {name: value for name, value in case.expected.items() if name in result}
    assert not list(differences(result, expected, case.atol))


@pytest.mark.parametrize("name", ["local", "global", "coupled"])
@given(dice=DICE)
def test_equals_the_naive_loop(name: str, dice: random.Random) -> None:
    lengths = [dice.randint(0, 12) for _ in range(dice.randint(1, 4))]
    waad, fai = ([[dice.randint(0, 6) / 4 for _ in range(n)] for n in lengths] for _ in range(2))
    advantages = [[dice.randint(-2, 2) / 2 for _ in range(n)] for n in lengths]
    rule: dict[str, Any] = {
        "rhythm": name,
        "quantile": dice.choice([0.1, 0.25, 0.4, 1.0]),
        "amp": dice.choice([1.0, 1.5, 3.0]),
        "alpha": dice.choice([0.0, 0.25, 1.0]),
        "k": dice.randint(1, 5),
        "tau_waad": dice.choice([None, 0.75]),
        "tau_delta": dice.choice([None, 0.5]),
    }
    sign = dice.choice(["both", "positive"])
    factors = [naive.gamma(*row, **rule) for row in zip(waad, fai, strict=True)]
    expected = [naive.scaled(*row, sign) for row in zip(advantages, factors, strict=True)]
    flat = [a for row in advantages for a in row]
    credit = rhythm(measured(waad, fai), flat, scale_sign=sign, **rule)
    close(credit.advantages, ragged.flatten(expected, torch.float64)[0])
    close(credit.columns["token:credit/gamma"].tensor, ragged.flatten(factors, torch.float64)[0])


# Parts


def test_the_share_is_rounded_up_and_ties_go_to_the_earlier() -> None:
    values, offsets = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 7.0]), torch.tensor([0, 5, 5, 7])
    assert top_share(values, offsets, 0.4).tolist() == [True, True, False, False, False, False, True]
    assert top_share(values, offsets, 0.41).tolist() == [True, True, True, False, False, False, True]
    assert top_share(values, offsets, 1e-9).tolist() == [True, False, False, False, False, False, True]
    assert top_share(values, offsets, 1.0).all()
    many = torch.zeros(10)
    assert top_share(many, torch.tensor([0, 10]), 0.3).sum() == 3  # 0.3 * 10 is 3.0000000000000004 in some orders


def test_medians_are_of_the_two_in_the_middle() -> None:
    values, offsets = torch.tensor([4.0, 1.0, 2.0, 8.0, 5.0, 3.0, 9.0]), torch.tensor([0, 4, 4, 7])
    assert medians(values, offsets).tolist() == [3.0, 0.0, 5.0]


def test_the_peak_before_is_the_nearest_of_equals_and_of_the_same_row() -> None:
    values, offsets = torch.tensor([9.0, 1.0, 1.0, 0.0, 5.0, 2.0]), torch.tensor([0, 4, 6])
    peak, back = peak_before(values, offsets, 2)
    assert peak.tolist() == [-torch.inf, 9.0, 9.0, 1.0, -torch.inf, 5.0]
    assert back.tolist() == [0, 1, 2, 1, 0, 1]


@given(dice=DICE)
def test_coupling_moves_bonus_from_anchors_to_openings(dice: random.Random) -> None:
    waad, fai = ([[dice.randint(0, 6) / 4 for _ in range(12)]] for _ in range(2))
    credit = rhythm(measured(waad, fai), alpha=0.25, amp=2.0)
    part = {n: credit.columns[f"token:credit/{n}"].tensor for n in ("gamma", "global_set", "dominated", "intro")}
    bonus = part["global_set"].sum() - 0.25 * part["dominated"].sum() + 0.25 * part["intro"].sum()
    assert float((part["gamma"] - 1).sum()) == float(bonus)
    assert not (part["dominated"] & ~part["global_set"]).any()
    assert part["intro"].sum() <= part["dominated"].sum()


def test_one_token_opens_and_anchors() -> None:
    for name in ("local", "global", "coupled"):
        assert rhythm(measured([[2.0]], [[0.5]]), rhythm=name).advantages.tolist() == [1.5]


def test_every_turn_has_its_own_rhythm() -> None:
    fai = [0.1, 0.2, 0.0, 0.9, 0.8]
    growing = measured([[0.0] * 5], [fai], trained=[[1, 1, 0, 1, 1]])
    growing = growing.with_spans("turn", torch.tensor([0, 3]), torch.tensor([2, 5]))
    credit = rhythm(growing, rhythm="global", quantile=0.5, amp=2.0)
    assert credit.advantages.tolist() == [1.0, 2.0, 0.0, 2.0, 1.0]
    assert credit.columns["token:credit/gamma"].tensor.tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_untrained_tokens_are_as_if_they_were_not_there() -> None:
    whole = measured([[1.0, 9.0, 0.0, 3.0]], [[0.5, 9.0, 0.25, 0.75]], trained=[[1, 0, 1, 1]])
    without = measured([[1.0, 0.0, 3.0]], [[0.5, 0.25, 0.75]])
    close(rhythm(whole).advantages[[0, 2, 3]], rhythm(without).advantages)


# The method it is put on


def test_the_base_may_be_named_or_made() -> None:
    rollouts = measured([[1.0, 0.0], [2.0]], [[0.5, 0.25], [0.75]], rewards=[1.0, 0.0])
    named = METHODS["attention_rhythm"](base="rloo(singleton='error')")
    close(named(rollouts).advantages, METHODS["attention_rhythm"](base=METHODS["rloo"]())(rollouts).advantages)
    assert named.needs == ("reward/outcome", "waad/old", "fai/old")
    assert named.compares_groups
    assert (named.bias.claim, named.bias.why) == (Claim.BIASED, "tokens are weighed by attention, whatever they earned")
    assert METHODS["attention_rhythm"](base="none").covers == METHODS["none"]().covers
    with pytest.raises(InputError, match="unknown credit method 'grop'"):
        METHODS["attention_rhythm"](base="grop")


def test_without_a_bonus_it_is_the_base() -> None:
    rollouts = measured([[1.0, 0.0], [2.0]], [[0.5, 0.25], [0.75]], rewards=[1.0, 0.0])
    assert torch.equal(
        METHODS["attention_rhythm"](amp=1.0)(rollouts).advantages, METHODS["grpo"]()(rollouts).advantages
    )


# The columns it may read


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 5}, "needs 'waad/old' made with window=5, but attention made it with window=10"),
        ({"fai_high": 50}, "needs 'fai/old' made with fai_high=50, but attention made it with fai_high=100"),
        ({"fai_low": 0}, "needs 'fai/old' made with fai_low=0, but attention made it with fai_low=10"),
        ({"head_fraction": 0.5}, "needs 'waad/old' made with head_fraction=0.5"),
    ],
)
def test_columns_made_with_other_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    rollouts = measured([[1.0, 0.0]], [[0.5, 0.25]])
    rhythm(rollouts)
    with pytest.raises(InputError, match=said):
        rhythm(rollouts, **settings)
    trusted = measured([[1.0, 0.0]], [[0.5, 0.25]], made={"waad/old": {}, "fai/old": {}})
    rhythm(trusted, **settings)


def test_a_rhythm_asks_for_no_more_than_it_reads() -> None:
    rollouts = Rollouts.from_lists([[1, 2]], groups=[0]).with_column("fai/old", torch.tensor([0.5, 0.25]))
    assert rhythm(rollouts, rhythm="global").advantages.tolist() == [1.5, 1.0]
    with pytest.raises(MissingColumn, match="'token:waad/old'"):
        rhythm(rollouts, rhythm="local")
    assert set(METHODS["attention_rhythm"](rhythm="local").needs) == {"reward/outcome", "waad/old"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rhythm": "both"}, "unknown rhythm 'both'"),
        ({"scale_sign": "negative"}, "unknown scale_sign 'negative'"),
        ({"quantile": 0.0}, "quantile is 0.0, expected more than 0 and at most 1"),
        ({"quantile": 1.1}, "quantile is 1.1, expected more than 0 and at most 1"),
        ({"amp": 0.9}, "amp is 0.9, expected 1 or more"),
        ({"amp": float("inf")}, "amp is inf, expected 1 or more"),
        ({"alpha": 1.5}, "alpha is 1.5, expected 0 to 1"),
        ({"k": 0}, "k is 0, expected a whole number of 1 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["attention_rhythm"](**settings)
