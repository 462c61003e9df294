"""The gated reward of programs that draw solids, and overlaps of boxes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from hypothesis import given

from apportion.errors import InputError
from apportion.rewards.cad import gated_reward, overlap_of_boxes, overlap_of_volumes
from credit.worlds import DICE

UNIT = [0.0, 0, 0, 1, 1, 1]


def sorted_box(dice: random.Random) -> list[int]:
    """A box with corners on a grid."""
    sides = [sorted(dice.sample(range(5), 2)) if dice.random() < 0.9 else [2, 2] for _ in range(3)]
    return [low for low, _ in sides] + [high for _, high in sides]


def overlap(generated: list[float], reference: list[float]) -> float:
    return overlap_of_boxes(torch.tensor([generated]), torch.tensor([reference])).item()


@given(dice=DICE)
def test_overlap_counts_unit_cells(dice: random.Random) -> None:
    pairs = [[sorted_box(dice), sorted_box(dice)] for _ in range(20)]

    def cells(of: list[int]) -> set[tuple[int, ...]]:
        return set(itertools.product(*(range(of[i], of[i + 3]) for i in range(3))))

    shared = [(len(cells(a) & cells(b)), len(cells(a) | cells(b))) for a, b in pairs]
    expected = [both / either if either else 0.0 for both, either in shared]
    one, other = (torch.tensor(side) for side in zip(*pairs, strict=True))
    assert overlap_of_boxes(one, other).tolist() == pytest.approx(expected)
    assert overlap_of_boxes(other, one).tolist() == pytest.approx(expected)


def test_boxes_without_volume_overlap_with_nothing() -> None:
    flat = [0.0, 0, 0, 1, 1, 0]
    assert overlap(flat, flat) == 0.0
    assert overlap(flat, UNIT) == 0.0
    assert overlap(UNIT, [1.0, 0, 0, 2, 1, 1]) == 0.0  # they touch


def rewards(**changes: Any) -> Any:
    """Two programs that run and one that does not, whose overlap and score are of no account."""
    given = {
        "executes": [True, True, False],
        "overlap": torch.tensor([0.5, 1.0, torch.nan], dtype=torch.float64),
        "judge_scores": [8.0, 10.0, None],
        "failure_modes": [[], ["parametric"], []],
    }
    return gated_reward(**{**given, **changes})


def test_nothing_counts_unless_the_program_runs() -> None:
    result = rewards()
    assert result.geometric.tolist() == [0.5, 1.0, 0.0]
    assert result.evaluation.tolist() == [0.8, 0.5, 0.0]
    assert result.reward.tolist() == [1.3, 1.5, 0.0]
    assert result.scored.tolist() == [True] * 3


def test_weights_penalties_and_range() -> None:
    result = rewards(lambda_geom=2.0, lambda_eval=0.5, failure_penalty=0.25, score_range=(5, 9))
    assert result.evaluation.tolist() == [0.75, 0.75, 0.0]
    assert result.reward.tolist() == [1.375, 2.375, 0.0]
    both = rewards(failure_modes=[["parametric", "parametric"], ["parametric", "reference_frame"], []])
    assert both.evaluation.tolist() == pytest.approx([0.3, 0.0, 0.0])  # each kind once, and never below 0
    assert rewards(score_range=(20, 30)).evaluation.tolist() == [0.0, 0.0, 0.0]


def test_a_judge_without_a_verdict_leaves_the_reward_unknown() -> None:
    result = rewards(judge_scores=[None, 10.0, None])
    assert result.scored.tolist() == [False, True, True]  # that the third does not run needs no judge
    assert result.reward.tolist() == [0.5, 2.0 - 0.5, 0.0]
    assert rewards(judge_scores=[None] * 3, lambda_eval=0.0).scored.tolist() == [True] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda_geom": -1.0}, "lambda_geom is -1.0, expected 0 or more"),
        ({"lambda_eval": float("nan")}, "lambda_eval is nan, expected 0 or more"),
        ({"failure_penalty": -0.5}, "failure_penalty is -0.5, expected 0 or more"),
        ({"score_range": (5.0, 5.0)}, "the score range is 5.0 to 5.0, expected a lowest below a highest"),
        ({"failure_modes": [["parametrc"], [], []]}, "unknown failure mode 'parametrc': did you mean 'parametric'"),
        ({"failure_modes": [[], []]}, r"got \[2, 3\] programs, overlaps, scores and failures"),
        ({"overlap": torch.tensor([1.5, 0.0, 0.0])}, r"outside of 0..1, expected intersection over union"),
        ({"overlap": torch.tensor([torch.nan, 0.0, 0.0])}, r"outside of 0..1"),
        ({"judge_scores": [float("inf"), 1.0, None]}, "a judge's score is not finite"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rewards(**changes)


def test_bad_volumes_and_boxes() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert overlap_of_volumes(one + 1e-10, one).item() == 1.0
    large = 1.23e6 * one  # equal solids, of which a kernel's boolean is not exact
    assert overlap_of_volumes(large * (1 + 1e-9), large).item() == 1.0
    with pytest.raises(InputError, match="an intersection is larger than the union"):
        overlap_of_volumes(one + 1e-4, one)
    with pytest.raises(InputError, match="a volume is negative or not a number"):
        overlap_of_volumes(-one, one)
    with pytest.raises(InputError, match="a generated box has a coordinate whose lowest value is above"):
        overlap([1.0, 0, 0, 0, 1, 1], UNIT)
    with pytest.raises(InputError, match=r"reference boxes have shape \(1, 5\), expected \[B, 6\]"):
        overlap(UNIT, UNIT[:5])
