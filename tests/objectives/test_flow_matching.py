"""AC-Flow's pieces: from rewards to weights, the flow's loss, the sampler and the bound."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion.errors import InputError
from apportion.objectives import flow_matching as flow
from reference import flow as naive

SETTINGS: dict[str, Any] = {
    "tau": 0.7,
    "adv_clip": 0.9,
    "w2_coef": 0.3,
    "weighting": "exp",
    "normalize_weights": True,
    "warmup_iterations": 3,
    "iteration": 3,
    "delta": 1e-8,
}


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tables(seed: int, n: int, width: int) -> dict[str, Tensor]:
    """A batch of samples in up to three groups."""
    generator = torch.Generator().manual_seed(seed)
    names = ("noise", "samples", "velocity", "ref_velocity")
    found = {name: torch.randn((n, width), generator=generator, dtype=torch.float64) for name in names}
    found["times"] = torch.rand(n, generator=generator, dtype=torch.float64)
    found["values"] = torch.randn(n, generator=generator, dtype=torch.float64)
    found["rewards"] = torch.randint(0, 3, (n,), generator=generator).double()
    found["group_ids"] = torch.randint(0, 3, (n,), generator=generator)
    return found


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 9),
    width=st.integers(1, 3),
    weighting=st.sampled_from(sorted(flow.WEIGHTINGS)),
    normalise=st.booleans(),
    iteration=st.integers(2, 4),
)
def test_everything_is_that_of_the_naive_loop(
    seed: int, n: int, width: int, weighting: str, normalise: bool, iteration: int
) -> None:
    at = tables(seed, n, width)
    settings = {**SETTINGS, "weighting": weighting, "normalize_weights": normalise, "iteration": iteration}
    expected = naive.ac_flow(**{name: table.tolist() for name, table in at.items()}, **settings)
    shaped = flow.shaped_returns(at["rewards"], at["group_ids"])
    x, u = flow.interpolate(at["noise"], at["samples"], at["times"])
    advantages = flow.clipped_advantages(shaped, at["values"], 0.9)
    weights = flow.weights_of(advantages, weighting, 0.7, normalise)
    loss = flow.actor_loss(at["velocity"], u, at["ref_velocity"], weights, 0.3, flow.actor_active(iteration, 3))
    found = {
        "shaped_rewards": shaped,
        "interpolants": x,
        "advantages": advantages,
        "weights": weights,
        "critic_loss": flow.critic_loss(at["values"], shaped),
        "flow_loss": loss.flow,
        "w2_surrogate": loss.w2,
        "actor_loss": loss.value,
    }
    for name, values in found.items():
        wanted = torch.tensor(expected[name], dtype=torch.float64)
        torch.testing.assert_close(values, wanted, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("reward", [0.1, 0.7, 1e9 + 0.1])
def test_rewards_that_agree_are_shaped_to_exactly_nothing(reward: float) -> None:
    group = torch.tensor([0, 0, 0, 1])
    shaped = flow.shaped_returns(doubles(reward, reward, reward, 5.0), group, delta=1e-300)
    assert shaped.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_without_values_and_clip_it_is_reward_weighting() -> None:
    shaped = doubles(-1.0, 0.5, 3.0)
    advantages = flow.clipped_advantages(shaped, torch.zeros(3, dtype=torch.float64), math.inf)
    weights = flow.weights_of(advantages, "exp", tau=2.0, normalise=False)
    assert weights.tolist() == pytest.approx([math.exp(2 * r) for r in shaped.tolist()])


def test_a_critic_that_foresees_everything_leaves_plain_flow_matching() -> None:
    shaped = doubles(-1.0, 0.5, 3.0)
    for weighting in ("exp", "sigmoid"):
        weights = flow.weights_of(flow.clipped_advantages(shaped, shaped.clone()), weighting)
        assert weights.tolist() == [1.0, 1.0, 1.0]


def test_weights_of_huge_advantages_are_finite() -> None:
    weights = flow.weights_of(doubles(1e6, -1e6, 0.0), "exp", normalise=False)
    assert weights.tolist() == [math.exp(20.0), 0.0, 1.0]


def test_where_no_sample_is_wanted_only_the_wasserstein_term_is_left() -> None:
    weights = flow.weights_of(doubles(-1.0, 0.0), "relu")
    assert weights.tolist() == [0.0, 0.0]
    velocity = doubles(1.0, 2.0).reshape(2, 1).requires_grad_()
    reference = doubles(0.0, 0.0).reshape(2, 1)
    loss = flow.actor_loss(velocity, doubles(9.0, 9.0).reshape(2, 1), reference, weights, 0.5)
    assert loss.value.item() == 0.5 * 2.5
    loss.value.backward()
    assert velocity.grad is not None
    assert velocity.grad.flatten().tolist() == [0.5, 1.0]


def test_only_the_flow_learns_from_the_actor_loss() -> None:
    velocity, reference = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    values = torch.randn(3, requires_grad=True)
    advantages = flow.clipped_advantages(torch.randn(3), values)
    assert not advantages.requires_grad
    weights = flow.weights_of(advantages)
    flow.actor_loss(velocity, torch.randn(3, 2), reference, weights).value.backward()
    assert velocity.grad is not None
    assert reference.grad is None
    assert values.grad is None


def test_while_the_critic_warms_up_the_flow_is_frozen() -> None:
    velocity = torch.randn(3, 2, requires_grad=True)
    loss = flow.actor_loss(velocity, torch.randn(3, 2), torch.randn(3, 2), torch.ones(3), active=False)
    assert loss.value.item() == 0
    assert not loss.value.requires_grad
    assert loss.flow.gt(0).all()
    assert [flow.actor_active(i, 2) for i in range(4)] == [False, False, True, True]
    assert flow.actor_active(0, 0)


def test_the_wasserstein_term_pulls_towards_the_reference() -> None:
    velocity = doubles(1.0).reshape(1, 1).requires_grad_()
    target, reference = doubles(1.0).reshape(1, 1), doubles(-2.0).reshape(1, 1)
    flow.actor_loss(velocity, target, reference, doubles(1.0), w2_coef=0.1).value.backward()
    assert velocity.grad is not None
    assert velocity.grad.item() == pytest.approx(0.1 * 2 * 3.0)


@given(
    theta=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    reference=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    start=st.floats(-3, 3),
    steps=st.integers(1, 12),
)
def test_the_gap_of_velocities_bounds_how_far_samples_moved(
    theta: tuple[float, float], reference: tuple[float, float], start: float, steps: int
) -> None:
    (a, b), (a0, b0) = theta, reference
    x, y, gaps = start, start, []
    for _ in range(steps):
        gaps.append((a * x + b - a0 * x - b0) ** 2)
        x, y = x + (a * x + b) / steps, y + (a0 * y + b0) / steps
    gap = flow.velocity_gap(
        lambda x, t: a * x + b, lambda x, t: a0 * x + b0, doubles(start).reshape(1, 1), steps, lipschitz=abs(a0)
    )
    assert gap.velocity == pytest.approx(sum(gaps) / steps, rel=1e-9, abs=1e-12)
    assert gap.terminal == pytest.approx((x - y) ** 2, rel=1e-6, abs=1e-12)
    assert gap.bound == pytest.approx(math.exp(2 * abs(a0)) * gap.velocity)
    assert gap.terminal <= gap.bound * (1 + 1e-9) + 1e-12


def test_velocities_are_asked_for_the_time_they_are_used_at() -> None:
    asked: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        asked.append(t)
        return torch.full_like(x, t)

    times, path = flow.euler(velocity, torch.zeros(1, 1), 4)
    assert asked == [0.0, 0.25, 0.5, 0.75]
    assert times == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [float(x) for x in path] == [0.0, 0.0, 0.0625, 0.1875, 0.375]


TWO, PLANE = torch.zeros(2), torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flow.interpolate(PLANE, PLANE, torch.tensor([0.5, 1.1])), r"a time is outside \[0, 1\]"),
        (lambda: flow.interpolate(PLANE, PLANE, torch.tensor([0.5, math.nan])), r"a time is outside \[0, 1\]"),
        (
            lambda: flow.interpolate(PLANE, torch.zeros(2, 3), TWO),
            r"samples has shape \(2, 3\), expected that of noise",
        ),
        (lambda: flow.interpolate(PLANE, PLANE, torch.zeros(3)), r"times has shape \(3,\), expected \(2,\): one time"),
        (lambda: flow.shaped_returns(torch.zeros(3), torch.tensor([0])), "group has shape"),
        (lambda: flow.shaped_returns(torch.tensor([math.inf]), torch.tensor([0])), "a reward is not finite"),
        (lambda: flow.shaped_returns(TWO, torch.tensor([0, 0]), delta=-1.0), "eps is -1.0, expected 0 or more"),
        (lambda: flow.critic_loss(TWO, torch.zeros(3)), r"targets has shape \(3,\), expected that of values"),
        (lambda: flow.clipped_advantages(TWO, TWO, 0.0), "adv_clip is 0.0, expected more than 0"),
        (lambda: flow.clipped_advantages(TWO, TWO, math.nan), "adv_clip is nan"),
        (lambda: flow.clipped_advantages(TWO, torch.zeros(3)), "targets has shape"),
        (lambda: flow.weights_of(TWO, "softmax"), "unknown weighting 'softmax'"),
        (lambda: flow.weights_of(TWO, tau=0.0), "tau is 0.0, expected more than 0"),
        (lambda: flow.actor_loss(PLANE, PLANE, PLANE, TWO, w2_coef=-0.1), "w2_coef is -0.1, expected 0 or more"),
        (lambda: flow.actor_loss(PLANE, PLANE[:1], PLANE, TWO), "target has shape"),
        (lambda: flow.actor_loss(PLANE, PLANE, PLANE, torch.zeros(1)), r"weights has shape \(1,\), expected \(2,\)"),
        (lambda: flow.actor_active(0, -1), "warmup_iterations is -1, expected 0 or more"),
        (lambda: flow.euler(lambda x, t: x, PLANE, 0), "got 0 steps, expected at least 1"),
        (lambda: flow.velocity_gap(lambda x, t: x, lambda x, t: x, PLANE, 1, -1.0), "lipschitz is -1.0"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
