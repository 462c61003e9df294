"""Integers, exact text, the running sum and multiple choice."""

from __future__ import annotations

import time

import pytest

from apportion.errors import InputError
from apportion.rewards import Verdict, Verifier, choice, exact, integer, running_sum
from apportion.tasks.task import Task


def verdict(verifier: Verifier, answer: str | None, response: str) -> Verdict:
    (result,) = verifier([Task("?", answer, "test")], [response])
    return result


@pytest.mark.parametrize(
    ("answer", "response", "score"),
    [
        ("5", "5", 1),
        ("5", "3 + 2 = 5.", 1),
        ("-5", "it is -5", 1),
        ("-5", "it is −5", 1),
        ("5", "x-5", 1),
        ("-5", "x-5", 0),
        ("1000", "1,000", 1),
        ("1,000", "1000", 1),
        ("1000000", "1,000,000", 1),
        ("1000", "1{,}000", 1),
        ("3", "1,2,3", 1),
        ("345", "1,2,345", 1),
        ("1000", "1,0000", 0),
        ("7", "007", 1),
        ("0", "-0", 1),
        ("5", "2.5", 0),
        ("2", "2.5", 0),
        ("5", ".5", 0),
        ("5", "well...5", 1),
        ("3", "2/3", 0),
        ("1", "1e5", 0),
        ("2", "x2", 0),
        ("5", "5cm", 1),
        ("5", r"\boxed{5}", 1),
        ("5", "five", 0),
        ("5", "", 0),
        ("9" * 5000, "so " + "9" * 5000, 1),
        ("9" * 5000, "so " + "9" * 4999, 0),
    ],
)
def test_last_integer(answer: str, response: str, score: float) -> None:
    result = verdict(integer(), answer, response)
    assert result.score == score
    assert result.reason


def test_which_integer_counts() -> None:
    scores = [verdict(integer(where=where), "1", "1 then 2").score for where in ("first", "last", "only")]
    assert scores == [1.0, 0.0, 0.0]
    assert verdict(integer(where="only"), "1", "it is 1").score == 1.0
    assert "2 integers" in verdict(integer(where="only"), "1", "1 then 1").reason


@pytest.mark.parametrize("answer", ["five", "1 2", "", "2.5"])
def test_a_reference_without_one_integer_is_unknown(answer: str) -> None:
    assert verdict(integer(), answer, "5").score is None


def test_exact() -> None:
    assert verdict(exact(), "Paris", " Paris\n").score == 1.0
    assert verdict(exact(strip=False), "Paris", " Paris").score == 0.0
    assert verdict(exact(), "Paris", "paris").score == 0.0
    assert verdict(exact(casefold=True), "STRASSE", "straße").score == 1.0
    assert verdict(exact(), "caf\u00e9", "cafe\u0301").score == 1.0
    assert verdict(exact(), "a", "b").reason == "'b' is not 'a'"


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("6058217.", 1),
        ("7.", 1),
        ("6058217", 0),
        ("6058218.", 0),
        ("6058217..", 0),
        (".", 0),
        ("", 0),
        ("7. ", 0),
        ("٧.", 0),
    ],
)
def test_running_sum(response: str, score: float) -> None:
    assert verdict(running_sum(), "7", response).score == score


def test_running_sum_needs_a_digit_as_answer() -> None:
    assert verdict(running_sum(), "17", "7.").score is None


@pytest.mark.parametrize(
    ("answer", "response", "score"),
    [
        ("B", "B", 1),
        ("B", "b", 1),
        ("B", "(B)", 1),
        ("B", "B.", 1),
        ("B", "**B**", 1),
        ("B", "Answer: B", 1),
        ("B", r"\boxed{B}", 1),
        ("B", r"So \boxed{\text{(B)}}.", 1),
        ("B", "The answer is B. Paris is in France.", 1),
        ("B", "B) Paris", 1),
        ("B", "I think B", 1),
        ("C", "A cat is option C", 1),
        ("A", "The answer is A.", 1),
        ("BD", "B and D", 1),
        ("BD", "D, B", 1),
        ("B, D", "BD", 1),
        ("(B)", "B", 1),
        ("AC", "A and C", 1),
        ("C", "A and C", 0),
        ("B", "B and D", 0),
        ("BD", "B", 0),
        ("B", "(A) or (B)", 0),
        ("B", "not B", 0),
        ("B", "maybe B", 0),
        ("B", "A/B", 0),
        ("B", r"\boxed{A} \boxed{B} \boxed{C}", 0),
        ("B", "Paris", 0),
        ("BAD", "bad", 0),
        ("A", "A triangle has three sides", 0),
        ("B", "", 0),
    ],
)
def test_choice(answer: str, response: str, score: float) -> None:
    result = verdict(choice("ABCD"), answer, response)
    assert result.score == score
    assert result.reason


@pytest.mark.parametrize("answer", ["Paris", "E", "", "B and Paris"])
def test_a_reference_that_names_no_options_is_unknown(answer: str) -> None:
    assert verdict(choice("ABCD"), answer, "B").score is None


@pytest.mark.parametrize("verifier", [integer(), exact(), running_sum(), choice()])
def test_no_answer_is_unknown(verifier: Verifier) -> None:
    assert verdict(verifier, None, "5") == Verdict(None, "the task has no answer")


@pytest.mark.parametrize("verifier", [integer(), exact(), running_sum(), choice()])
def test_one_verdict_for_each_response(verifier: Verifier) -> None:
    tasks = [Task("?", "5", "test")] * 3
    assert len(verifier(tasks, ["5", "6", "7"])) == 3
    assert verifier([], []) == []
    with pytest.raises(InputError, match="3 tasks and 1 responses"):
        verifier(tasks, ["5"])


@pytest.mark.parametrize("verifier", [integer(), exact(), running_sum(), choice()])
@pytest.mark.parametrize("piece", ["1,", "1.", "A ", "( ", "A(", "-", "\ud800", "1/", "and "])
def test_long_responses_take_linear_time(verifier: Verifier, piece: str) -> None:
    start = time.process_time()
    verdict(verifier, "5", piece * (300_000 // len(piece)))
    assert time.process_time() - start < 3.0


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="where must be"):
        integer(where="middle")
    for letters in ("", "A", "AAB", "ab"):
        with pytest.raises(InputError, match="distinct capital letters"):
            choice(letters)
