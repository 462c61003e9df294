"""REINFORCE++: returns over holes and responses, whitening over the batch, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from apportion.credit import METHODS, Claim, Credit
from apportion.errors import InputError
from apportion.rollouts import Rollouts, ragged
from credit.cases import close
from credit.worlds import Flat, flats
from reference import baselines


def detail(credit: Credit, name: str) -> list[float]:
    return credit.columns[f"token:credit/{name}"].tensor.tolist()


def flat(rows: list[list[float]]) -> torch.Tensor:
    return ragged.flatten(rows, torch.float64)[0]


@given(world=flats(), gamma=st.sampled_from([0.0, 0.5, 1.0]), reset=st.booleans())
def test_rewards_of_tokens_as_a_loop(world: Flat, gamma: float, reset: bool) -> None:
    assume(sum(map(sum, world.trained)) > 1)
    rewards = [[(3 * i + 5 * t) % 7 / 4 - 0.5 for t, i in enumerate(row)] for row in world.ids]
    rollouts = Rollouts.from_lists(world.ids, groups=world.groups, trained=world.trained, token_rewards=rewards)
    advantages, to_go = baselines.reinforce_pp(rewards, world.trained, gamma=gamma, reset=reset)
    credit = METHODS["reinforce_pp"](gamma=gamma, reset=reset)(rollouts)
    close(credit.columns["token:credit/returns"].tensor, flat(to_go))
    close(credit.advantages, flat(advantages), atol=1e-6)  # deviations next to nothing magnify rounding


@given(world=flats())
def test_the_group_baseline_as_a_loop(world: Flat) -> None:
    assume(sum(map(sum, world.trained)) > 1)
    for singleton in ("zero", "raw"):
        expected = baselines.reinforce_pp_baseline(world.rewards, world.groups, world.trained, singleton=singleton)
        credit = METHODS["reinforce_pp_baseline"](singleton=singleton)(world.rollouts())
        close(credit.advantages, flat(expected), atol=1e-6)


def test_discounted_returns_by_hand() -> None:
    rollouts = Rollouts.from_lists([[1, 2, 3], [4]], groups=[0, 1], token_rewards=[[1.0, 2.0, 4.0], [8.0]])
    credit = METHODS["reinforce_pp"](gamma=0.5, whiten=False)(rollouts)
    assert credit.advantages.tolist() == detail(credit, "returns") == [3.0, 4.0, 4.0, 8.0]


def test_over_a_hole_or_not() -> None:
    """verl forgets what comes after an untrained token, so that tool output cuts a turn off from the outcome."""
    rollouts = Rollouts.from_lists(
        [[1, 2, 9, 3, 4]], groups=[0], trained=[[1, 1, 0, 1, 1]], token_rewards=[[1.0, 2.0, 64.0, 4.0, 8.0]]
    )
    over = METHODS["reinforce_pp"](gamma=0.5, whiten=False)(rollouts)
    assert over.advantages.tolist() == [4.0, 6.0, 0.0, 8.0, 8.0]
    reset = METHODS["reinforce_pp"](gamma=0.5, whiten=False, reset=True)(rollouts)
    assert reset.advantages.tolist() == [2.0, 2.0, 0.0, 8.0, 8.0]


def test_on_across_responses_and_not_across_episodes() -> None:
    rollouts = Rollouts.from_lists([[1], [2], [3]], groups=[0] * 3, episodes=[0, 0, 1], rewards=[1.0, 5.0])
    for reset in (True, False):
        assert METHODS["reinforce_pp"](gamma=0.5, whiten=False, reset=reset)(rollouts).advantages.tolist() == [
            0.5,
            1.0,
            5.0,
        ]


@pytest.mark.parametrize("name", ["reinforce_pp", "reinforce_pp_baseline"])
def test_whitening_is_over_the_trained_tokens_of_the_batch(name: str) -> None:
    rollouts = Rollouts.from_lists(
        [[1, 2, 3], [4], [5, 6]], groups=[0, 0, 0], rewards=[1.0, 0.0, 0.25], trained=[[1, 0, 1], [1], [0, 1]]
    )
    credit = METHODS[name]()(rollouts)
    inside = credit.advantages[rollouts.trained]
    assert abs(float(inside.mean())) < 1e-6
    assert abs(float(inside.std()) - 1) < 1e-6
    assert not credit.advantages[~rollouts.trained].any()


def test_groups_of_equal_rewards_are_not_zero_after_whitening_with_others() -> None:
    """A long answer moves the batch's mean, which a group without contrast then feels."""
    rollouts = Rollouts.from_lists([[1, 2], [3], [4], [5]], groups=[0, 0, 1, 1], rewards=[1.0, 0.0, 1.0, 1.0])
    credit = METHODS["reinforce_pp_baseline"]()(rollouts)
    assert detail(credit, "raw_advantages") == [0.5, 0.5, -0.5, 0.0, 0.0]
    assert credit.advantages[3] == credit.advantages[4] != 0


