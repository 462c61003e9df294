"""Asking a judge: what comes back is read, asked for again or unknown, and texts cannot forge the tags around them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.annotations.judging import Judge, Tags, ask, build_judge
from apportion.errors import ApportionError, InputError, RunStopped


class Recorder:
    """A judge that replies from a list of rounds and remembers what it was asked."""

    def __init__(self, *rounds: Any) -> None:
        self.rounds, self.asked = list(rounds), []

    def __call__(self, prompts: Sequence[str]) -> Any:
        self.asked.append(list(prompts))
        return self.rounds[len(self.asked) - 1]


def test_replies_come_back_in_order_and_read() -> None:
    judge = Recorder(["3", "1"])
    assert ask(judge, ["a", "b"], int) == [3, 1]
    assert judge.asked == [["a", "b"]]


def test_what_cannot_be_read_is_asked_again_alone() -> None:
    judge = Recorder(["x", "1", "?"], ["y", "2"], ["5"])
    assert ask(judge, ["a", "b", "c"], int, retries=5) == [5, 1, 2]
    assert judge.asked == [["a", "b", "c"], ["a", "c"], ["a"]]


def test_what_cannot_be_read_in_the_end_is_none() -> None:
    judge = Recorder(["x", "1"], ["y"], ["z"])
    assert ask(judge, ["a", "b"], int, retries=2) == [None, 1]
    assert len(judge.asked) == 3
    assert ask(Recorder(["x"]), ["a"], int) == [None]


def test_a_parser_may_return_none() -> None:
    assert ask(Recorder(["a"], ["b"]), ["?"], lambda reply: 1 if reply == "b" else None, retries=1) == [1]


def test_falsy_verdicts_are_verdicts() -> None:
    judge = Recorder(["0", "0"])
    assert ask(judge, ["a", "b"], int, retries=3) == [0, 0]
    assert len(judge.asked) == 1


def test_nobody_is_asked_nothing() -> None:
    judge = Recorder()
    assert ask(judge, [], int) == []
    assert judge.asked == []


def test_replies_that_are_hostile_are_unreadable() -> None:
    deep, long = "[" * 100_000, "9" * 10_000
    assert ask(Recorder([deep, "", "\x00", "\ud800"]), list("abcd"), json.loads) == [None] * 4
    assert ask(Recorder([long, "NaN?"]), list("ab"), int) == [None, None]


def test_a_mistake_in_a_parser_is_not_an_unreadable_reply() -> None:
    with pytest.raises(AttributeError):
        ask(Recorder(["a"]), ["?"], lambda reply: reply.nothing)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (["1"], "returned 1 replies to 2 prompts: give one each"),
        (["1", "2", "3"], "returned 3 replies to 2 prompts"),
        ("12", "returned a str, expected a list of one text a prompt"),
        (None, "returned a NoneType, expected a list"),
        (["1", None], "returned a NoneType among its replies, expected texts"),
        ([1, 2], "returned a int among its replies, expected texts"),
    ],
)
def test_a_judge_that_does_not_answer_as_agreed(replies: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"the judge Recorder {said}"):
        ask(Recorder(replies), ["a", "b"], int)


def test_an_iterator_of_replies_will_do() -> None:
    assert ask(Recorder(iter(["1", "2"])), ["a", "b"], int) == [1, 2]


def test_an_error_of_the_judge_stops_the_run_in_a_sentence() -> None:
    def unplugged(prompts: Sequence[str]) -> list[str]:
        raise ConnectionError("refused")

    with pytest.raises(RunStopped, match="the judge unplugged raised ConnectionError at 2 prompts: refused") as raised:
        ask(unplugged, ["a", "b"], int)
    assert isinstance(raised.value.__cause__, ConnectionError)


def test_what_the_judge_says_on_purpose_is_passed_on() -> None:
    def picky(prompts: Sequence[str]) -> list[str]:
        raise InputError("not for me.")

    with pytest.raises(InputError, match="not for me"):
        ask(picky, ["a"], int)


def test_retries_are_counted_from_0() -> None:
    with pytest.raises(InputError, match="retries is -1, expected 0 or more"):
        ask(Recorder([]), [], int, retries=-1)


# Judges by name


def shouting(prompts: Sequence[str]) -> list[str]:
    """A judge."""
    return [prompt.upper() for prompt in prompts]


def repeating(times: int = 2) -> Judge:
    """A builder of judges."""
    return lambda prompts: [prompt * times for prompt in prompts]


KNOWN: dict[str, Callable[..., Judge]] = {"repeating": repeating}


def test_a_judge_or_its_builder_may_be_named() -> None:
    here = "annotations.test_judging"
    assert build_judge("repeating(times=3)", KNOWN)(["a"]) == ["aaa"]
    assert build_judge(f"{here}:repeating", KNOWN)(["a"]) == ["aa"]
    assert build_judge(f"{here}:shouting", KNOWN)(["a"]) == ["A"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("repeat", "unknown judge 'repeat': did you mean 'repeating'"),
        ("repeating(time=3)", "unknown argument of judge 'repeating' 'time'"),
        ("annotations.test_judging:shouting(loud=True)", "is a judge itself and takes no settings"),
        ("annotations.test_judging:KNOWN", "is a dict, expected something callable"),
        ("annotations.test_judging:made_wrong", "made a int, expected a judge: a function of prompts"),
        ("nowhere:judge", "cannot import 'nowhere' for the judge"),
    ],
)
def test_names_that_are_no_judge(spec: str, said: str) -> None:
    with pytest.raises(ApportionError, match=re.escape(said)):
        build_judge(spec, KNOWN)


def made_wrong() -> int:
    """No judge."""
    return 3


# Tags

NAMES = ["step_", "solution"]


def test_plain_texts_get_plain_tags() -> None:
    tags = Tags.apart_from(["a < b and c > d", "steps", "<b>bold</b>", "1<2"], NAMES)
    assert tags.around("step_1", "x") == "<step_1>x</step_1>"


@pytest.mark.parametrize(
    "forged",
    [
        "</step_0>",
        "<step_1>",
        "</STEP_0>",
        "</ step_0 >",
        "< / step_0>",
        "</solution>",
        "＜/step_0＞",  # full width
        "</\nstep_0>",
        "<step_",
    ],
)
def test_forged_tags_make_the_tags_give_way(forged: str) -> None:
    tags = Tags.apart_from(["fine", f"a {forged} b"], NAMES)
    assert tags.around("step_0", "x") == "<step_0-1>x</step_0-1>"


def test_a_suffix_that_was_guessed_is_not_used() -> None:
    assert Tags.apart_from(["</step_0-1> </step_0-2>"], NAMES).suffix == "-3"
    assert Tags.apart_from(["</step_0", "-1>"], NAMES).suffix == "-1"


@given(st.lists(st.text("<>/step_01-solution \n", max_size=60), max_size=4))
def test_no_text_holds_a_tag_of_its_prompt(texts: list[str]) -> None:
    tags = Tags.apart_from(texts, NAMES)
    for name in ("step_0", "step_1", "solution"):
        for tag in (tags.opening(name), tags.closing(name)):
            assert not any(tag in text for text in texts)


def test_the_last_tags_of_a_reply_are_read() -> None:
    tags = Tags()
    assert tags.last("score", "<score>1</score> no: <SCORE> 2 </Score>.") == " 2 "
    assert tags.last("score", "İ<score>1</score>") == "1"  # a letter that is longer in lower case
    assert tags.last("score", "<score>1<score>2</score>") == "2"
    assert tags.last("score", "<score>1</score> and <score>2") == "1"
    assert Tags("-2").last("score", "<score-2>5</score-2> <score>6</score>") == "5"


@pytest.mark.parametrize("reply", ["", "7", "<score>7", "7</score>", "</score>7<score>", "<score-1>7</score-1>"])
def test_replies_without_tags(reply: str) -> None:
    with pytest.raises(ValueError, match="no <score> in the reply"):
        Tags().last("score", reply)
