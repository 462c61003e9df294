"""T-REG beyond the common suite: the slopes of tokens, its limits, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.credit import METHODS
from apportion.errors import InputError, MissingColumn
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts

LOGS = st.lists(st.floats(-5, -0.01), min_size=5, max_size=5)
MARKS = st.lists(st.floats(-0.5, 0.5), min_size=5, max_size=5)


def one_pair(reference: list[float], marks: list[float]) -> Rollouts:
    """A chosen answer of two tokens and a rejected one of three."""
    rollouts = Rollouts.from_lists(
        [[1, 2], [3, 4, 5]], groups=[0, 0], log_probs_reference=[reference[:2], reference[2:]]
    ).with_pairs(torch.tensor([0]), torch.tensor([1]))
    return rollouts.with_column("mark/contrastive", torch.tensor(marks, dtype=torch.float64))


def evaluated(rollouts: Rollouts, log_probs: list[float], name: str = "t_reg", **settings: Any) -> tuple[Any, Any]:
    leaf = torch.tensor(log_probs, dtype=torch.float64, requires_grad=True)
    loss = OBJECTIVES[name](**settings)({"log_probs": leaf}, rollouts, METHODS["none"]()(rollouts))
    loss.value.backward()
    return loss, leaf.grad


@given(new=LOGS, old=LOGS, marks=MARKS, alpha=st.sampled_from([0.1, 0.5, 3.0]))
def test_it_is_dpo_with_a_weight_for_every_token(
    new: list[float], old: list[float], marks: list[float], alpha: float
) -> None:
    rollouts = one_pair(old, marks)
    _, slopes = evaluated(rollouts, new, beta=0.5, alpha=alpha)
    _, plain = evaluated(rollouts, new, "dpo", beta=0.5)
    factors = [1 + alpha * m for m in marks[:2]] + [1 - alpha * m for m in marks[2:]]
    assert slopes.tolist() == pytest.approx([s * f for s, f in zip(plain.tolist(), factors, strict=True)], abs=1e-12)


@given(new=LOGS, old=LOGS, marks=MARKS)
def test_without_alpha_or_without_marks_it_is_dpo(new: list[float], old: list[float], marks: list[float]) -> None:
    plain, slopes = evaluated(one_pair(old, marks), new, "dpo", beta=0.5)
    for rollouts, alpha in ((one_pair(old, marks), 0.0), (one_pair(old, [0.0] * 5), 2.0)):
        loss, gradient = evaluated(rollouts, new, beta=0.5, alpha=alpha)
        assert loss.value.item() == pytest.approx(plain.value.item(), abs=1e-14)
        assert gradient.tolist() == pytest.approx(slopes.tolist(), abs=1e-14)
        for name, metric in plain.metrics.items():
            assert loss.metrics[name].item() == pytest.approx(metric.item(), abs=1e-14), name


def test_simpo_needs_no_reference_and_divides_by_length() -> None:
    objective = OBJECTIVES["t_reg"](base="simpo", beta=2.0, margin=0.5)
    assert objective.needs == ("mark/contrastive",)
    rollouts = one_pair([-1.0] * 5, [0.0] * 5)
    loss, slopes = evaluated(rollouts, [-1.0, -2.0, -1.0, -1.0, -4.0], base="simpo", beta=2.0, margin=0.5)
    z = 2 * (-1.5) - 2 * (-2.0) - 0.5
    assert loss.value.item() == pytest.approx(math.log1p(math.exp(-z)))
    weight = 1 / (1 + math.exp(z))
    assert slopes.tolist() == pytest.approx([-weight] * 2 + [2 * weight / 3] * 3)


def test_a_confident_pair_is_regularised_no_more() -> None:
    """The regulariser's weight is the preference loss's own: it falls to 0 as the pair is learnt."""
    rollouts = one_pair([-1.0] * 5, [0.5] * 5)
    loss, slopes = evaluated(rollouts, [-0.01, -0.01, -500.0, -500.0, -500.0], beta=1.0, alpha=1.0)
    assert loss.metrics["pair_weight"].item() < 1e-300
    assert slopes.abs().max() < 1e-300


def test_pair_weights_and_ties_as_in_dpo() -> None:
    one = one_pair([-1.0] * 5, [0.2, -0.4, 0.1, 0.0, 0.3])
    both = one.with_pairs(torch.tensor([0, 1]), torch.tensor([1, 0]))
    new = [-0.5, -1.5, -2.0, -0.3, -1.0]
    turned = (one, one.with_pairs(torch.tensor([1]), torch.tensor([0])))
    alone = [evaluated(rollouts, new)[0].value.item() for rollouts in turned]
    weighted = both.with_column("pair:weight", torch.tensor([3.0, 1.0]))
    assert evaluated(weighted, new)[0].value.item() == pytest.approx((3 * alone[0] + alone[1]) / 4)
    tied = both.with_column("pair:tie", torch.tensor([True, False]))
    assert evaluated(tied, new)[0].value.item() == pytest.approx(alone[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0, expected more than 0"),
        ({"alpha": -0.1}, "alpha is -0.1, expected 0 or more"),
        ({"alpha": float("nan")}, "alpha is nan, expected 0 or more"),
        ({"base": "ipo"}, "unknown base 'ipo'"),
        ({"margin": float("inf")}, "the margin is inf, expected a finite number"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES["t_reg"](**settings)


def test_bad_marks() -> None:
    with pytest.raises(InputError, match=r"'mark/contrastive' is -0\.75 at some token, expected -0\.5 to 0\.5"):
        evaluated(one_pair([-1.0] * 5, [0.0, 0.5, -0.75, 0.6, 0.0]), [-1.0] * 5)
    bare = Rollouts.from_lists([[1], [2]], groups=[0, 0], log_probs_reference=[[-1.0], [-1.0]])
    with pytest.raises(MissingColumn, match="--annotators contrastive_marks"):
        evaluated(bare.with_pairs(torch.tensor([0]), torch.tensor([1])), [-1.0, -1.0])
