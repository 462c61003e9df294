"""The decoder as a learner: it finds who earned the return, and draws the same after an interruption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.credit import METHODS, Clock
from apportion.errors import InputError
from apportion.models.return_decoder import PROXY, ReturnDecoder
from apportion.models.tabular import TabularPolicy
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from apportion.training.config import TrainConfig
from apportion.training.learner import Learner, UpdateSettings
from apportion.training.learners import LEARNERS
from golden.adapters._build import credit_of

SETTINGS = UpdateSettings.of(TrainConfig(learning_rate=1e-3, seed=3))
POLICY = TabularPolicy(vocabulary=2, depth=4)


def episodes(factors: Tensor, rewards: Tensor, length: int, trained: list[list[int]] | None = None) -> Rollouts:
    """Episodes of steps of one token with these factors, rewarded with the sum of their steps'."""
    count = len(factors) // length
    returns = rewards.reshape(count, length).sum(1).tolist()
    ids = [[0] * length] * count
    rollouts = Rollouts.from_lists(ids, groups=range(count), rewards=returns, trained=trained)
    tokens = torch.arange(rollouts.n_tokens)
    return rollouts.with_spans("step", tokens, tokens + 1).with_column("step:latent", factors)


def made(**settings: Any) -> Learner:
    return LEARNERS["return_decoder"](**{"factors": 2, "hidden": 8, **settings}).make(POLICY, SETTINGS)


def random_steps(count: int, length: int, seed: int = 0) -> Rollouts:
    factors = torch.randn((count * length, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return episodes(factors, 2 * factors[:, 0] - 1, length)


@pytest.mark.parametrize(("loss", "near"), [("rd", 0.1), ("rrd", 0.4), ("rrd_unbiased", 0.1)])
def test_it_learns_what_steps_earn_from_returns_alone(loss: str, near: float) -> None:
    """What is drawn varies, which plain ``rrd`` takes for the proxies' own error and flattens them."""
    rollouts = random_steps(32, 5)
    learner = made(loss=loss, sampled_steps=4, layers=1, learning_rate=0.05, epochs=150)
    before = learner.annotate(rollouts).column("step:reward/proxy")
    metrics = learner.update(METHODS["none"]()(rollouts), Clock(0, 1))
    proxy = learner.annotate(rollouts).column("step:reward/proxy")
    earned = 2 * rollouts.columns["step:latent"].tensor[:, 0] - 1
    assert (before - earned).abs().mean() > 0.5
    assert (proxy - earned).abs().mean() < near
    assert float(torch.corrcoef(torch.stack([proxy, earned]))[0, 1]) > 0.99
    assert {"loss", "decomposition_error", "grad_norm"} <= metrics.keys()


def test_few_factors_that_matter_need_few_episodes() -> None:
    """The paper's claim in small: the same regression on everything that was observed takes far more of them."""

    def correlation(episode_count: int, factors_of: Any) -> float:
        length, generator = 20, torch.Generator().manual_seed(1)
        seen = torch.randn((episode_count * length, 20), generator=generator, dtype=torch.float64)
        criteria = torch.stack([seen[:, 0].tanh(), seen[:, 1] ** 2, seen[:, 2].abs()], 1)
        earned = criteria @ torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
        rollouts = episodes(factors_of(seen, criteria), earned, length)
        decoder = ReturnDecoder(rollouts.columns["step:latent"].tensor.shape[1], layers=1, dtype=torch.float64)
        parameters = [parameter for _, parameter in decoder.named_parameters()]
        optimiser = torch.optim.LBFGS(parameters, max_iter=300, line_search_fn="strong_wolfe")
        objective, credit = OBJECTIVES["return_decomposition"](), credit_of(rollouts)

        def closure() -> Tensor:
            optimiser.zero_grad()
            proxy = decoder.decode(decoder.latent(rollouts))
            loss = objective({PROXY: proxy}, rollouts, credit).value + 1e-5 * sum((p**2).sum() for p in parameters)
            loss.backward()
            return loss

        optimiser.step(closure)
        proxy = decoder.decode(decoder.latent(rollouts)).detach()
        return float(torch.corrcoef(torch.stack([proxy, earned]))[0, 1])

    everything = [correlation(n, lambda seen, _: torch.cat([seen, seen**2], 1)) for n in (10, 100)]
    chosen = correlation(10, lambda _, criteria: criteria)
    assert chosen > 0.98
    assert everything[0] < 0.7
    assert everything[0] + 0.1 < everything[1] < chosen


def test_what_the_policy_did_not_write_earned_nothing() -> None:
    rollouts = episodes(torch.ones((3, 2), dtype=torch.float64), torch.ones(3), 3, trained=[[1, 0, 1]])
    proxy = made().annotate(rollouts).column("step:reward/proxy")
    assert proxy[1] == 0 != proxy[0] == proxy[2]


def test_rewards_come_from_before_or_after_the_update() -> None:
    assert made().order == "before"
    assert made(order="after").order == "after"


def test_it_draws_the_same_after_an_interruption() -> None:
    credit = METHODS["none"]()(random_steps(8, 6))
    settings: dict[str, Any] = {"loss": "rrd", "sampled_steps": 2, "epochs": 3}
    whole = made(**settings)
    for step in range(2):
        whole.update(credit, Clock(step, 2))
    first, second = made(**settings), made(**settings)
    first.update(credit, Clock(0, 2))
    for mine, theirs in zip(second.parameters, first.parameters, strict=True):
        mine.data.copy_(theirs.data)
    second.restore(first.state())
    second.update(credit, Clock(1, 2))
    for mine, theirs in zip(second.parameters, whole.parameters, strict=True):
        assert torch.equal(mine, theirs)
    forgetful = made(**settings)
    for mine, theirs in zip(forgetful.parameters, first.parameters, strict=True):
        mine.data.copy_(theirs.data)
    forgetful.restore({**first.state(), "updates": 0})
    forgetful.update(credit, Clock(1, 2))
    assert not all(torch.equal(a, b) for a, b in zip(forgetful.parameters, whole.parameters, strict=True))


def test_returns_that_are_unknown_do_not_stop_it() -> None:
    rollouts = random_steps(2, 3)
    lost = rollouts.with_reward("outcome", torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    before_credit = METHODS["none"]()(lost)  # what learners get that learn before credit is assigned
    assert made().update(before_credit, Clock(0, 1))["loss"] > 0


def test_what_a_run_is_told_it_needs_and_makes() -> None:
    factory = LEARNERS["return_decoder"](loss="rrd", level="turn", reward="guess")
    assert factory.needs == ("turn:latent",)
    assert factory.makes == ("reward/guess", "turn:reward/guess", "turn:drawn")
    assert "turn:drawn" in factory.objective.needs
    assert LEARNERS["return_decoder"]().makes == ("reward/proxy", "step:reward/proxy")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "mse"}, "unknown loss 'mse'"),
        ({"order": "during"}, "unknown order 'during'"),
        ({"epochs": 0}, "epochs=0, sampled_steps=64: expected both at least 1"),
        ({"sampled_steps": 0}, "epochs=8, sampled_steps=0"),
        ({"factors": 0}, "factors is 0, expected at least 1"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        LEARNERS["return_decoder"](**settings)


def test_the_policy_s_settings_are_left_alone() -> None:
    assert made(epochs=5, learning_rate=0.5).settings == replace(SETTINGS, epochs=5, learning_rate=0.5)
