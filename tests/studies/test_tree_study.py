"""The study of trees: its tasks, its arms and controls, what it takes to fresh seeds, and what its page says."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apportion.recipes import RECIPES
from apportion.recipes.tree_study import (
    ARMS,
    FRESH,
    LOOKED_AT,
    UNSEEN,
    Condition,
    Size,
    confirming,
    controls,
    difference,
    is_control,
    looked_at,
    promising,
)
from apportion.recipes.tree_study_page import draw_studies, page, verdict
from apportion.recipes.trees import backwards, careless, distracted, first_sums, hasty
from apportion.studies.plan import check_runnable, rates
from apportion.tasks.running_sum import solve


@pytest.mark.parametrize(("teacher", "place"), [(hasty, 0), (distracted, 3)])
def test_teachers_slip_where_they_are_said_to(teacher: Any, place: int) -> None:
    rng, first = np.random.default_rng(0), Counter()
    for _ in range(2000):
        digits = rng.integers(10, size=8)
        prompt = "".join(map(str, digits[1:])) + f"={digits[0]}"
        written, right = teacher(prompt, rng), solve(prompt)
        assert len(written) == len(right)
        assert written[-1] == "."
        wrong = [i for i, (a, b) in enumerate(zip(written, right, strict=True)) if a != b]
        first[wrong[0] if wrong else None] += 1
    assert first[place] / 2000 == pytest.approx(0.7 * 0.98**place, abs=0.03)
    assert all(first[i] / 2000 < 0.04 for i in range(7) if i != place)


def test_only_the_first_sums_count() -> None:
    right = solve("0453496=6")
    assert first_sums("0453496=6", right, None)
    assert first_sums("0453496=6", right[:3], None)
    for i in range(7):
        wrong = right[:i] + str((int(right[i]) + 1) % 10) + right[i + 1 :]
        assert first_sums("0453496=6", wrong, None) == (i >= 3)
    assert not first_sums("0453496=6", "", None)


def test_words_are_spelt_backwards_with_slips_in_vowels_alone() -> None:
    source = backwards(words=300, held_out=20)
    rng, slips, vowels = np.random.default_rng(0), 0, 0
    for task in (*source.train, *source.held_out):
        word = task.text[:-1]
        assert task.text == f"{word}="
        assert task.answer == word[::-1] + "."
        written = careless(task.text, rng)
        pairs = list(zip(written, task.answer, strict=True))
        slips += sum(a != b for a, b in pairs)
        vowels += sum(b in "aeiou" for _, b in pairs)
        assert all(a == b or (b in "aeiou" and a in "aeiou") for a, b in pairs)
    assert slips / vowels == pytest.approx(1 / 3, abs=0.08)
    assert not {t.text for t in source.train} & {t.text for t in source.held_out}


def test_every_task_is_a_recipe_and_the_unseen_is_not_looked_at() -> None:
    assert {*LOOKED_AT, *UNSEEN} <= set(RECIPES)
    assert not {*LOOKED_AT} & {*UNSEEN}
    assert len(LOOKED_AT) == 3


def test_controls_are_grpo_at_its_rate_and_at_twice() -> None:
    names = [arm.name for arm in ARMS]
    own = {arm.name: 0.5 for arm in ARMS if arm.rate_of is None}
    study = looked_at(Size())["late_noise"]
    used = rates(study, own)
    for arm in ARMS:
        one, twice = controls(arm.name)
        assert {one, twice} <= set(names)
        assert used[twice] == 2 * used[one]
        optimizers = {a.settings(study.base).optimizer for a in ARMS if a.name in (arm.name, one, twice)}
        assert len(optimizers) == 1
    assert sum(is_control(name) for name in names) == 4
    assert {arm.settings(study.base).optimizer for arm in ARMS} == {"adamw", "sgd"}


@pytest.mark.parametrize("task", [*LOOKED_AT, *UNSEEN])
def test_every_arm_of_every_task_can_run(task: str) -> None:
    studies = looked_at(Size()) | confirming([Condition(t, "tree", False) for t in LOOKED_AT], Size())
    check_runnable(studies[task])


def report(lows: dict[str, float]) -> dict[str, Any]:
    """A report whose differences to both controls are known; those not given are far below."""
    lines = []
    for i, one in enumerate(ARMS):
        for other in ARMS[i + 1 :]:
            low = 0.0
            if not is_control(other.name) and one.name in controls(other.name):
                low = lows.get(other.name, -1.0)
            elif not is_control(one.name) and other.name in controls(one.name):
                low = -lows.get(one.name, -1.0) - 0.2
            at = {"value": low + 0.1, "low": low, "high": low + 0.2}
            both = {"on_the_way": at, "at_the_end": at}
            lines.append({"arm": other.name, "against": one.name, "sampled": both})
    return {"arms": [arm.as_dict() for arm in ARMS], "differences": lines}


def test_differences_are_read_whichever_way_they_are_written() -> None:
    found = report({"tree": 0.3})
    assert difference(found, "tree", "grpo") == pytest.approx({"value": 0.4, "low": 0.3, "high": 0.5})
    assert difference(found, "grpo", "tree") == pytest.approx({"value": -0.4, "low": -0.5, "high": -0.3})
    for arm in ARMS:
        if not is_control(arm.name):
            for control in controls(arm.name):
                low = difference(found, arm.name, control)["low"]
                assert low == pytest.approx(0.3 if arm.name == "tree" else -1.0)


def test_what_is_above_both_controls_is_confirmed() -> None:
    found = {"late_noise": report({"tree": 0.1, "tempo, sgd": 0.05, "td, flat": 0.0}), "spelling": report({})}
    assert promising(found) == [Condition("late_noise", "tree", True), Condition("late_noise", "tempo, sgd", True)]


def test_where_nothing_helps_the_nearest_is_tried() -> None:
    found = {"late_noise": report({"tree": -0.1}), "spelling": report({"tree_td": -0.05})}
    assert promising(found) == [Condition("spelling", "tree_td", False)]


def test_of_trees_the_nearest_is_tried_in_any_case() -> None:
    trees_far = {"late_noise": report({"tempo": -0.1, "tree": -0.2}), "spelling": report({"td, flat": -0.15})}
    nearest = [Condition("late_noise", "tempo", False), Condition("late_noise", "tree", False)]
    assert promising(trees_far) == nearest
    flat_helps = {"late_noise": report({"tempo": 0.1, "tree, leaves": -0.3}), "spelling": report({})}
    assert promising(flat_helps) == [
        Condition("late_noise", "tempo", True),
        Condition("late_noise", "tree, leaves", False),
    ]


def test_confirmation_is_on_fresh_seeds_and_an_unseen_task() -> None:
    size = Size()
    studies = confirming([Condition("spelling", "tree", True), Condition("late_noise", "tempo, sgd", True)], size)
    assert list(studies) == ["late_noise", "spelling", "middle_choice"]
    assert [a.name for a in studies["spelling"].arms] == ["grpo", "grpo, twice the rate", "tree"]
    assert [a.name for a in studies["late_noise"].arms] == ["grpo, sgd", "grpo, twice the rate, sgd", "tempo, sgd"]
    assert len(studies["middle_choice"].arms) == 6
    seeds = {s for study in looked_at(size).values() for s in (*study.run_seeds, *study.tuned_on)}
    for study in studies.values():
        assert not seeds & {*study.run_seeds, *study.tuned_on}
        assert study.run_seeds[0] == size.seed + FRESH
        assert len(study.run_seeds) == size.confirming


def everything(lows: dict[str, float]) -> dict[str, Any]:
    """What the command finds, of reports made up."""
    whole = report(lows)
    whole |= {"tune": [0.5, 1.0], "tuning": [], "goals": [0.5, 0.8], "run_seeds": [1, 2], "budget": 100, "questions": 9}
    at = {"on_the_way": {"value": 0.5}, "at_the_end": {"value": 0.6}}
    whole["compared"] = [
        {
            "arm": arm.name,
            "learning_rate": 0.1,
            "stopped": 0,
            "tokens_a_step": 400.4,
            "sampled": at,
            "tokens_to": [{"median": 1234}, {"median": None}],
            "responses_to": [{"median": 123}, {"median": None}],
        }
        for arm in ARMS
    ]
    whole["signal"] = [{"arm": arm.name, "per_1000_tokens": 0.25, "standard_error": 0.05} for arm in ARMS]
    looked = dict.fromkeys(LOOKED_AT, whole)
    return {
        "command": "apportion study trees",
        "size": {"seeds": 1, "warm_starts": 2, "steps": 3},
        "looked_at": looked,
        "conditions": [dataclasses.asdict(condition) for condition in promising(looked)],
        "confirmed": {UNSEEN[0]: copy.deepcopy(whole)},
    }


def test_the_page_says_what_was_found_and_no_more(tmp_path: Path) -> None:
    found = everything({"tree": 0.1})
    said = verdict(found)
    assert "above GRPO and above GRPO at twice the rate: tree in late_noise" in said
    assert "On fresh seeds, tree in middle_choice: +0.200 [+0.100, +0.300] against GRPO" in said
    assert "It holds." in said
    assert "not seen to need fewer" not in said
    text = page(found)
    assert "| tree | 0.1 | 400 | 0.500 | +0.200 [+0.100, +0.300] | +0.200 [+0.100, +0.300] |" in text
    assert "| 1,234 (123) | never |" in text
    assert "| tree | 0.250 ± 0.050 |" in text
    for name in ("one.svg", "two.svg"):
        draw_studies(found, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    json.dumps(found)


def test_the_page_says_when_nothing_was_found() -> None:
    said = verdict(everything({"tree": -0.1}))
    assert "Nowhere was an arm above" in said
    assert "of all arms and of those on trees, was taken to fresh seeds all the same: tree in late_noise." in said
    assert "It does not hold." in said
    assert "was not seen to need fewer rollouts" in said
