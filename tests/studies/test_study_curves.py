"""Accuracy along tokens: what is read from a run, what lies between evaluations, and when an accuracy is reached."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from apportion.errors import InputError
from apportion.studies.curves import STOPPED, Curve, read_curve, tokens_drawn
from runs import DIGITS, begin, metrics

ALL = np.array([True, True])
RIGHT = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
TOKENS, RESPONSES = np.array([0.0, 100.0, 300.0]), np.array([0.0, 8.0, 20.0])
CURVE = Curve(20, False, TOKENS, RESPONSES, {"sampled": RIGHT, "greedy": 1 - RIGHT})


def test_between_evaluations_accuracy_is_a_straight_line() -> None:
    found = CURVE.at("sampled", np.array([0.0, 50.0, 100.0, 250.0, 300.0, 900.0]))
    assert found.tolist() == [[0, 0], [0.5, 0], [1, 0], [1, 0.75], [1, 1], [1, 1]]
    assert CURVE.at("greedy", np.array([50.0])).tolist() == [[0.5, 1]]


def test_accuracy_on_the_way_is_the_area_under_the_line() -> None:
    # The first question rises to 1 over 100 tokens, the second over the last 200.
    assert CURVE.on_the_way("sampled", 300.0).tolist() == pytest.approx([250 / 300, 100 / 300])
    assert CURVE.on_the_way("sampled", 200.0).tolist() == pytest.approx([150 / 200, 25 / 200])
    assert CURVE.on_the_way("sampled", 400.0).tolist() == pytest.approx([350 / 400, 200 / 400])


@pytest.mark.parametrize(
    ("accuracy", "tokens", "expected"),
    [(0.25, 300, 50), (0.5, 300, 100), (0.75, 300, 200), (1.0, 300, 300), (0.75, 199, None), (0.75, 201, 200)],
)
def test_tokens_to_an_accuracy(accuracy: float, tokens: float, expected: float | None) -> None:
    assert CURVE.tokens_to("sampled", accuracy, tokens, ALL) == (expected and pytest.approx(expected))


def test_an_accuracy_there_from_the_beginning_needs_no_tokens() -> None:
    assert CURVE.tokens_to("greedy", 0.9, 300, ALL) == 0


def test_only_questions_that_count_are_asked() -> None:
    assert CURVE.tokens_to("sampled", 1.0, 300, np.array([True, False])) == pytest.approx(100)


def test_a_run_that_had_to_stop_holds_its_last_accuracy() -> None:
    stopped = dataclasses.replace(CURVE, stopped=True)
    assert tokens_drawn(stopped) == float("inf")
    assert tokens_drawn(CURVE) == 300
    once = Curve(0, True, TOKENS[:1], RESPONSES[:1], {"sampled": RIGHT[:1], "greedy": RIGHT[1:2]})
    assert once.at("greedy", np.array([0.0, 70.0])).tolist() == [[1, 0], [1, 0]]
    assert once.on_the_way("greedy", 100.0).tolist() == [1, 0]


def test_responses_come_with_their_tokens() -> None:
    assert [CURVE.responses_of(tokens) for tokens in (0.0, 50.0, 100.0, 200.0, 300.0)] == [0, 4, 8, 14, 20]


def test_a_run_is_read_as_it_was(tmp_path: Path) -> None:
    begin(tmp_path / "run", dataclasses.replace(DIGITS, eval_prompts=10, eval_every=2, eval_samples=3))
    curve = read_curve(tmp_path / "run")
    drawn = np.cumsum([0.0] + [line["tokens_sampled"] for line in metrics(tmp_path / "run")])
    assert curve.tokens_E.tolist() == [drawn[0], drawn[2], drawn[4]]
    assert 0 < drawn[4] <= 4 * 8 * 4
    lines = [json.loads(line) for line in (tmp_path / "run/evaluations.jsonl").read_text().splitlines()]
    for kind, name in (("sampled", "pass@1"), ("greedy", None)):
        assert curve.right_EQ[kind].shape == (3, 10)
        for row, line in zip(curve.right_EQ[kind], lines, strict=True):
            given = line[kind] if name is None else line[kind][name]
            assert row.mean() == pytest.approx(given["value"])
    assert set(np.unique(curve.right_EQ["sampled"]).round(3)) <= {0.0, 0.333, 0.667, 1.0}
    assert (curve.steps, curve.stopped) == (4, False)


def test_questions_without_a_verdict_are_not_wrong(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, dataclasses.replace(DIGITS, eval_prompts=4, steps=1))
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    for line in lines:
        line["scores"]["sampled"] = [[1.0], [None], [0.5], [0.0]]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_curve(run).right_EQ["sampled"][0]
    assert found[[0, 2, 3]].tolist() == [1, 0, 0]
    assert np.isnan(found[1])


def test_a_run_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, dataclasses.replace(DIGITS, eval_prompts=4, steps=1))
    (run / "summary.json").unlink()
    with pytest.raises(InputError, match="has not ended"):
        read_curve(run)
    (run / STOPPED).write_text("{}")
    assert read_curve(run).stopped


def test_a_run_from_before_responses_were_counted_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "run", dataclasses.replace(DIGITS, eval_prompts=4, steps=1))
    file = tmp_path / "run/metrics.jsonl"
    (line,) = metrics(tmp_path / "run")
    del line["responses_drawn"]
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match="was made before responses were counted: begin it anew"):
        read_curve(tmp_path / "run")
