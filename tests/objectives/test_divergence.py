"""The divergences of DPH-RL, and its hybrid loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion.credit import METHODS
from apportion.errors import InputError
from apportion.objectives import OBJECTIVES
from apportion.objectives.divergence import GENERATORS, expected_divergence, generator
from apportion.rollouts import Rollouts, join


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def naive(kind: str, d: float, alpha: float) -> float:
    """The card's formulas, without a thought for accuracy."""
    u = math.exp(d)
    m = math.log((u + 1) / 2)
    return {
        "forward_kl": min(u - d - 1, 10.0),
        "js": u * d - (u + 1) * m,
        "alpha": (u ** (1 - alpha) - (1 - alpha) * u - alpha) / (alpha * (alpha - 1)),
        "js_definition": min(math.exp(m) - m - 1, 10.0),
    }[kind]


def terms(kind: str, d: Tensor, alpha: float = 0.2) -> Tensor:
    return generator(kind, alpha)(d, torch.zeros_like(d))


@pytest.mark.parametrize("kind", GENERATORS)
@given(d=st.floats(-60, 4), alpha=st.sampled_from([0.1, 0.5, 0.9]))
def test_terms_are_those_of_the_card(kind: str, d: float, alpha: float) -> None:
    assert terms(kind, doubles(d), alpha).item() == pytest.approx(naive(kind, d, alpha), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", GENERATORS)
@given(d=st.floats(-1000, 1000), alpha=st.floats(0.01, 0.99))
def test_terms_are_never_negative(kind: str, d: float, alpha: float) -> None:
    assert terms(kind, doubles(d), alpha).item() >= -1e-15


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_policies_cost_nothing(kind: str, dtype: torch.dtype) -> None:
    d = torch.zeros(1, dtype=dtype, requires_grad=True)
    value = terms(kind, d)
    value.sum().backward()
    assert value.item() == 0
    assert d.grad is not None
    assert d.grad.item() == 0


LIMITS = {"forward_kl": 10.0, "js": math.log(2), "alpha": 1 / 0.8, "js_definition": math.log(2) - 0.5}
"""Where d goes to minus infinity, with alpha 0.2."""


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_terms_and_slopes_are_finite_far_out(kind: str, dtype: torch.dtype) -> None:
    d = torch.tensor([-1000.0, -100.0, 100.0, 1000.0], dtype=dtype, requires_grad=True)
    value = terms(kind, d)
    value.sum().backward()
    assert d.grad is not None
    assert value.isfinite().all()
    assert d.grad.isfinite().all()
    assert value[0].item() == pytest.approx(LIMITS[kind], rel=1e-6)
    assert d.grad[2:].tolist() == [0.0, 0.0]  # beyond 20 the ratio stands still


@pytest.mark.parametrize("kind", GENERATORS)
def test_slopes_by_finite_differences(kind: str) -> None:
    d = doubles(-8.0, -1.3, -0.2, 0.1, 0.9, 2.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: terms(kind, x), d, atol=1e-8)


DISTRIBUTION = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(lambda z: doubles(*z).softmax(0))


def kl(one: Tensor, other: Tensor) -> float:
    return (one * (one / other).log()).sum().item()


@given(theta=DISTRIBUTION, ref=DISTRIBUTION)
def test_expectations_are_the_divergences(theta: Tensor, ref: Tensor) -> None:
    middle = (theta + ref) / 2
    close = {"abs": 1e-9, "rel": 1e-6}
    if (theta / ref).max() < 10:  # the terms of the Kullback-Leibler kinds are bounded by 10
        assert expected_divergence("forward_kl", theta, ref).item() == pytest.approx(kl(ref, theta), **close)
    assert expected_divergence("js_definition", theta, ref).item() <= kl(ref, middle) + 1e-12
    if theta.max() / ref.min() < 20:
        assert expected_divergence("js_definition", theta, ref).item() == pytest.approx(kl(ref, middle), **close)
    assert expected_divergence("js", theta, ref).item() == pytest.approx(kl(theta, middle) + kl(ref, middle), **close)
    near = {"abs": 1e-4, "rel": 1e-3}
    assert expected_divergence("alpha", theta, ref, 1 - 1e-6).item() == pytest.approx(kl(ref, theta), **near)
    assert expected_divergence("alpha", theta, ref, 1e-6).item() == pytest.approx(kl(theta, ref), **near)
    assert expected_divergence("js", theta, ref).item() == pytest.approx(
        expected_divergence("js", ref, theta).item(), **close
    )


@pytest.mark.parametrize(
    ("theta", "ref"), [([0.5, 0.5], [1.0, 0.0]), ([0.5, 0.6], [0.5, 0.5]), ([1.5, -0.5], [0.5, 0.5])]
)
def test_what_is_no_distribution(theta: list[float], ref: list[float]) -> None:
    with pytest.raises(InputError, match="expected two distributions"):
        expected_divergence("js", doubles(*theta), doubles(*ref))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "jsd"}, "unknown divergence 'jsd': did you mean 'js'"),
        ({"kind": "alpha", "alpha": 0.0}, r"alpha is 0\.0, expected between 0 and 1"),
        ({"kind": "alpha", "alpha": 1.0}, r"alpha is 1\.0"),
        ({"kind": "js", "alpha": float("nan")}, "alpha is nan"),
        ({"aggregate": "mean"}, "unknown aggregation 'mean'"),
    ],
)
@pytest.mark.parametrize("name", ["divergence", "dph_rl"])
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES[name](**settings)


