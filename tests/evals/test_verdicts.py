"""Verdicts against annotations, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.evals.verdicts import verdict_quality


def test_by_hand() -> None:
    quality = verdict_quality([True, True, False, None, False, True], [True, False, True, True, False, True])
    assert (quality.true_positives, quality.false_positives) == (2, 1)
    assert (quality.false_negatives, quality.true_negatives) == (2, 1)
    assert quality.as_dict() == pytest.approx(
        {"precision": 2 / 3, "recall": 0.5, "f1": 4 / 7, "accuracy": 0.5, "invalid": 1}
    )


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.booleans()), min_size=1))
def test_null_is_a_no_that_is_counted(pairs: list[tuple[bool | None, bool]]) -> None:
    said, so = zip(*pairs, strict=True)
    quality = verdict_quality(said, so)
    plain = verdict_quality([bool(s) for s in said], so)
    assert quality.invalid == said.count(None)
    assert plain.invalid == 0
    assert {**quality.as_dict(), "invalid": 0} == plain.as_dict()
    assert quality.accuracy == pytest.approx(sum(bool(a) == b for a, b in pairs) / len(pairs))
    if quality.precision + quality.recall:
        harmonic = 2 * quality.precision * quality.recall / (quality.precision + quality.recall)
        assert quality.f1 == pytest.approx(harmonic)


def test_what_is_undefined_is_0() -> None:
    silent = verdict_quality([False, None], [False, False])
    assert (silent.precision, silent.recall, silent.f1, silent.accuracy) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("predictions", "annotations", "said"),
    [
        ([True], [True, False], "got 1 predictions for 2 annotations, expected as many"),
        ([], [], "got 0 predictions for 0 annotations, expected as many, at least one"),
        (["yes"], [True], "'yes' is no prediction, expected True or False, or None"),
        ([True], [None], "None is no annotation, expected True or False"),
        ([0.5], [True], "0.5 is no prediction"),
    ],
)
def test_what_cannot_be_compared(predictions: list[Any], annotations: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        verdict_quality(predictions, annotations)
