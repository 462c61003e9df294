"""Verifiers from names, from users' functions and from users' modules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apportion.errors import InputError
from apportion.rewards import VERIFIERS, Verdict, as_verifier, build_verifier
from apportion.tasks.task import Task

TASK = Task("2+2=", "4", "sums")
MODULE = """
from apportion.rewards import Verdict, exact

def contains(prompt, response, answer):
    return answer in response

def batched(tasks, responses):
    return [Verdict(1.0, "always") for _ in tasks]

def builder(weight=0.5):
    return lambda tasks, responses: [Verdict(weight, "built") for _ in tasks]

def scorer_builder(word):
    def scorer(prompt, response, answer):
        return word in response
    return scorer

def broken(tasks, responses):
    raise KeyError("no")

def short(tasks, responses):
    return []

def three(a, b, c):
    return 1.0

def nothing():
    return None

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_verifiers.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("users_verifiers", None)
    return "users_verifiers"


def one(spec: str, response: str = "it is 4") -> Verdict:
    (verdict,) = build_verifier(spec)([TASK], [response])
    return verdict


def test_names() -> None:
    answers = {"choice", "exact", "execution", "integer", "math", "reasoning_gym", "running_sum"}
    assert set(VERIFIERS) == answers | {"judged", "partial_sums"}  # the latter check single steps
    assert one("integer").score == 1.0
    assert one("integer(where='first')", "4 or 5").score == 1.0
    assert one("math(time_limit=20)", r"\boxed{2+2}").score == 1.0
    assert one("exact", "5").score == 0.0


def test_users_functions_and_builders(module: str) -> None:
    assert one(f"{module}:contains") == Verdict(1.0, "contains returned True")
    assert one(f"{module}:batched").reason == "always"
    assert one(f"{module}:builder").score == 0.5
    assert one(f"{module}:builder(weight=0.25)").score == 0.25
    assert one(f"{module}:scorer_builder(word='is')").score == 1.0


def test_a_users_verifier_that_raises_is_unknown(module: str) -> None:
    assert one(f"{module}:broken") == Verdict(None, "broken raised KeyError: 'no'")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("intger", "did you mean 'integer'"),
        ("integer(wher='last')", "did you mean 'where'"),
        ("integer(where='middle')", "where must be"),
        ("no_such_module:f", "cannot import"),
        ("{}:contain", "did you mean 'contains'"),
        ("{}:contains(x=1)", "takes no settings: write it without brackets"),
        ("{}:contains()", "takes no settings: write it without brackets"),
        ("{}:scorer_builder", "needs word"),
        ("{}:three", "needs a, b, c"),
        ("{}:nothing", "expected a function of (prompt, response, answer)"),
        ("{}:number", "expected something callable"),
    ],
)
def test_specs_that_cannot_be_used(module: str, spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build_verifier(spec.format(module))
    assert message in str(caught.value)


def test_the_wrong_number_of_verdicts_is_an_error(module: str) -> None:
    with pytest.raises(InputError, match="0 results for 1 responses"):
        one(f"{module}:short")


@pytest.mark.parametrize(
    ("returned", "score"),
    [
        (True, 1.0),
        (False, 0.0),
        (0.25, 0.25),
        (3, 3.0),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        ("1.0", None),
        ([1.0], None),
        (1j, None),
    ],
)
def test_what_a_function_returns(returned: Any, score: float | None) -> None:
    (verdict,) = as_verifier(lambda prompt, response, answer: returned)([TASK], ["4"])
    assert verdict.score == score
    assert verdict.reason


def test_an_exception_is_unknown_for_that_response_only() -> None:
    def inverse(prompt: str, response: str, answer: str | None) -> float:
        return 1 / int(response)

    verdicts = as_verifier(inverse)([TASK] * 3, ["2", "0", "x"])
    assert [verdict.score for verdict in verdicts] == [0.5, None, None]
    assert verdicts[1].reason == "inverse raised ZeroDivisionError: division by zero"


def test_what_a_function_gets() -> None:
    seen: list[tuple[str, str, str | None]] = []

    def record(prompt: str, response: str, answer: str | None) -> float:
        seen.append((prompt, response, answer))
        return 0.0

    chat = Task(({"role": "user", "content": "Hi"}, {"role": "user", "content": "you"}), None, "chat")
    as_verifier(record)([chat], ["hello"])
    assert seen == [("Hi\nyou", "hello", None)]


def test_callable_objects_and_other_things() -> None:
    class Scorer:
        def __call__(self, prompt: str, response: str, answer: str | None) -> float:
            return 1.0

    assert as_verifier(Scorer())([TASK], ["4"])[0].score == 1.0
    for wrong in (3, SimpleNamespace(), len, lambda a, b, c: 1.0):
        with pytest.raises(InputError, match=r"expected a function of \(prompt, response, answer\)"):
            as_verifier(wrong)  # type: ignore[arg-type]


def test_interrupts_are_not_swallowed() -> None:
    def stop(tasks: Sequence[Task], responses: Sequence[str]) -> list[Verdict]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        as_verifier(stop)([TASK], ["4"])
