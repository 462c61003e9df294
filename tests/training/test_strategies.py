"""How runs draw: trees, CURE's stages, hints; each trains where its mechanism acts, killed and resumed."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.curricula.guidance import GuidedCollector, all_wrong, escalate, hint
from apportion.errors import InputError
from apportion.models.value_heads import HasValueHeads
from apportion.recipes.quickstart import quickstart
from apportion.rewards.collect import AnswerCollector
from apportion.rollouts import RolloutStore, branches_of
from apportion.tasks.task import Task
from apportion.training.config import TrainConfig
from apportion.training.setup import set_up
from end_to_end.forked import begin, resume
from training.runs import DIGITS, metrics

HARD = "running_sum(digits=7, train=500, held_out=20)"
"""Sums that a model which was not warmed up does not solve by luck."""

SMALL = dataclasses.replace(
    quickstart(),
    tasks=("running_sum(digits=4, train=500, held_out=20)",),
    warm_start=None,
    max_new_tokens=4,
    prompts_per_step=2,
    group_size=6,
    steps=20,
    save_every=5,
    eval_prompts=0,
)
TREES = "branching(rule='high_entropy(threshold=0.5)', max_depth=2, children=2)"
HINTS = "ghpo(start=3, solutions='apportion.tasks.running_sum:solve', lead='')"
RUNS: dict[str, dict[str, Any]] = {
    "trees": {"sampling": TREES, "credit": "tree"},
    "trees, shrunk": {"sampling": "branching(rule='uniform(rate=0.5)', forks=None)", "credit": "tree_shrunk"},
    "cure": {"sampling": "cure(shortest=1, n1=3, n2=2, second_stage=15)", "credit": "dapo"},
    "ghpo": {"sampling": HINTS, "credit": "grpo(eps=1e-4)"},
}


def final(folder: Path, steps: int) -> tuple[bytes, list[Any]]:
    weights = (folder / f"checkpoints/step_{steps:06d}/model/model.safetensors").read_bytes()
    return weights, [(step, r.ids.tolist(), r.column("credit/advantages").tolist()) for step, r in stored(folder)]


def stored(folder: Path) -> RolloutStore:
    return RolloutStore(folder / "rollouts")


@pytest.mark.parametrize("name", RUNS)
def test_twenty_steps_killed_and_resumed(name: str, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, **RUNS[name])
    assert begin(tmp_path / "whole", config) == 0
    assert begin(tmp_path / "broken", config, kill_at=("sampled", 12)) == -signal.SIGKILL
    assert resume(tmp_path / "broken") == 0
    assert final(tmp_path / "broken", 20) == final(tmp_path / "whole", 20)
    lines = metrics(tmp_path / "whole")
    assert len(lines) == 20
    assert all(0 <= line["groups_mixed"] <= 1 for line in lines)
    assert any(line["groups_mixed"] > 0 for line in lines)


def test_every_token_of_a_run_on_trees_is_trained_once(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, sampling=TREES, credit="tree", steps=3)
    assert begin(tmp_path / "run", config) == 0
    for _, rollouts in stored(tmp_path / "run"):
        branches = branches_of(rollouts)
        assert bool((branches.parent >= 0).any())
        place = torch.arange(rollouts.n_tokens) - rollouts.token_offsets[rollouts.response_of_token]
        assert torch.equal(rollouts.trained, place >= branches.fork[rollouts.response_of_token])
        for group in rollouts.groups():
            assert int(group.trained.sum()) <= config.group_size * config.max_new_tokens


def test_cure_branches_in_its_first_stage_and_not_in_its_second(tmp_path: Path) -> None:
    spec = "cure(shortest=1, n1=3, n2=2, second_stage=2)"
    assert begin(tmp_path / "run", dataclasses.replace(SMALL, sampling=spec, credit="dapo", steps=4)) == 0
    lines = metrics(tmp_path / "run")
    assert [line.get("branches") for line in lines] == [pytest.approx(2 / 3), pytest.approx(2 / 3), None, None]
    _, first = next(iter(stored(tmp_path / "run")))
    assert torch.bincount(first.group_of_episode).tolist() == [9, 9]
    assert not bool((first.weight != 1).any())
    inherited = torch.bincount(first.response_of_token[~first.trained], minlength=18)
    lengths = torch.bincount(first.response_of_token, minlength=18) - inherited
    assert int(lengths.max()) == SMALL.max_new_tokens  # of its own, whatever it inherited


def test_hints_come_where_all_are_wrong_and_not_before_they_may(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, sampling=HINTS, steps=8, tasks=(HARD,), max_new_tokens=7)
    config = dataclasses.replace(config, group_size=3)
    assert begin(tmp_path / "run", config) == 0
    lines = metrics(tmp_path / "run")
    assert [line["hinted"] for line in lines[:3]] == [0, 0, 0]
    assert any(line["hinted"] > 0 for line in lines[3:])
    from apportion.tasks.running_sum import solve

    for step, rollouts in stored(tmp_path / "run"):
        stages = rollouts.columns["response:hint_stage"].tensor.tolist()
        asked = rollouts.columns["response:prompt_text"].text
        assert [origin == "hinted" for origin in rollouts.origin] == [stage > 0 for stage in stages]
        for stage, text in zip(stages, asked, strict=True):
            plain, said = (text or "")[:8], (text or "")[8:]
            assert said == (hint(solve(plain), (0.25, 0.5, 0.75)[stage - 1]) if stage else "")
        rewards = rollouts.column("episode:reward/outcome")
        for group in rollouts.groups():
            stage = int(group.columns["response:hint_stage"].tensor[0])
            wrong = not bool((group.column("episode:reward/outcome") > 0).any())
            assert not wrong or stage == (3 if step > 3 else 0), "only the last stage may stay all wrong"
        assert len(rewards) == 6


def test_hints_make_groups_useful_that_nobody_solves(tmp_path: Path) -> None:
    base = dataclasses.replace(
        SMALL,
        tasks=(HARD,),
        max_new_tokens=7,
        group_size=4,
        steps=20,
        credit="grpo(eps=1e-4)",
    )
    hinted = "ghpo(start=0, solutions='apportion.tasks.running_sum:solve', lead='')"
    useful = {}
    for name, spec in (("plain", "groups"), ("hinted", hinted)):
        assert begin(tmp_path / name, dataclasses.replace(base, sampling=spec)) == 0
        lines = metrics(tmp_path / name)
        useful[name] = sum(line["groups_mixed"] for line in lines) / len(lines)
    assert useful["hinted"] > useful["plain"]


def test_evaluations_draw_flat_samples() -> None:
    parts = set_up(dataclasses.replace(DIGITS, sampling="branching(rule='uniform')"))
    assert isinstance(parts.collect, AnswerCollector)
    assert not isinstance(parts.draw, AnswerCollector)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("trees", "unknown sampling strategy"),
        ("branching(rule='entropy')", "unknown fork rule"),
        ("branching(children=0)", "children is 0"),
        ("branching(roots=4, max_width=2)", "max_width is 2"),
        ("branching(rule='uniform(rate=2.0)')", "rate is 2.0"),
        ("cure(top_k=0)", "top_k is 0"),
        ("cure(n1=0)", "n1 is 0"),
        ("cure(second_stage=0)", "second_stage is 0"),
        ("ghpo(stages=(0.5, 0.25))", "expected shares that grow"),
        ("ghpo(start=-1)", "start is -1"),
        ("ghpo(solutions='nowhere:solve')", "no module named 'nowhere'"),
    ],
)
def test_strategies_that_cannot_be_are_refused_before_a_run(sampling: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        set_up(dataclasses.replace(DIGITS, sampling=sampling))


def test_an_environment_is_acted_in_in_groups() -> None:
    config = TrainConfig(environment="corridor(length=3, limit=4)", sampling="branching")
    with pytest.raises(InputError, match="leave one of them out"):
        set_up(config)


def test_a_rule_that_needs_what_nobody_makes_is_refused() -> None:
    parts = set_up(dataclasses.replace(DIGITS, sampling="branching(rule='uncertain_value')"))
    tasks = parts.curriculum.next(2, 0)
    with pytest.raises(InputError, match="neither this engine nor what samples from it makes it"):
        parts.draw(tasks, 4, parts.sampling, torch.Generator())


def test_a_value_head_of_the_policy_may_choose_forks() -> None:
    spec = "branching(rule=\"uncertain_value(head='critic', threshold=0.0)\", forks=None)"
    parts = set_up(dataclasses.replace(DIGITS, sampling=spec))
    assert isinstance(parts.policy, HasValueHeads)
    parts.policy.add_value_head("critic")
    drawn = parts.draw(parts.curriculum.next(2, 0), 4, parts.sampling, torch.Generator())
    assert "response:looks" in drawn.columns


def test_an_unknown_response_keeps_a_group_from_being_helped() -> None:
    assert all_wrong([0.0, -1.0])
    assert not all_wrong([0.0, None])
    assert not all_wrong([0.0, 1.0])
    with pytest.raises(InputError, match="fewer than two responses"):
        escalate(1, lambda stage, groups: [[0.0]], 3)


def test_a_task_without_a_solution_is_refused_when_it_needs_a_hint() -> None:
    parts = set_up(DIGITS)
    collect = parts.collect
    assert isinstance(collect, AnswerCollector)
    guided = GuidedCollector(collect.engine, collect.codec, collect.verifiers, lambda task: None, start=0)
    with pytest.raises(InputError, match="has no solution"):
        guided.hinted(Task("12=3", "6", "sums"), 1)
    chat = Task(({"role": "system", "content": "s"}, {"role": "user", "content": "q"}), "a", "chat")
    given = dataclasses.replace(guided, solution=lambda task: "abcd", lead=" hint: ").hinted(chat, 2)
    assert [dict(m)["content"] for m in given.prompt] == ["s", "q hint: ab"]  # type: ignore[arg-type]


def test_what_is_stored_says_how_it_was_drawn(tmp_path: Path) -> None:
    assert begin(tmp_path / "run", dataclasses.replace(SMALL, sampling=TREES, credit="tree", steps=1)) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["sampling"] == TREES
    _, rollouts = next(iter(stored(tmp_path / "run")))
    for name in ("branch", "parent", "fork", "draws", "looks"):
        assert f"response:{name}" in rollouts.columns
