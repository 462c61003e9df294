"""Where a run begins and where it ends: weights of another run, tasks of a seed of their own, a budget of tokens."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apportion.errors import InputError
from apportion.sampling.engine import Collector
from apportion.training.setup import set_up
from runs import DIGITS, TABULAR, begin, metrics, resume, weights


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    begin(tmp_path / "first", DIGITS)
    checkpoint = tmp_path / "first/checkpoints/step_000004"
    config = dataclasses.replace(DIGITS, seed=9, warm_start=f"weights(checkpoint={str(checkpoint)!r})")
    begin(tmp_path / "second", config)
    assert weights(tmp_path / "second", 0) == weights(tmp_path / "first", 4)
    assert weights(tmp_path / "second", 4) != weights(tmp_path / "first", 4)


def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "run", TABULAR)
    for place in ("nowhere", "run", "run/checkpoints", "run/checkpoints/step_000003"):
        with pytest.raises(InputError, match="is no whole checkpoint"):
            set_up(dataclasses.replace(TABULAR, warm_start=f"weights(checkpoint={str(tmp_path / place)!r})"))
    (tmp_path / "run/checkpoints/step_000004/model/model.safetensors").write_bytes(b"torn")
    torn = str(tmp_path / "run/checkpoints/step_000004")
    with pytest.raises(InputError, match="is no whole checkpoint"):
        set_up(dataclasses.replace(TABULAR, warm_start=f"weights(checkpoint={torn!r})"))


def test_a_run_that_began_with_a_checkpoint_goes_on_without_it(tmp_path: Path) -> None:
    begin(tmp_path / "first", TABULAR)
    given = f"weights(checkpoint={str(tmp_path / 'first/checkpoints/step_000004')!r})"
    begin(tmp_path / "second", dataclasses.replace(TABULAR, seed=9, warm_start=given))
    shutil.rmtree(tmp_path / "first")
    command = [
        sys.executable,
        "-m",
        "apportion.cli.main",
        "train",
        "--resume",
        str(tmp_path / "second"),
        "--steps",
        "6",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "second/checkpoints/step_000006").is_dir()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("digits(hidden=16, layers=3, heads=2)", "no value of some weights"),
        ("digits(hidden=32, layers=1, heads=2)", "weights of other shapes"),
    ],
)
def test_weights_of_another_model_are_refused(model: str, said: str, tmp_path: Path) -> None:
    begin(tmp_path / "first", DIGITS)
    given = f"weights(checkpoint={str(tmp_path / 'first/checkpoints/step_000004')!r})"
    with pytest.raises(InputError, match=said):
        begin(tmp_path / "second", dataclasses.replace(DIGITS, model=model, warm_start=given))


@pytest.mark.parametrize(
    "sampling",
    ["groups", "ghpo(start=0, solutions='apportion.tasks.running_sum:solve')", "cure(n1=2, n2=3, shortest=1)"],
)
def test_all_tokens_that_were_drawn_are_paid_for(
    sampling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    add = Collector.add
    monkeypatch.setattr(Collector, "add", lambda self, some: (drawn.append(len(some.tokens)), add(self, some))[1])
    begin(tmp_path / "run", dataclasses.replace(DIGITS, sampling=sampling, steps=1, eval_prompts=0))
    (line,) = metrics(tmp_path / "run")
    assert line["tokens_drawn"] == sum(drawn) >= line["tokens_sampled"]


@pytest.mark.parametrize(
    ("sampling", "of_a_prompt"),
    [("groups", 4), ("cure(n1=2, n2=3, shortest=1)", 2 + 2 * 3), ("branching(roots=2, budget=1000)", 2 + 2)],
)
def test_responses_that_were_drawn_are_counted(sampling: str, of_a_prompt: int, tmp_path: Path) -> None:
    begin(tmp_path / "run", dataclasses.replace(DIGITS, sampling=sampling, steps=1, eval_prompts=0))
    (line,) = metrics(tmp_path / "run")
    assert line["responses_drawn"] == DIGITS.prompts_per_step * of_a_prompt


def test_tasks_may_have_a_seed_of_their_own() -> None:
    def held_out(**changes: int) -> list[str]:
        return [task.text for task in set_up(dataclasses.replace(DIGITS, eval_prompts=20, **changes)).held_out]

    assert held_out(seed=1) != held_out(seed=2)
    assert held_out(seed=1, tasks_seed=2) == held_out(seed=2) == held_out(seed=2, tasks_seed=2)


@pytest.mark.parametrize(("budget", "steps"), [(1, 1), (32, 1), (33, 2), (96, 3), (1000, 4)])
def test_a_run_ends_when_its_tokens_are_spent(budget: int, steps: int, tmp_path: Path) -> None:
    begin(tmp_path / "run", dataclasses.replace(TABULAR, token_budget=budget))
    assert [line["tokens_sampled"] for line in metrics(tmp_path / "run")] == [32.0] * steps
    assert (tmp_path / f"run/checkpoints/step_{steps:06d}").is_dir()


def test_a_budget_is_kept_over_a_resume(tmp_path: Path) -> None:
    config = dataclasses.replace(TABULAR, token_budget=96, steps=10)
    begin(tmp_path / "whole", config)
    begin(tmp_path / "halves", dataclasses.replace(config, steps=2))
    resume(tmp_path / "halves", steps=10)
    assert len(metrics(tmp_path / "halves")) == 3
    assert weights(tmp_path / "halves", 3) == weights(tmp_path / "whole", 3)


def test_tokens_of_branches_count_once(tmp_path: Path) -> None:
    config = dataclasses.replace(DIGITS, sampling="branching(rule='uniform(rate=0.5)')", credit="tree", group_size=6)
    begin(tmp_path / "run", config)
    from apportion.rollouts.store import RolloutStore

    for line in metrics(tmp_path / "run"):
        rollouts = RolloutStore(tmp_path / "run/rollouts").read(line["step"])
        own = int(rollouts.trained.sum())
        assert line["tokens_sampled"] == own <= rollouts.n_tokens
        if line.get("branches"):
            assert own < rollouts.n_tokens
    assert any(line["branches"] > 0 for line in metrics(tmp_path / "run"))
