"""No verifier raises, whatever the response: one verdict, a score that is finite or None, a reason in one line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.rewards import Verdict, Verifier, build_verifier
from apportion.tasks.task import Task

ANSWERS = {
    "integer": "5",
    "integer(where='only')": "-1000",
    "choice": "B",
    "choice(letters='ABI')": "AI",
    "exact(casefold=True)": "Paris",
    "running_sum": "7",
    "math(time_limit=20.0)": r"\frac{1}{2}",
    "math(time_limit=20.0, where='stated')": r"x \le 3",
    "reasoning_gym": "god",
}
ENTRY = {"question": "Spell dog backward", "answer": "god", "metadata": {}}
METADATA = {"dataset": "spell_backward", "config": {}, "entry": ENTRY}
BITS = [
    r"\boxed{",
    "}",
    "answer is ",
    "Answer:",
    "1,000",
    "-5",
    "(B)",
    "A or B",
    r"\frac12",
    "$",
    "=",
    "7.",
    "<answer>",
    "½",
]
TEXT = st.text(st.characters(), max_size=80) | st.lists(
    st.sampled_from(BITS) | st.text(st.characters(categories=["Cs", "Cc", "Nd", "Sm", "Lo"]), max_size=5), max_size=12
).map("".join)


def check(verifier: Verifier, answer: str | None, response: str) -> None:
    (verdict,) = verifier([Task("?", answer, "test", METADATA)], [response])
    assert isinstance(verdict, Verdict)
    assert verdict.score is None or math.isfinite(verdict.score)
    assert verdict.reason
    assert len(verdict.reason.splitlines()) == 1
    verdict.reason.encode("utf-8")


@pytest.mark.parametrize("spec", list(ANSWERS))
@settings(max_examples=60)
@given(response=TEXT)
def test_any_response(spec: str, response: str) -> None:
    check(VERIFIERS[spec], ANSWERS[spec], response)


@pytest.mark.parametrize("spec", list(ANSWERS))
@settings(max_examples=30)
@given(answer=TEXT, response=TEXT)
def test_any_reference(spec: str, answer: str, response: str) -> None:
    check(VERIFIERS[spec], answer, response)


VERIFIERS = {spec: build_verifier(spec) for spec in ANSWERS}
