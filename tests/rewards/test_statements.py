"""Where a response states its answer."""

from __future__ import annotations

import time

import pytest

from apportion.rewards.statements import after_answer, last_box, stated_answer


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{5}", "5"),
        (r"\fbox{5}", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"{ \boxed{5}", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{5", None),
        (r"\boxed{5\}", None),
        ("5", None),
    ],
)
def test_last_box(text: str, box: str | None) -> None:
    assert last_box(text) == box


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("the answer is 5", "5"),
        ("The Answer is: 2.5. Good.", "2.5"),
        ("answer: 4\nanswer: 5\nbye", "5"),
        ("**Answer:** 5", "5"),
        ("The answers are B and D.", "B and D"),
        ("the answer is 5! I am sure", "5"),
        ("the answer is $5!$", "$5!$"),
        ("the answer is $$\n5\n$$ as shown", "5"),
        ("an answer", None),
        ("the answer is", ""),
    ],
)
def test_after_answer(text: str, answer: str | None) -> None:
    assert after_answer(text) == answer


def test_a_box_comes_before_words() -> None:
    assert stated_answer(r"\boxed{5} The answer is 6.") == "5"


@pytest.mark.parametrize("piece", [r"\boxed{", "{", "}", r"\boxed{}", "answer is ", "answer:", "answer ", " ", "\\"])
def test_long_responses_take_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    stated_answer(text)
    assert time.process_time() - start < 3.0
