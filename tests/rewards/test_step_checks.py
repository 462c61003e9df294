"""Verifiers of single steps, through the interface of all verifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.annotations.partial_sums import step_scores as annotated
from apportion.errors import InputError
from apportion.rewards import build_verifier
from apportion.rewards.step_checks import right_probability, step_scores
from apportion.tasks.running_sum import solve
from apportion.tasks.task import Task

PROMPT = "0453496=6"


def scores(prompt: str, cuts: Sequence[tuple[str, str]]) -> list[float | None]:
    tasks = [Task(prompt + before, None, "running_sum") for before, _ in cuts]
    return [verdict.score for verdict in build_verifier("partial_sums")(tasks, [step for _, step in cuts])]


@given(st.text("0123456789.", min_size=1, max_size=9), st.data())
def test_a_step_is_right_where_all_its_characters_follow(answer: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(answer) - 1))
    end = data.draw(st.integers(start + 1, len(answer)))
    each = step_scores(PROMPT, answer)[start:end]
    expected = None if each[0] is None else float(min(s for s in each if s is not None) > 0)
    assert scores(PROMPT, [(answer[:start], answer[start:end])]) == [expected]


def test_every_step_of_the_solution_is_right_and_a_slip_is_blamed_once() -> None:
    right = solve(PROMPT)
    assert scores(PROMPT, [(right[:i], right[i : i + 2]) for i in range(0, len(right), 2)]) == [1.0] * 4
    assert scores(PROMPT, [("", "6"), ("6", "1"), ("61", "6"), ("616", "x"), ("616x", "1")]) == [
        1.0,
        0.0,
        1.0,
        0.0,
        None,
    ]
    assert annotated is step_scores


@pytest.mark.parametrize(("text", "step"), [("no sum", "1"), ("0453496=", ""), ("0453496=", "1"), ("", "")])
def test_what_is_no_running_sum_has_no_verdict(text: str, step: str) -> None:
    (verdict,) = build_verifier("partial_sums")([Task(text, None, "running_sum")], [step])
    assert verdict.score is None


def test_the_last_position_that_names_either_word_counts() -> None:
    early, late = {"Right": -0.1, "Wrong": -5.0}, {"Wrong": -0.1, "Right": -5.0, "x": -9.0}
    expected = math.exp(-5.0) / (math.exp(-5.0) + math.exp(-0.1))
    assert right_probability([early, late, {"x": -0.2}]) == pytest.approx(expected)
    assert right_probability([early]) == pytest.approx(1 - expected)
    assert right_probability([{"x": -0.2}, {}]) == 0.5
    assert right_probability([{"Wrong": -0.5, "y": -900.0}]) < 1e-300


def test_a_judge_gives_probabilities_and_no_verdict_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harsh.py").write_text(
        "import math\n"
        "def judge(pairs):\n"
        "    return [[{'Right': math.log(len(b) / 10), 'Wrong': math.log(1 - len(b) / 10)}] for a, b in pairs]\n"
        "def lazy(pairs):\n    return []\n"
        "nothing = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    tasks = [Task("2+2=", None, "sums")] * 2
    found = build_verifier("judged(judge='harsh:judge')")(tasks, ["4", "four!"])
    assert [verdict.score for verdict in found] == pytest.approx([0.1, 0.5])
    with pytest.raises(InputError, match="returned 0 judgements of 2 steps"):
        build_verifier("judged(judge='harsh:lazy')")(tasks, ["4", "5"])
    with pytest.raises(InputError, match="a int, expected a function"):
        build_verifier("judged(judge='harsh:nothing')")


def test_log_probs_that_are_none_are_refused() -> None:
    for wrong in (0.5, -math.inf):
        with pytest.raises(InputError, match="expected finite numbers up to 0"):
            right_probability([{"Right": wrong, "Wrong": -1.0}])
