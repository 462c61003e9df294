"""Rewards of running programs, by what happened."""

from __future__ import annotations

from typing import Any

import pytest

from apportion.errors import InputError
from apportion.rewards import build_verifier
from apportion.rewards.execution import OUTCOMES, execution, outcome_of_sum, reward_of_outcome
from apportion.tasks.task import Task

TASK = Task("0453496=6", "7", "running_sum")


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        ("6058217.", "passed"),
        ("1111117.", "passed"),  # only the outcome is checked
        ("6058218.", "failed_test"),
        ("605821.", "runtime_error"),
        ("60582177.", "runtime_error"),
        ("7.", "runtime_error"),
        ("6058217", "compile_error"),
        ("6058217..", "compile_error"),
        ("", "compile_error"),
        (".", "compile_error"),
        ("605821\u0667.", "compile_error"),  # a digit of another script
        ("6058217.\n", "compile_error"),
        ("import os", "compile_error"),
    ],
)
def test_an_answer_of_the_quickstart_as_a_program(response: str, outcome: str) -> None:
    assert outcome_of_sum(TASK.text, response, TASK.answer) == outcome
    (verdict,) = build_verifier("execution")([TASK], [response])
    assert verdict.score == OUTCOMES[outcome]
    assert verdict.reason == outcome


def test_without_an_answer_nothing_can_be_run() -> None:
    (verdict,) = execution()([Task("0453496=6", None, "running_sum")], ["6058217."])
    assert verdict.score is None


def raising(prompt: str, response: str, answer: str | None) -> str:
    raise RecursionError(response)


def confused(prompt: str, response: str, answer: str | None) -> Any:
    return {"a": "timeout", "b": ["passed"], "c": 1.0}.get(response)


def test_what_a_runner_does_not_say_is_unknown() -> None:
    for name, responses in (("raising", ["x"]), ("confused", ["a", "b", "c", "d"])):
        verdicts = execution(run=f"{__name__}:{name}")([TASK] * len(responses), responses)
        assert [verdict.score for verdict in verdicts] == [None] * len(responses)
    assert "unknown outcome 'timeout'" in execution(run=f"{__name__}:confused")([TASK], ["a"])[0].reason


def test_bad_names() -> None:
    with pytest.raises(InputError, match="unknown outcome 'pased': did you mean 'passed'"):
        reward_of_outcome("pased")
    with pytest.raises(InputError, match="OUTCOMES' is a dict, expected a function"):
        execution(run="apportion.rewards.execution:OUTCOMES")
    with pytest.raises(InputError, match="no_such"):
        execution(run="no_such_module:name")
