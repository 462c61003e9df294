"""Latent rewards: what a function is given, where it comes from, and judges that write it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apportion.annotations import ANNOTATORS
from apportion.annotations.evaluation_authors import KEYS, Brief, source_in, write_function
from apportion.annotations.latent_inputs import READINGS, texts_of
from apportion.annotations.running_sum_factors import evaluation_func
from apportion.annotations.sandbox import Function, FunctionFailed
from apportion.errors import InputError, MissingColumn
from apportion.models.digits import digit_llama
from apportion.rollouts import Rollouts, steps
from apportion.tasks.running_sum import solve

GOOD = "def evaluation_func(observation, action):\n    return [[[float(len(text))] for text in action]]"
FLAT = "def evaluation_func(observation, action):\n    return [[1.0 for text in action]]"
POLICY = digit_llama(hidden=16, layers=1, heads=2)


def answers(pairs: Sequence[tuple[str, str]], **given: Any) -> Rollouts:
    """Running sums and what was written."""
    ids = [POLICY.tokenizer(text).input_ids if text else [] for _, text in pairs]
    rollouts = Rollouts.from_lists(ids, groups=[0] * len(ids), **given)
    rollouts = rollouts.with_column("response:text", [text for _, text in pairs])
    return rollouts.with_column("response:prompt_text", [prompt for prompt, _ in pairs])


def latent(rollouts: Rollouts, level: str = "step", **settings: Any) -> torch.Tensor:
    annotator = ANNOTATORS["latent_reward"](level=level, **settings)
    assert annotator.makes == (f"{level}:latent",)
    return annotator.apply(rollouts, POLICY).columns[f"{level}:latent"].tensor


# What a function is given


def test_texts_before_and_in_every_decision() -> None:
    rollouts = answers([("12=3", "461."), ("5=6", ""), ("7=8", "5")])
    spans = rollouts.with_spans("step", torch.tensor([0, 2, 4]), torch.tensor([2, 3, 5]))
    assert texts_of(spans, POLICY, steps(spans, "step")) == (["12=3", "12=346", "7=8"], ["46", "1", "5"])
    assert texts_of(rollouts, POLICY, steps(rollouts, "response")) == (["12=3", "5=6", "7=8"], ["461.", "", "5"])
    with pytest.raises(MissingColumn, match="'response:prompt_text'"):
        texts_of(Rollouts.from_lists([[1]], groups=[0]), POLICY, steps(rollouts))


def test_numbers_of_a_running_sum() -> None:
    observation, action = READINGS["running_sum"]().read(
        ["0453496=6", "0453496=66", "12=3=", "12=3"], ["6", ".", "=", ""]
    )
    assert isinstance(observation, np.ndarray)
    assert observation[:, :5].tolist() == [[0, 6, 0, 4, 5], [1, 6, 0, 4, 5], [1, -1, 1, 2, -1], [0, 3, 1, 2, -1]]
    assert observation[0, 2:].tolist() == [0, 4, 5, 3, 4, 9, 6] + [-1] * 11
    assert np.asarray(action).tolist() == [[6], [10], [-1], [-1]]
    for hostile in ("", "=", "say: 12=3", "1" * 19 + "=3", "١٢=3"):
        with pytest.raises(InputError, match="read prompts such as '0453496=6' and got"):
            READINGS["running_sum"]().read([hostile], ["1"])


def test_the_quickstart_s_factors() -> None:
    prompt = "0453496=6"
    right = latent(answers([(prompt, solve(prompt))]), each_token=True)
    assert right.tolist() == [[1, 0, 0, i / 7] for i in range(7)] + [[0, 0, 1, 1.0]]
    # 6058217 is right: off by two and stopped too early; off by one at the fifth; no stop; a digit after the last.
    wrong = latent(answers([(prompt, "8."), (prompt, "60581"), ("09=1", "10="), ("9=1", "00")]), each_token=True)
    assert wrong[:2, :3].tolist() == [[0, pytest.approx(0.4), 0], [0, 1, -1]]
    assert wrong[2:7, :2].tolist() == [[1, 0], [1, 0], [1, 0], [1, 0], [0, pytest.approx(0.2)]]
    assert wrong[7:10, :3].tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert wrong[10:, :3].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_every_trained_token_is_a_step_where_asked() -> None:
    rollouts = answers([("12=3", "461."), ("12=3", "")], trained=[[1, 0, 1, 1], []])
    annotated = ANNOTATORS["latent_reward"](each_token=True).apply(rollouts, POLICY)
    assert annotated.spans["step"].starts.tolist() == [0, 2, 3]
    assert annotated.columns["step:latent"].tensor.shape == (3, 4)
    with pytest.raises(InputError, match="no spans of kind 'step'"):
        latent(rollouts)


def test_no_decisions_have_no_factors() -> None:
    assert latent(answers([("12=3", "")]), each_token=True).shape == (0, 0)


def test_hostile_text_is_text() -> None:
    weird = "'''); import os; os.remove('x')\x00\ud7ff\N{RIGHT-TO-LEFT OVERRIDE}" + "9" * 2000
    rollouts = answers([("12=3", "4"), ("12=3", "4")]).with_column("response:prompt_text", [weird, ""])
    source = "def evaluation_func(observation, action):\n    return [[[float(len(text))] for text in observation]]"
    given = replace(Function(source))(*texts_of(rollouts, POLICY, steps(rollouts)))
    assert given.tolist() == [[float(len(weird))], [0.0]]


# Where it comes from


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(GOOD)
    rollouts = answers([("12=3", "461."), ("12=3", "4")])
    assert latent(rollouts, "response", file=str(file), inputs="text").tolist() == [[4.0], [1.0]]
    file.write_text(FLAT)
    with pytest.raises(FunctionFailed, match=r"factor 0 has shape \(2,\), expected \(2, 1\)"):
        latent(rollouts, "response", file=str(file), inputs="text")
    with pytest.raises(InputError, match="is no file, expected Python that defines evaluation_func"):
        ANNOTATORS["latent_reward"](file=str(tmp_path / "absent.py"))


def test_a_function_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "criteria_of_mine.py").write_text(
        "import math\n\nBASE = 2\n\n"
        "def lengths(observation, action):\n    return [[[math.log(len(a), BASE)] for a in action]]\n"
    )
    rollouts = answers([("12=3", "461."), ("12=3", "4")])
    given = latent(rollouts, "response", function="criteria_of_mine:lengths", inputs="text")
    assert given.tolist() == [[2.0], [0.0]]
    with pytest.raises(InputError, match="'criteria_of_mine:BASE' is a int, expected a function"):
        ANNOTATORS["latent_reward"](function="criteria_of_mine:BASE")


def test_the_column_says_which_function_made_it(tmp_path: Path) -> None:
    made = []
    for name, source in (("one", GOOD), ("other", GOOD + "\n")):
        (tmp_path / f"{name}.py").write_text(source)
        annotator = ANNOTATORS["latent_reward"](file=str(tmp_path / f"{name}.py"), inputs="text", level="response")
        made.append(annotator.apply(answers([("12=3", "4")]), POLICY).columns["response:latent"].parameters)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"function": "running_sum", "file": "x.py"}, "expected a function, a file, or a judge and the file"),
        ({"function": "running_sum", "judge": "running_sum_author"}, "expected a function, a file, or a judge"),
        ({"judge": "running_sum_author", "task": "sums"}, "a judge needs file=..., where its function is kept"),
        ({"judge": "running_sum_author", "file": "x.py"}, "and task=..., what it is told: give both"),
        ({"task": "sums"}, "task is given and no judge reads it"),
        ({"function": "running_sums"}, "unknown evaluation function 'running_sums': did you mean 'running_sum'"),
        ({"inputs": "texts"}, "unknown inputs of an evaluation function 'texts': did you mean 'text'"),
        ({"judge": "author", "file": "x.py", "task": "sums"}, "unknown judge 'author'"),
        ({"candidates": 0}, "candidates=0, repairs=5: expected at least 1 and at least 0"),
        ({"repairs": -1}, "candidates=5, repairs=-1"),
        ({"seconds": 0.0}, "expected more than 0 s"),
        ({"each_token": True, "level": "response"}, "each_token makes spans and level is 'response'"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ANNOTATORS["latent_reward"](**settings)


# Judges that write it


class Scripted:
    """A judge that gives these replies one after another, and remembers what it was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked, self.calls = list(replies), [], 0

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        self.asked += prompts
        self.calls += 1
        return [self.replies.pop(0) for _ in prompts]


