"""What a study finds, from run folders written by hand, whose numbers can be told beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from apportion.cli.study import print_found
from apportion.studies.arms import Arm
from apportion.studies.curves import STOPPED
from apportion.studies.picture import draw
from apportion.studies.plan import Folder, Study
from apportion.studies.report import _ratio, best, report, tuned
from apportion.training.config import TrainConfig
from apportion.training.run_folder import RunFolder

BASE = TrainConfig(steps=2, learning_rate=0.1, eval_prompts=4)
GRPO, TREE = Arm("grpo"), Arm("tree", {"credit": "tree"})

Answers = Sequence[Sequence[float | None]]


def write(path: Path, config: TrainConfig, answers: Answers, tokens: float, stopped: bool = False) -> None:
    """A run evaluated before its first step and after each, with the scores of every question."""
    run = RunFolder.create(path, config)
    for step, row in enumerate(answers):
        if step:
            run.append("metrics.jsonl", {"step": step, "tokens_sampled": tokens, "responses_drawn": tokens / 5})
        scores = [[score] for score in row]
        run.append("evaluations.jsonl", {"step": step, "scores": {"sampled": scores, "greedy": scores}})
    run.write(STOPPED if stopped else "summary.json", {"seconds": 1.0})


NOTHING, HALF, ALL = [0.0] * 4, [1.0, 1.0, 0.0, 0.0], [1.0] * 4


def finished(path: Path, runs: dict[str, list[Answers]], tokens: dict[str, float], **more: object) -> Folder:
    study = Study(BASE, (GRPO, TREE), seeds=len(runs["grpo"]), **more)  # type: ignore[arg-type]
    folder = Folder(path, study)
    for arm in study.arms:
        for job, answers in zip(folder.runs(arm, 0.1), runs[arm.name], strict=True):
            write(job.folder, job.config, answers, tokens[arm.name])
    return folder


RATES = {"grpo": 0.1, "tree": 0.1}


def test_accuracy_and_its_differences(tmp_path: Path) -> None:
    runs = {"grpo": [[NOTHING, HALF, HALF], [NOTHING, NOTHING, HALF]], "tree": [[NOTHING, ALL, ALL]] * 2}
    found = report(finished(tmp_path, runs, {"grpo": 100.0, "tree": 100.0}), RATES, {})
    grpo, tree = found["compared"]
    assert found["budget"] == 200
    assert grpo["sampled"]["on_the_way"]["runs"] == [0.375, 0.125]
    assert tree["sampled"]["on_the_way"]["runs"] == [0.75, 0.75]
    assert grpo["sampled"]["at_the_end"]["value"] == 0.5
    (line,) = found["differences"]
    assert (line["arm"], line["against"]) == ("tree", "grpo")
    assert line["sampled"]["on_the_way"]["runs"] == [0.375, 0.625]
    assert line["sampled"]["at_the_end"]["value"] == 0.5
    # Goals: a half and four fifths of the way from 0 to 1.
    assert found["goals"] == [0.5, 0.8]
    assert [reached["runs"] for reached in grpo["tokens_to"]] == [[100, 200], [None, None]]
    assert [reached["median"] for reached in grpo["tokens_to"]] == [150, None]
    assert [reached["runs"] for reached in grpo["responses_to"]] == [[20, 40], [None, None]]
    assert [reached["median"] for reached in grpo["responses_to"]] == [30, None]
    assert [reached["runs"] for reached in tree["tokens_to"]] == [[50, 50], [80, 80]]
    assert line["tokens_to"][0] == {"pairs": 2, "fewer": 2, "more": 0, "median_ratio": 0.375}
    assert line["tokens_to"][1] == {"pairs": 2, "fewer": 2, "more": 0, "median_ratio": 0.0}


def test_arms_are_compared_where_the_shortest_ends(tmp_path: Path) -> None:
    runs = {"grpo": [[NOTHING, HALF, ALL]], "tree": [[NOTHING, HALF, ALL]]}
    found = report(finished(tmp_path, runs, {"grpo": 100.0, "tree": 50.0}), RATES, {})
    assert found["budget"] == 100
    grpo, tree = found["compared"]
    assert grpo["sampled"]["at_the_end"]["value"] == 0.5
    assert tree["sampled"]["at_the_end"]["value"] == 1.0
    assert (grpo["tokens_a_step"], tree["tokens_a_step"]) == (100.0, 50.0)


def test_a_question_without_a_verdict_is_left_out_for_all(tmp_path: Path) -> None:
    unknown = [None, 1.0, 0.0, 0.0]
    runs = {"grpo": [[NOTHING, HALF, HALF]], "tree": [[NOTHING, unknown, ALL]]}
    found = report(finished(tmp_path, runs, {"grpo": 1.0, "tree": 1.0}), RATES, {})
    assert (found["questions"], found["questions_without_verdict"]) == (3, 1)
    assert found["compared"][0]["sampled"]["at_the_end"]["value"] == pytest.approx(1 / 3, abs=1e-6)


def tuning(path: Path, ends: dict[str, dict[float, list[Answers]]], stopped: Sequence[float] = ()) -> Folder:
    study = Study(BASE, (GRPO, TREE), tune=(0.5, 1.0, 2.0), tuning_seeds=2)
    folder = Folder(path, study)
    for arm in study.arms:
        for factor, jobs in folder.tuning(arm).items():
            for job, answers in zip(jobs, ends[arm.name][factor], strict=True):
                write(job.folder, job.config, answers, 10.0, factor in stopped)
    return folder


def test_the_best_rate_is_that_of_the_highest_accuracy_on_the_way(tmp_path: Path) -> None:
    slow, fast, none = [NOTHING, NOTHING, HALF], [NOTHING, HALF, HALF], [NOTHING] * 3
    ends = {
        "grpo": {0.5: [slow, slow], 1.0: [fast, slow], 2.0: [none, fast]},
        "tree": {0.5: [fast, fast], 1.0: [fast, fast], 2.0: [none, none]},
    }
    found = tuned(tuning(tmp_path, ends))
    assert [rate.accuracies for rate in found["grpo"]] == [(0.125, 0.125), (0.375, 0.125), (0.0, 0.375)]
    assert best(found["grpo"]).rate == pytest.approx(0.1)
    assert best(found["tree"]).rate == pytest.approx(0.05)  # of equals, the smallest


def test_a_run_that_stopped_counts_with_what_it_had(tmp_path: Path) -> None:
    fast = [NOTHING, HALF, HALF]
    ends = {name: {0.5: [fast] * 2, 1.0: [fast] * 2, 2.0: [[NOTHING]] * 2} for name in ("grpo", "tree")}
    found = tuned(tuning(tmp_path, ends, stopped=(2.0,)))
    assert [rate.stopped for rate in found["grpo"]] == [0, 0, 2]
    assert [rate.accuracy for rate in found["grpo"]] == [0.375, 0.375, 0.0]
    assert best(found["grpo"]).factor == 0.5


def test_pairs_of_which_neither_got_there_say_nothing() -> None:
    assert _ratio([None, 50.0], [None, 100.0]) == {"pairs": 1, "fewer": 1, "more": 0, "median_ratio": 0.5}
    assert _ratio([None, None, 30.0], [10.0, 20.0, 10.0])["median_ratio"] is None
    assert _ratio([None], [None]) == {"pairs": 0, "fewer": 0, "more": 0, "median_ratio": None}
    assert _ratio([0.0], [0.0])["median_ratio"] == 1.0


def test_the_summary_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {"grpo": [[NOTHING, HALF, HALF]] * 3, "tree": [[NOTHING, ALL, ALL]] * 3}
    found = report(finished(tmp_path, runs, {"grpo": 100.0, "tree": 100.0}), RATES, {})
    json.dumps(found, allow_nan=False)
    print_found(found)
    said = capsys.readouterr().out
    assert re.search(r"^grpo +0\.1 +100 +0\.375 \[", said, re.MULTILINE)
    assert re.search(r"^tree +\+0\.375 \[\+0\.\d+, \+0\.\d+\] +\+0\.500 .* x0\.50", said, re.MULTILINE)
    assert "3 runs an arm, 200 sampled tokens each, 4 held-out questions" in said
    for name in ("one.svg", "two.svg"):
        draw(found, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    other = {**found, "compared": found["compared"][:1]}
    draw({**other, "differences": []}, tmp_path / "three.svg")
    assert (tmp_path / "three.svg").read_bytes() != (tmp_path / "one.svg").read_bytes()