def test_weights_of_the_divergence_are_not_negative() -> None:
    with pytest.raises(InputError, match=r"the coefficient is -0\.1, expected 0 or more"):
        OBJECTIVES["divergence"](coefficient=-0.1)
    with pytest.raises(InputError, match=r"the coefficient is -1, expected 0 or more"):
        OBJECTIVES["dph_rl"](eta=-1)


# The hybrid loss


def explored(rewards: list[float]) -> Rollouts:
    """Sampled responses, without a reference."""
    ids = [[1, 2], [3], [4, 5, 6]]
    return Rollouts.from_lists(ids, groups=[0] * 3, rewards=rewards, log_probs_old=[[-1.0] * len(row) for row in ids])


def rehearsed() -> Rollouts:
    """Stored responses, without a reward."""
    stored = Rollouts.from_lists([[7, 8], [9]], groups=[5, 6], log_probs_reference=[[-0.5, -2.0], [-1.0]])
    return stored.with_column("response:origin", ["stored", "stored"])


NOW = doubles(-0.5, -1.5, -0.9, -1.1, -3.0, -0.2, -0.7, -1.0, -2.5)


def test_the_hybrid_loss_is_the_sum_of_both_with_their_own_normalisers() -> None:
    sampled, stored = explored([1.0, 0.0, 0.0]), rehearsed()
    both = join([sampled, stored])
    now = NOW.clone().requires_grad_()
    loss = OBJECTIVES["dph_rl"](kind="js", eta=0.3)({"log_probs": now}, both, METHODS["grpo"]()(both))
    explore = OBJECTIVES["clip"](0.2, 0.28, 3.0)({"log_probs": now[:6]}, sampled, METHODS["grpo"]()(sampled))
    rehearse = OBJECTIVES["divergence"]("js")({"log_probs": now[6:]}, stored, METHODS["none"]()(stored))
    expected = explore.value + 0.3 * rehearse.value
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-14)
    slopes = [torch.autograd.grad(value, now)[0] for value in (loss.value, expected)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-15)
    assert loss.metrics["stored/divergence"].item() == pytest.approx(rehearse.value.item())
    assert loss.metrics["policy/kl_old"].item() == pytest.approx(explore.metrics["kl_old"].item())


def test_rehearsal_acts_where_exploring_has_nothing_to_compare() -> None:
    both = join([explored([1.0, 1.0, 1.0]), rehearsed()])
    now = NOW.clone().requires_grad_()
    OBJECTIVES["dph_rl"]()({"log_probs": now}, both, METHODS["grpo"]()(both)).value.backward()
    assert now.grad is not None
    assert not now.grad[:6].any()
    assert now.grad[6:].all()


def test_nothing_to_rehearse_is_a_clipped_surrogate() -> None:
    sampled = explored([1.0, 0.0, 0.0])
    credit = METHODS["grpo"]()(sampled)
    now = {"log_probs": NOW[:6]}
    assert (
        OBJECTIVES["dph_rl"]()(now, sampled, credit).value
        == OBJECTIVES["clip"](0.2, 0.28, 3.0)(now, sampled, credit).value
    )


def test_a_stored_response_needs_its_log_probs() -> None:
    stored = rehearsed()
    holed = stored.with_column(
        "log_probs/reference", stored.column("log_probs/reference"), torch.tensor([True, False, True])
    )
    both = join([explored([1.0, 0.0, 0.0]), holed])
    with pytest.raises(InputError, match="at 1 rows where it is missing"):
        OBJECTIVES["dph_rl"]()({"log_probs": NOW}, both, METHODS["grpo"]()(both))