def reply(code: str) -> str:
    return (
        "Here it is:\n```json\n" + json.dumps(dict(zip(KEYS, ("u", "a", code), strict=True))) + "\n```\nGood luck {}!"
    )


def write(judge: Scripted, **settings: Any) -> str:
    brief = Brief("Write short answers.", "two lists of texts")
    return write_function(judge, brief, Function, ["a", "bc"], ["d", "ef"], **settings)


def test_several_drafts_are_merged_into_one() -> None:
    judge = Scripted(reply("draft one"), reply("draft two"), reply(GOOD))
    assert write(judge, candidates=2) == GOOD
    assert judge.calls == 2
    first, second, merge = judge.asked
    assert first == second
    assert "Write short answers." in first
    assert "two lists of texts" in first
    assert "def evaluation_func(observation, action)" in first
    assert "Here are 2 proposals" in merge
    assert "draft one" in merge
    assert "draft two" in merge


def test_one_draft_needs_no_merge() -> None:
    judge = Scripted(reply(GOOD))
    assert write(judge, candidates=1) == GOOD
    assert judge.calls == 1


def test_what_fails_goes_back_with_what_went_wrong() -> None:
    raises = "def evaluation_func(observation, action):\n    return [undefined]"
    judge = Scripted("I would rather not.", '{"understanding": "u"}', reply(FLAT), reply(raises), reply(GOOD))
    assert write(judge, candidates=1, repairs=4) == GOOD
    _, *repairs = judge.asked
    for repair, said, problem in zip(
        repairs,
        ("I would rather not.", '{"understanding": "u"}', "return [[1.0 for", "undefined"),
        (
            "there is no JSON object",
            "has no 'function'",
            "factor 0 has shape (2,)",
            "NameError at line 2: name 'undefined'",
        ),
        strict=True,
    ):
        assert said in repair
        assert problem in repair


