"""What is GAE's own: the critic's values, the ends of episodes, whitening, and the divergence in the reward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from apportion.credit import METHODS, Claim, Credit, chain, kl_in_reward
from apportion.errors import InputError
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from credit.cases import close
from golden.files import VECTORS, Case, differences, read_cases
from reference import returns


def valued(ids: list[list[int]], values: list[float], **given: Any) -> Rollouts:
    """Rollouts with a critic's values."""
    rollouts = Rollouts.from_lists(ids, groups=[0] * len(ids), **given)
    return rollouts.with_column("values/critic", torch.tensor(values, dtype=torch.float64))


def gae(rollouts: Rollouts, **settings: Any) -> Credit:
    return METHODS["gae"](**{"whiten": False, **settings})(rollouts)


def detail(credit: Credit, name: str) -> list[float]:
    return credit.columns[f"token:credit/{name}"].tensor.tolist()


@pytest.mark.parametrize("case", read_cases(VECTORS / "gae.json"), ids=lambda case: case.name)
def test_the_naive_loop_agrees_with_the_golden_file(case: Case) -> None:
    given = case.arguments
    masks = [[bool(m) for m in row] for row in given["response_mask"]]
    both = [
        returns.gae(*row, gamma=given["gamma"], lam=given["lam"])
        for row in zip(given["token_rewards"], given["values"], masks, strict=True)
    ]
    raw, to_regress = [a for a, _ in both], [r for _, r in both]
    result = {"raw_advantages": raw, "returns": to_regress, "advantages": returns.whiten(raw, masks)}
    assert not list(differences(result, case.expected, case.atol))


def test_without_discounts_it_is_the_return_minus_the_value() -> None:
    rollouts = valued([[1, 2, 3], [4]], [0.5, -1.0, 0.25, 2.0], token_rewards=[[1.0, 2.0, 4.0], [8.0]])
    credit = gae(rollouts)
    assert credit.advantages.tolist() == [6.5, 7.0, 3.75, 6.0]
    assert detail(credit, "returns") == [7.0, 6.0, 4.0, 8.0]
    assert detail(credit, "raw_advantages") == credit.advantages.tolist()


def test_with_lam_zero_it_is_the_temporal_difference() -> None:
    rollouts = valued([[1, 2, 3]], [1.0, 2.0, 4.0], rewards=[16.0])
    assert gae(rollouts, gamma=0.5, lam=0.0).advantages.tolist() == [0.0, 0.0, 12.0]


def test_a_perfect_critic_leaves_nothing() -> None:
    rollouts = valued([[1, 2, 3]], [0.25, 0.5, 1.0], rewards=[1.0])
    assert gae(rollouts, gamma=0.5, lam=0.3).advantages.tolist() == [0.0, 0.0, 0.0]


def test_episodes_go_on_across_responses_and_untrained_tokens() -> None:
    values, rewards = [1.0, 9.0, 2.0, 4.0], [1.0, 64.0, 2.0, 4.0]
    growing = valued([[1, 7, 2, 3]], values, token_rewards=[rewards], trained=[[1, 0, 1, 1]])
    separate = valued([[1], [2, 3]], [1.0, 2.0, 4.0], token_rewards=[[1.0], [2.0, 4.0]], episodes=[0, 0])
    one, other = (gae(r, gamma=0.5, lam=0.5) for r in (growing, separate))
    assert one.advantages[[0, 2, 3]].tolist() == other.advantages.tolist() == [1.5, 2.0, 0.0]
    assert detail(one, "returns") == [2.5, 0.0, 4.0, 4.0]


def test_a_truncated_episode_goes_on_from_the_state_it_ended_in() -> None:
    rollouts = valued([[1], [2], [3]], [0.0, 0.0, 0.0], rewards=[0.0, 0.0], episodes=[0, 0, 1])
    ends = torch.tensor([100.0, 8.0, 0.0])
    credit = gae(rollouts.with_column("response:values_end/critic", ends), gamma=0.5)
    assert credit.advantages.tolist() == [2.0, 4.0, 0.0]  # what the first response ended in is the next one's state
    assert gae(rollouts, gamma=0.5).advantages.tolist() == [0.0, 0.0, 0.0]
    last_missing = rollouts.with_column("response:values_end/critic", ends, torch.tensor([True, True, False]))
    with pytest.raises(InputError, match="gae reads 'response:values_end/critic' at 1 rows where it is missing"):
        gae(last_missing)


def test_whitening_is_over_the_trained_tokens_of_the_batch() -> None:
    rewards, values = [[1.0, 5.0, 2.0], [4.0]], [0.0, 0.0, 0.5, 1.0]
    rollouts = valued([[1, 2, 3], [4]], values, token_rewards=rewards, trained=[[1, 0, 1], [1]])
    credit = gae(rollouts, whiten=True)
    inside = credit.advantages[rollouts.trained]
    assert abs(float(inside.mean())) < 1e-6
    assert abs(float(inside.std()) - 1) < 1e-6
    assert credit.advantages[1] == 0
    [first, second] = returns.whiten([[3.0, 0.0, 1.5], [3.0]], [[True, False, True], [True]])
    close(credit.advantages, torch.tensor([*first, *second], dtype=torch.float64))
    assert detail(credit, "raw_advantages") == [3.0, 0.0, 1.5, 3.0]


