"""Several rewards as one: the stage, and EduAlign, which is the stage and GRPO."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion import credit
from apportion.credit import METHODS, Claim, Credit, chain, mix
from apportion.credit.mixing import min_max
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import DICE
from reference import mixtures, outcome


def scored(scores: dict[str, list[float | None]], groups: list[int] | None = None) -> Rollouts:
    """A response of one token an episode, with rewards by component; None is unknown."""
    count = len(next(iter(scores.values())))
    rollouts = Rollouts.from_lists([[0]] * count, groups=groups or [0] * count)
    for name, values in scores.items():
        known = torch.tensor([v is not None for v in values])
        numbers = torch.tensor([0.0 if v is None else v for v in values], dtype=torch.float64)
        rollouts = rollouts.with_reward(name, numbers, known)
    return rollouts


def edu_align(rollouts: Rollouts, unscored: str = "error", **settings: Any) -> Credit:
    return METHODS["edu_align"](**settings)(rollouts, unscored=unscored)


def detail(result: Credit, name: str) -> list[float]:
    return result.columns[f"episode:credit/{name}"].tensor.tolist()


@given(dice=DICE)
def test_equals_the_naive_loop(dice: random.Random) -> None:
    count, names = dice.randint(1, 7), ["a", "b", "c"][: dice.randint(1, 3)]
    scores = [[dice.randint(4, 20) / 4 for _ in names] for _ in range(count)]
    weights = [dice.choice([0.5, 1, 3]) for _ in names]
    groups, within = dice.choices([2, 5], k=count), dice.random() < 0.5
    expected = mixtures.weighted_mean(scores, weights, 1.0, 5.0, groups if within else None, 1e-4)
    rollouts = scored({n: [row[i] for row in scores] for i, n in enumerate(names)}, groups)
    result = edu_align(rollouts, components=names, weights=weights, low=1, high=5, scale_within_group=within)
    assert detail(result, "reward/mixed") == pytest.approx(expected, abs=1e-9)
    advantages = outcome.grpo(expected, groups, norm_by_std=True, eps=1e-4)
    close(result.advantages, torch.tensor(advantages, dtype=torch.float64))


def test_the_scores_are_scaled_and_kept() -> None:
    rollouts = scored({"helpfulness": [5.0, 1.0], "style": [0.0, 10.0]})
    ranges: dict[str, Any] = {"low": {"helpfulness": 1, "style": 0}, "high": {"helpfulness": 5, "style": 10}}
    result = edu_align(rollouts, components=("helpfulness", "style"), weights={"style": 1, "helpfulness": 3}, **ranges)
    assert detail(result, "scaled/helpfulness") == [1.0, 0.0]
    assert detail(result, "scaled/style") == [0.0, 1.0]
    assert detail(result, "reward/mixed") == [0.75, 0.25]
    assert rollouts.column("episode:reward/helpfulness").tolist() == [5.0, 1.0]


def test_one_component_is_grpo() -> None:
    rollouts = scored({"outcome": [1.0, 0.0, 0.5, 0.25]}, [0, 0, 1, 1])
    same = METHODS["grpo"](eps=0.0)(rollouts)
    close(edu_align(rollouts, components=("outcome",), eps=0.0).advantages, same.advantages)
    close(edu_align(rollouts, components=("outcome",), high=8, eps=0.0).advantages, same.advantages)


def test_a_component_without_weight_changes_nothing() -> None:
    rollouts = scored({"a": [1.0, 0.0, 0.5], "b": [0.0, 1.0, 0.75]})
    both = edu_align(rollouts, components=("a", "b"), weights=(1, 0))
    assert torch.equal(both.advantages, edu_align(rollouts, components=("a",)).advantages)


def test_within_groups_a_wide_component_does_not_dominate() -> None:
    rollouts = scored({"wide": [1.0, 0.0, 0.0], "narrow": [0.0, 0.1, 0.0]})
    plain = edu_align(rollouts, components=("wide", "narrow"))
    within = edu_align(rollouts, components=("wide", "narrow"), scale_within_group=True, eps=0.0)
    by_a = plain.advantages - plain.advantages[2]
    assert float(by_a[0]) == pytest.approx(10 * float(by_a[1]))
    assert float(within.advantages[0]) == pytest.approx(float(within.advantages[1]))
    assert detail(within, "scaled/wide") == pytest.approx([2 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5])


def test_within_groups_it_is_the_same_where_all_vary_alike() -> None:
    rollouts = scored({"a": [1.0, 0.0, 0.0, 1.0], "b": [0.0, 0.0, 1.0, 1.0]})
    settings: dict[str, Any] = {"components": ("a", "b"), "eps": 0.0}
    close(
        edu_align(rollouts, scale_within_group=True, **settings).advantages, edu_align(rollouts, **settings).advantages
    )


def test_a_component_the_group_agrees_on_adds_nothing_within_groups() -> None:
    rollouts = scored({"a": [1.0, 0.0], "b": [0.3, 0.3]})
    result = edu_align(rollouts, components=("a", "b"), scale_within_group=True)
    assert detail(result, "scaled/b") == [0.0, 0.0]


def test_one_unknown_score_makes_the_mixture_unknown() -> None:
    rollouts = scored({"a": [1.0, 0.0, 0.5], "b": [0.5, None, 1.0]})
    with pytest.raises(InputError, match="1 of 3 episodes have an unknown reward"):
        edu_align(rollouts, components=("a", "b"))
    result = edu_align(rollouts, "drop", components=("a", "b"))
    assert result.unknown.tolist() == [False, True, False]
    assert not result.trained[1]
    kept = edu_align(rollouts.select(torch.tensor([0, 2])), components=("a", "b"))
    assert torch.equal(result.advantages[[0, 2]], kept.advantages)
    assert result.columns["episode:credit/reward/mixed"].present.tolist() == [True, False, True]


def test_a_group_of_one() -> None:
    rollouts = scored({"outcome": [0.5]})
    assert edu_align(rollouts, components=("outcome",)).advantages.tolist() == [0.0]
    raw = edu_align(rollouts, components=("outcome",), singleton="raw", norm_by_std=False)
    assert raw.advantages.tolist() == [0.5]
    with pytest.raises(InputError, match="1 groups have one member, expected at least two"):
        edu_align(rollouts, components=("outcome",), singleton="error")


def test_the_mixture_goes_to_any_estimator() -> None:
    rollouts = scored({"a": [1.0, 0.0], "b": [0.0, 0.0]})
    method = chain(mix({"a": 1, "b": 1}, into="both"), METHODS["rloo"]("both"))
    assert method.needs == ("reward/a", "reward/b")
    assert method.bias.claim is Claim.EXACT
    assert method(rollouts).advantages.tolist() == [0.5, -0.5]
    over = chain(mix({"a": 1, "b": 3}, into="a"), METHODS["rloo"]("a"))
    assert over(rollouts).advantages.tolist() == [0.25, -0.25]
    assert METHODS["edu_align"](scale_within_group=True).bias.claim is Claim.BIASED


def test_a_missing_component_is_named_with_its_maker() -> None:
    with pytest.raises(
        MissingColumn, match=r"'reward/creativity', which these rollouts lack: .*--annotators dimensions"
    ):
        edu_align(scored({"helpfulness": [1.0], "personalization": [1.0]}))


@pytest.mark.parametrize(("score", "shown"), [(1.5, "1.5"), (-0.25, "-0.25")])
def test_a_score_outside_of_its_range(score: float, shown: str) -> None:
    said = f"1 episodes have a reward 'a' outside of 0.0 to 1.0, such as {shown}: expected scores in that range"
    with pytest.raises(InputError, match=said):
        edu_align(scored({"a": [0.5, score]}), components=("a",))


def test_a_sum_may_round_beyond_its_range() -> None:
    parts = torch.full((10,), 0.1, dtype=torch.float64)
    rollouts = Rollouts.from_lists([[0] * 10, [0]], groups=[0, 0])
    rollouts = rollouts.with_reward("a", torch.cat([parts, torch.zeros(1).double()]), level="token")
    assert edu_align(rollouts, components=("a",), high=float(parts.sum()) - 1e-12).advantages[0] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"components": ()}, r"got components \(\), expected a list of different names"),
        ({"components": "helpfulness"}, "got components 'helpfulness', expected a list of different names"),
        ({"components": ("a", "a")}, "expected a list of different names"),
        ({"weights": (1, 1)}, "got 2 weights for 3 components, expected one each"),
        ({"weights": {"helpfulness": 1}}, "got weights of .* but components .*, expected the same"),
        ({"weights": (1, 1, -1)}, "the weight of 'creativity' is -1, expected 0 or more"),
        ({"weights": (1, 1, float("inf"))}, "the weight of 'creativity' is inf, expected 0 or more"),
        ({"weights": (0, 0, 0)}, "got weights .*, expected at least one above 0"),
        ({"low": 1.0}, "scores of 'helpfulness' range from 1.0 to 1.0, expected low below high"),
        ({"high": float("nan")}, "range from 0.0 to nan, expected low below high"),
        ({"low": {"helpfulness": 0}}, "low has no entry for 'personalization', expected one a component"),
        ({"eps": -1.0}, "eps is -1.0, expected 0 or more"),
        ({"singleton": "mean"}, "singleton is 'mean', expected"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["edu_align"](**settings)


def test_a_spec_may_name_components() -> None:
    stage = credit.build("edu_align(components=('a', 'b'), weights={'a': 2, 'b': 1})")
    assert stage.needs == ("reward/a", "reward/b")


def test_between_the_smallest_and_the_largest() -> None:
    assert min_max(torch.tensor([-1.0, 3.0, 0.0])).tolist() == [0.0, 1.0, 0.25]
    assert min_max(torch.tensor([0.1, 0.1])).tolist() == [0.0, 0.0]
    assert min_max(torch.zeros(0)).tolist() == []


def test_a_raw_reward_of_one_and_scaling_within_its_group_exclude_each_other() -> None:
    with pytest.raises(InputError, match="give one of the two"):
        METHODS["edu_align"](("outcome",), singleton="raw", scale_within_group=True)


def test_weights_must_be_numbers() -> None:
    with pytest.raises(InputError, match="the weight of 'outcome' is nan, expected a number"):
        METHODS["edu_align"](("outcome",), weights=[float("nan")])