def test_it_gives_up_after_the_last_repair() -> None:
    judge = Scripted(*[reply(FLAT)] * 3)
    with pytest.raises(InputError, match=r"no evaluation function that works in 3 attempts, the last because factor 0"):
        write(judge, candidates=1, repairs=2)
    assert judge.calls == 3


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "{",
        "{}",
        "[1]",
        '{"function": 3}',
        '{"function": "x = 1"}',
        "{" * 100_000,
        '{"function": "def evaluation_func',
    ],
)
def test_replies_that_hold_no_function(hostile: str) -> None:
    with pytest.raises(ValueError, match="Reply with a JSON object"):
        source_in(hostile)


def test_code_may_stand_on_several_lines() -> None:
    assert source_in('{"function": "def evaluation_func(o, a):\n\treturn []"} {"function": "no"}').endswith("return []")


def test_what_the_judge_wrote_is_kept_and_not_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "kept.py"
    settings: dict[str, Any] = {
        "judge": "running_sum_author", "file": str(file), "task": "Add digits modulo ten.", "each_token": True,
    }  # fmt: skip
    rollouts = answers([("12=3", "4."), ("12=3", "46.")])
    first = latent(rollouts, **settings)
    assert ".reshape(-1, 1)" in file.read_text()  # the first draft lacked it and was sent back
    assert torch.equal(first, latent(rollouts, each_token=True))
    file.write_text("def evaluation_func(observation, action):\n    return [action]")
    assert latent(rollouts, **settings).tolist() == [[4.0], [10.0], [4.0], [6.0], [10.0]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.py"]


def test_the_scripted_author_knows_running_sums_only(tmp_path: Path) -> None:
    annotator = ANNOTATORS["latent_reward"](
        judge="running_sum_author", file=str(tmp_path / "x.py"), task="Chat.", inputs="text", level="response"
    )
    with pytest.raises(InputError, match="writes functions for inputs 'running_sum' and was asked for another"):
        annotator.apply(answers([("12=3", "4")]), POLICY)
    assert not list(tmp_path.iterdir())


def test_the_registered_function_is_the_file_s() -> None:
    """It is written to run in the sandbox, and runs outside of it alike."""
    observation, action = READINGS["running_sum"]().read(["12=3", "12=34"], ["4", "7"])
    assert [factor.shape for factor in evaluation_func(np.asarray(observation), np.asarray(action))] == [(2, 1)] * 4