def test_whitening_needs_two_tokens_unless_there_are_none() -> None:
    with pytest.raises(InputError, match="got 1 trained tokens to whiten, expected at least 2: pass whiten=False"):
        gae(valued([[1]], [0.0], rewards=[1.0]), whiten=True)
    assert gae(valued([[]], [], rewards=[1.0]), whiten=True).advantages.shape == (0,)


def test_the_value_loss_reads_the_returns_though_episodes_were_dropped() -> None:
    rollouts = valued([[1, 2], [3]], [0.0, 0.0, 0.0], rewards=[1.0, None])
    stage = METHODS["gae"](whiten=False)
    assert stage.makes == METHODS["gae"](kl_coefficient=0.1).makes == ("credit/returns",)
    credit = stage(rollouts, unscored="drop")
    loss = OBJECTIVES["value"]()({"values/critic": torch.zeros(3, dtype=torch.float64)}, rollouts, credit)
    assert loss.value.item() == 0.5


def test_a_missing_value_of_a_trained_token_is_an_error() -> None:
    rollouts = Rollouts.from_lists([[1, 2]], groups=[0], rewards=[1.0], trained=[[1, 0]])
    present = torch.tensor([False, True])
    with pytest.raises(InputError, match="gae reads 'token:values/critic' at 1 rows where it is missing"):
        gae(rollouts.with_column("values/critic", torch.zeros(2), present))
    gae(rollouts.with_column("values/critic", torch.tensor([0.0, torch.inf]), ~present), head="critic")


@pytest.mark.parametrize(
    ("settings", "claim"),
    [
        ({"whiten": False}, Claim.EXACT),
        ({}, Claim.CONSISTENT),
        ({"lam": 0.9}, Claim.BIASED),
        ({"gamma": 0.9}, Claim.BIASED),
        ({"whiten": False, "kl_coefficient": 0.1}, Claim.EXACT),
        ({"whiten": False, "kl_coefficient": 0.1, "kl_estimator": "k3"}, Claim.BIASED),
    ],
)
def test_what_is_claimed(settings: dict[str, Any], claim: Claim) -> None:
    bias = METHODS["gae"](**settings).bias
    assert bias.claim == claim
    assert bool(bias.why) == (claim != Claim.EXACT)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": 1.1}, "gamma is 1.1, expected 0 to 1"),
        ({"lam": -0.1}, "lam is -0.1, expected 0 to 1"),
        ({"lam": float("nan")}, "lam is nan, expected 0 to 1"),
        ({"kl_coefficient": -1.0}, "kl_coefficient is -1.0, expected 0 or more"),
        ({"kl_coefficient": 1.0, "kl_estimator": "k4"}, "unknown KL estimator 'k4'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["gae"](**settings)


# The divergence in the reward


def diverging(**given: Any) -> Rollouts:
    return Rollouts.from_lists(
        [[1, 2, 3]],
        groups=[0],
        trained=[[1, 0, 1]],
        log_probs_old=[[-1.0, 9.0, -2.0]],
        log_probs_reference=[[-2.0, 9.0, -1.5]],
        **given,
    ).with_column("values/critic", torch.zeros(3))


def test_the_divergence_is_subtracted_at_every_trained_token() -> None:
    credit = gae(diverging(rewards=[1.0]), kl_coefficient=0.5, gamma=0.0)
    assert credit.advantages.tolist() == [-0.5, 0.0, 1.25]
    squared = gae(diverging(rewards=[1.0]), kl_coefficient=0.5, kl_estimator="k2", gamma=0.0)
    assert squared.advantages.tolist() == [-0.25, 0.0, 0.9375]


def test_a_reward_a_token_keeps_its_place() -> None:
    credit = gae(diverging(token_rewards=[[4.0, 8.0, 1.0]]), kl_coefficient=0.5, gamma=0.0)
    assert credit.advantages.tolist() == [3.5, 0.0, 1.25]


def test_the_shaper_goes_before_any_estimator() -> None:
    pair = Rollouts.from_lists(
        [[1, 2], [3]],
        groups=[0, 0],
        rewards=[1.0, 0.0],
        log_probs_old=[[-1.0, -1.0], [-1.0]],
        log_probs_reference=[[-2.0, -3.0], [-1.0]],
    )
    method = chain(kl_in_reward(0.25), METHODS["rloo"]())
    assert method(pair).advantages.tolist() == [0.25, 0.25, -0.25]
    assert set(method.needs) == {"reward/outcome", "log_probs/old", "log_probs/reference"}