def test_without_whitening_the_baseline_is_dr_grpos() -> None:
    rollouts = Rollouts.from_lists([[1, 2], [3], [4]], groups=[0, 0, 1], rewards=[1.0, 0.0, 1.0])
    credit = METHODS["reinforce_pp_baseline"](whiten=False)(rollouts)
    close(credit.advantages, METHODS["dr_grpo"]()(rollouts).advantages, atol=0)


def test_the_divergence_is_in_the_returns() -> None:
    rollouts = Rollouts.from_lists(
        [[1, 2]], groups=[0], rewards=[1.0], log_probs_old=[[-1.0, -2.0]], log_probs_reference=[[-3.0, -3.0]]
    )
    credit = METHODS["reinforce_pp"](whiten=False, kl_coefficient=0.5)(rollouts)
    assert credit.advantages.tolist() == [-0.5, 0.5]
    assert METHODS["reinforce_pp"](kl_coefficient=0.5).needs == (
        "reward/outcome",
        "log_probs/old",
        "log_probs/reference",
    )


@pytest.mark.parametrize("name", ["reinforce_pp", "reinforce_pp_baseline"])
def test_one_token_cannot_be_whitened_and_none_need_not(name: str) -> None:
    with pytest.raises(InputError, match="got 1 trained tokens to whiten, expected at least 2"):
        METHODS[name]()(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0]))
    assert METHODS[name]()(Rollouts.from_lists([[]], groups=[0], rewards=[1.0])).advantages.shape == (0,)


def test_groups_of_one() -> None:
    rollouts = Rollouts.from_lists([[1], [2], [3]], groups=[0, 1, 1], rewards=[0.75, 1.0, 0.0])
    raw = METHODS["reinforce_pp_baseline"](whiten=False, singleton="raw")(rollouts)
    assert raw.advantages.tolist() == [0.75, 0.5, -0.5]
    with pytest.raises(InputError, match="1 groups have one member"):
        METHODS["reinforce_pp_baseline"](singleton="error")(rollouts)
    lost = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[0.75, None])
    dead = METHODS["reinforce_pp_baseline"](whiten=False, singleton="raw")(lost, unscored="drop")
    assert dead.advantages.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("reinforce_pp", {"gamma": 1.5}, "gamma is 1.5, expected 0 to 1"),
        ("reinforce_pp", {"gamma": -0.1}, "gamma is -0.1, expected 0 to 1"),
        ("reinforce_pp", {"kl_coefficient": -1.0}, "kl_coefficient is -1.0, expected 0 or more"),
        ("reinforce_pp_baseline", {"singleton": "skip"}, "singleton is 'skip', expected"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        METHODS[name](**settings)


def test_claims() -> None:
    claims = {
        Claim.EXACT: METHODS["reinforce_pp"](whiten=False),
        Claim.CONSISTENT: METHODS["reinforce_pp"](),
        Claim.EXACT_UP_TO_SCALE: METHODS["reinforce_pp_baseline"](whiten=False),
    }
    for claim, stage in claims.items():
        assert stage.bias.claim is claim
    assert METHODS["reinforce_pp_baseline"]().bias.claim is Claim.CONSISTENT
    assert METHODS["reinforce_pp"](gamma=0.9).bias.claim is Claim.BIASED
    assert METHODS["reinforce_pp"](reset=True).bias.claim is Claim.BIASED


def test_returns_are_there_for_a_critic() -> None:
    assert METHODS["reinforce_pp"]().makes == ("credit/returns",)
    rollouts = Rollouts.from_lists([[1, 2], [3, 4]], groups=[0, 0], rewards=[1.0, 0.0])
    assert detail(METHODS["reinforce_pp"]()(rollouts), "returns") == [1.0, 1.0, 0.0, 0.0]


def test_a_reset_discount_is_as_precise_as_one_without() -> None:
    rollouts = Rollouts.from_lists([[0] * 2000], groups=[0], rewards=[1.0])
    settings = {"gamma": 0.99, "whiten": False, "kl_coefficient": 0.0}
    reset, plain = (METHODS["reinforce_pp"](reset=r, **settings)(rollouts).advantages for r in (True, False))
    assert torch.equal(reset, plain)
