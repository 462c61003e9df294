"""What is PURE's own: the minimum of steps, its baselines, and which tokens stand in which step."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from apportion.credit import METHODS, Credit, Work, chain, estimator, min_form
from apportion.credit.recursions import on_tokens, reverse_running_min, trained_tokens
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import DICE
from golden.files import VECTORS, Case, differences, read_cases
from reference import min_form as naive

ALONE: dict[str, Any] = {"verifiable": None, "whiten": False, "singleton": "raw"}
"""Settings under which the advantage of a group of one is the return."""


def stepped(
    ends: Sequence[Sequence[int]],
    scores: Sequence[Sequence[float | None]],
    lengths: Sequence[int] | None = None,
    groups: Sequence[int] | None = None,
    **given: Any,
) -> Rollouts:
    """Responses whose steps end before these places and begin where the last ended."""
    lengths = [row[-1] for row in ends] if lengths is None else lengths
    ids = [[0] * n for n in lengths]
    rollouts = Rollouts.from_lists(ids, groups=[0] * len(ids) if groups is None else groups, **given)
    offsets = rollouts.token_offsets.tolist()
    starts = [a + e for a, row in zip(offsets, ends, strict=False) for e in [0, *row[:-1]][: len(row)]]
    stops = [a + e for a, row in zip(offsets, ends, strict=False) for e in row]
    flat = [s for row in scores for s in row]
    known = torch.tensor([s is not None for s in flat], dtype=torch.bool)
    values = torch.tensor([math.nan if s is None else s for s in flat], dtype=torch.float64)
    return rollouts.with_spans("step", torch.tensor(starts), torch.tensor(stops)).with_reward(
        "prm", values, known, level="step"
    )


def pure(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["pure"](**{**ALONE, **settings})(rollouts)


def transformed(credit: Credit) -> Tensor:
    return credit.columns["step:credit/transformed_reward"].tensor


@pytest.mark.parametrize("case", read_cases(VECTORS / "pure.json"), ids=lambda case: case.name)
def test_the_naive_loop_agrees_with_the_golden_file(case: Case) -> None:
    given = case.arguments
    count = len(given["group_ids"])
    episodes = [
        naive.Episode(
            given["group_ids"][i],
            [True] * given["response_lengths"][i],
            [end + 1 for end in given["step_ends"][i]],
            given["step_rewards"][i],
            given.get("verifiable_rewards", [0.0] * count)[i],
            given.get("token_kl", [[]] * count)[i],
        )
        for i in range(count)
    ]
    advantages = naive.pure(
        episodes,
        transform=given["credit"],
        temperature=given["temperature"],
        baseline=given["baseline"],
        limit=given.get("max_response_length", 0),
        vr_coef=given["vr_coef"],
        kl_coef=given["kl_coef"],
        whitened=given["whiten"],
        zero_step_ends=given.get("zero_step_ends", False),
    )
    steps = [naive.transformed(e, given["credit"], given["temperature"]) for e in episodes]
    result = {"advantages": advantages, "transformed_step_rewards": steps}
    assert not list(differences(result, case.expected, case.atol))


# The minimum


@given(dice=DICE)
def test_the_strict_form_sums_to_the_minimum_from_every_step_on(dice: random.Random) -> None:
    scores = [dice.randint(-8, 8) / 8 for _ in range(dice.randint(1, 6))]
    credit = pure(stepped([range(1, len(scores) + 1)], [scores]), transform="strict_min")
    assert credit.advantages.tolist() == [min(scores[j:]) for j in range(len(scores))]


@given(dice=DICE)
def test_the_soft_form_comes_to_the_minimum_as_it_cools(dice: random.Random) -> None:
    scores = [dice.randint(-8, 8) / 8 for _ in range(dice.randint(1, 6))]
    rollouts = stepped([range(1, len(scores) + 1)], [scores])
    cold = transformed(pure(rollouts, temperature=1e-3))
    assert float(cold.sum()) == pytest.approx(min(scores), abs=1e-9)
    for temperature in (0.1, 10.0):
        total = float(transformed(pure(rollouts, temperature=temperature)).sum())
        assert min(scores) - 1e-9 <= total <= sum(scores) / len(scores) + 1e-9


def test_ties_share_the_weight() -> None:
    assert transformed(pure(stepped([[1, 2]], [[-0.5, -0.5]]))).tolist() == [-0.25, -0.25]


def test_more_good_steps_pay_in_the_sum_alone() -> None:
    short, long = stepped([[2]], [[0.4]]), stepped([[2, 4, 6, 8]], [[0.8, 0.8, 0.8, 0.4]])
    first = {t: [float(pure(r, transform=t).advantages[0]) for r in (short, long)] for t in ("sum", "strict_min")}
    assert first["sum"] == pytest.approx([0.4, 2.8])
    assert first["strict_min"] == pytest.approx([0.4, 0.4])


def test_the_worst_step_is_blamed_most() -> None:
    credit = pure(stepped([[1, 2, 3, 4]], [[0.8, 0.8, -0.6, 0.7]]))
    assert int(transformed(credit).argmin()) == 2
    assert credit.advantages[:3].max() < -0.59
    assert credit.advantages[3] == pytest.approx(0.0, abs=1e-5)


@given(dice=DICE)
def test_the_strict_form_is_the_running_minimum_of_scores_spread_over_their_spans(dice: random.Random) -> None:
    ends = [sorted(dice.sample(range(1, 9), dice.randint(1, 4))) for _ in range(3)]
    scores = [[dice.randint(-8, 8) / 8 for _ in row] for row in ends]
    trained = [[1 if t in row else dice.randint(0, 1) for t in range(1, row[-1] + 1)] for row in ends]
    rollouts = stepped(ends, scores, groups=[0, 1, 2], trained=trained)

    @estimator(needs=("reward/prm",))
    def spread(work: Work) -> Tensor:
        tokens, offsets = trained_tokens(work.rollouts)
        low = reverse_running_min(work.down("prm", where="over")[tokens], offsets)
        return on_tokens(low, tokens, work.rollouts.n_tokens)

    close(pure(rollouts, transform="strict_min").advantages, spread(rollouts).advantages)


def test_the_form_goes_before_other_estimators() -> None:
    rollouts = stepped([[1, 2], [1]], [[0.5, -0.25], [0.25]])
    method = chain(min_form("prm", "strict_min"), METHODS["rloo"]("prm"))
    assert method(rollouts).advantages.tolist() == [-0.5, -0.5, 0.5]


# Tokens and steps


def test_tokens_outside_steps_have_the_return_of_what_follows() -> None:
    rollouts = Rollouts.from_lists([[0] * 6], groups=[0])
    rollouts = rollouts.with_spans("step", torch.tensor([1, 3]), torch.tensor([2, 4]))
    rollouts = rollouts.with_reward("prm", torch.tensor([0.25, 0.5]), level="step")
    assert pure(rollouts, transform="sum").advantages.tolist() == [0.75, 0.75, 0.5, 0.5, 0.0, 0.0]


def test_steps_without_trained_tokens_are_left_out() -> None:
    trained = [[0, 1, 1, 0]]
    credit = pure(stepped([[1, 3, 4]], [[-1.0, 0.25, -1.0]], trained=trained), transform="strict_min")
    assert credit.advantages.tolist() == [0.0, 0.25, 0.25, 0.0]
    assert transformed(credit).tolist() == [0.0, 0.25, 0.0]


def test_the_verifiable_reward_is_the_whole_episodes() -> None:
    rollouts = stepped([[2], [1]], [[0.25], [0.25]], lengths=[3, 1], rewards=[1.0, 0.0])
    credit = pure(rollouts, verifiable="outcome", vr_coef=2.0, max_response_length=4)
    assert credit.advantages.tolist() == [2.25 - 0.0625, 2.25 - 0.0625, 2.0 - 0.0625, 0.25 - 6.5 / 4]


def test_a_policy_equal_to_the_reference_pays_nothing() -> None:
    both = {"log_probs_old": [[-1.0, -2.0]], "log_probs_reference": [[-1.0, -2.0]]}
    rollouts = stepped([[1, 2]], [[0.5, 0.25]], **both)
    assert torch.equal(pure(rollouts, kl_coef=3.0).advantages, pure(rollouts).advantages)
    assert "log_probs/old" not in METHODS["pure"]().needs


def test_one_step_as_long_as_allowed_compared_with_its_equal() -> None:
    equal = stepped([[3], [3]], [[0.5], [0.5]])
    assert not pure(equal).advantages.any()
    assert pure(equal, max_response_length=6).advantages.tolist() == [0.25] * 6


# Whom it sees


def test_an_unknown_span_makes_its_episode_unknown() -> None:
    ends, lost = [[1, 2], [2], [1, 3]], [[0.5, 0.25], [0.75], [0.5, None]]
    rollouts = stepped(ends, lost)
    with pytest.raises(InputError, match="1 of 3 episodes have an unknown reward"):
        pure(rollouts)
    stage = METHODS["pure"](verifiable=None, whiten=False, max_response_length=4)
    credit = stage(rollouts, unscored="drop")
    assert credit.unknown.tolist() == [False, False, True]
    assert credit.counted.tolist() == [True] * 4 + [False] * 3
    assert credit.columns["step:credit/transformed_reward"].present.tolist() == [True] * 3 + [False] * 2
    close(credit.advantages[:4], stage(stepped(ends[:2], lost[:2])).advantages)
    assert not credit.advantages[4:].any()


def test_dead_groups_take_no_part_in_whitening() -> None:
    both = stepped([[1, 2], [2], [1]], [[0.5, 0.25], [0.75], [9.0]], groups=[0, 0, 1])
    stage = METHODS["pure"](verifiable=None)
    credit = stage(both)
    close(credit.advantages[:4], stage(both.select(torch.tensor([0, 1]))).advantages)
    assert credit.advantages[4] == 0
    assert abs(float(credit.advantages[:4].mean())) < 1e-6
    assert not stage(both.select(torch.tensor([0, 2]))).advantages.any()


def test_a_group_of_one_has_no_baseline() -> None:
    one = stepped([[1]], [[0.5]])
    with pytest.raises(InputError, match="1 groups have one member, expected at least two"):
        pure(one, singleton="error")
    assert pure(one, singleton="zero").advantages.tolist() == [0.0]
    for baseline in ("max_len", "tokens", "steps"):
        assert pure(one, baseline=baseline).advantages.tolist() == [0.5]
    dropped = stepped([[1], [1]], [[0.5], [None]])
    assert METHODS["pure"](**ALONE)(dropped, unscored="drop").advantages.tolist() == [0.0, 0.0]


# What it refuses


def test_an_episode_without_steps_has_no_score() -> None:
    with pytest.raises(InputError, match="no step with trained tokens, expected at least one"):
        pure(stepped([[1], []], [[0.5], []], lengths=[1, 2]))
    assert pure(stepped([[1], []], [[0.5], []], lengths=[1, 0])).advantages.tolist() == [0.5]


def test_an_episode_longer_than_allowed() -> None:
    with pytest.raises(InputError, match="an episode has 3 trained tokens, expected at most max_response_length=2"):
        pure(stepped([[3]], [[0.5]]), max_response_length=2)


def test_scores_that_are_not_one_a_span() -> None:
    rollouts = Rollouts.from_lists([[1, 2]], groups=[0], rewards=[1.0], component="prm")
    with pytest.raises(InputError, match="reward 'prm' is not one number a span"):
        pure(rollouts)
    two = stepped([[1, 2]], [[0.5, 0.25]]).with_reward("prm", torch.ones(2, 3), level="step")
    with pytest.raises(InputError, match="reward 'prm' is not one number a span"):
        pure(two)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "temperature is 0.0, expected more than 0"),
        ({"temperature": math.nan}, "temperature is nan, expected more than 0"),
        ({"transform": "min"}, "unknown transform 'min'"),
        ({"baseline": "token"}, "unknown baseline 'token': did you mean 'tokens'"),
        ({"vr_coef": -1.0}, "vr_coef is -1.0, expected 0 or more"),
        ({"kl_coef": math.inf}, "kl_coef is inf, expected 0 or more"),
        ({"kl_estimator": "k0"}, "unknown KL estimator 'k0'"),
        ({"singleton": "none"}, "singleton is 'none', expected"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["pure"](**settings)
