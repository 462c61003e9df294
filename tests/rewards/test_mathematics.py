"""Which mathematical answers are the same, in this process; the child is tested in test_child.py."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mathematical_cases import RIGHT, WRONG, pairs

from apportion.rewards import choice, math
from apportion.rewards.mathematics.decision import decide
from apportion.rewards.mathematics.equality import same
from apportion.rewards.mathematics.notation import Unreadable, tokens
from apportion.rewards.mathematics.reading import read
from apportion.tasks.task import Task

VECTORS = Path(__file__).parents[1] / "golden" / "vectors" / "verifier_math.json"


@pytest.mark.parametrize(("answer", "gold"), list(pairs(RIGHT)))
def test_same_answer(answer: str, gold: str) -> None:
    score, reason = decide(gold, answer, "any")
    assert score == 1.0, reason


@pytest.mark.parametrize(("answer", "gold"), list(pairs(WRONG)))
def test_other_answer(answer: str, gold: str) -> None:
    score, reason = decide(gold, answer, "any")
    assert score == 0.0
    assert reason
    assert "\n" not in reason


@pytest.mark.parametrize("where", ["any", "stated"])
def test_golden_cases(where: str) -> None:
    """All 67, through the verifiers a run uses; bare answers need ``any``."""
    mathematics, bare, letters = math(where=where), math(), choice("ABCD")
    disagreements = []
    for case in json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]:
        verifier = {"answer": bare, "response": mathematics, "choice": letters}[case["params"]["kind"]]
        task = Task("", case["inputs"]["gold"], "golden")
        verdict = verifier([task], [case["inputs"]["prediction"]])[0]
        if (verdict.score == 1.0) != case["expected"]["verdict"]:
            disagreements.append((case["name"], verdict))
    assert not disagreements


@pytest.mark.parametrize(
    ("response", "score"),
    [
        (r"First \boxed{4}, no: \boxed{5}.", 1.0),
        (r"\boxed{5} or rather \boxed{6}", 0.0),
        ("So the answer is 5. Sure, not 6.", 1.0),
        ("The answer is $5.0$.", 1.0),
        ("**Answer:** 5", 1.0),
        ("The answer is\n\\[\n5\n\\]", 1.0),
        ("The answer is 5 or 6.", 0.0),
        ("5 apples and 2 pears, so 7", 0.0),
        ("I counted 5.", 0.0),
        ("x = 5\ny = 6", 0.0),
        ("", 0.0),
        ("\n", 0.0),
    ],
)
def test_what_a_response_states(response: str, score: float) -> None:
    assert decide("5", response, "any")[0] == score


def test_stated_ignores_a_bare_answer() -> None:
    assert decide("5", "5", "any")[0] == 1.0
    assert decide("5", "5", "stated") == (0.0, "no box and no 'answer is' states an answer")


@pytest.mark.parametrize("gold", [r"\overset{\frown}{AB}", r"\frac{1}{0}", "nan"])
def test_a_reference_that_cannot_be_read_is_unknown(gold: str) -> None:
    score, reason = decide(gold, r"\boxed{5}", "any")
    assert score is None
    assert "reference" in reason


def test_an_unreadable_reference_still_equals_itself() -> None:
    assert decide(r"\overset{\frown}{AB}", r"\boxed{\overset{\frown}{AB} }", "any")[0] == 1.0


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_fractions_are_exact(numerator: int, denominator: int) -> None:
    one = rf"\frac{{{numerator}}}{{{denominator}}}"
    assert decide(one, f"{3 * numerator}/{3 * denominator}", "any")[0] == 1.0
    assert decide(one, f"{3 * numerator + 1}/{3 * denominator}", "any")[0] == 0.0


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_sets_have_no_order_and_tuples_do(values: list[int], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    gold, given_set = (r"\{" + ",".join(map(str, v)) + r"\}" for v in (values, shuffled))
    assert decide(gold, given_set, "any")[0] == 1.0
    if len(values) > 1:
        ordered, other = (f"({', '.join(map(str, v))})" for v in (values, shuffled))
        assert decide(ordered, other, "any")[0] == float(values == shuffled)


@given(st.sampled_from(list(pairs(RIGHT))), st.data())
def test_reading_damaged_answers_refuses_and_never_fails(case: tuple[str, str], data: st.DataObject) -> None:
    """Whatever is cut out or put in: a value or Unreadable, so that only real crashes and hangs become unknown."""
    text = case[0]
    start = data.draw(st.integers(0, len(text)))
    damaged = (
        text[:start]
        + data.draw(st.sampled_from(["{", "}", "^", "\\frac", "=", ",", "<", "-i", "", "°"]))
        + text[start + 2 :]
    )
    with contextlib.suppress(Unreadable):
        answer = read(damaged)
        assert same(answer, answer) in (True, False)
        same(read(case[1]), answer)


@given(st.text(max_size=60))
def test_tokens_of_any_text(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert all(token.text for token in tokens(text))


@pytest.mark.parametrize(
    "text", ["(" * 3000 + "5", "{" * 2000 + "5" + "}" * 2000, "-" * 3900 + "5", "2*" + "-" * 3000 + "1"]
)
def test_deep_nesting_is_refused_or_read(text: str) -> None:
    assert decide("5", text, "any")[0] in (0.0, 1.0)
