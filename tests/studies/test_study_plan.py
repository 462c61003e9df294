"""Arms, seeds and folders of a study, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from apportion.errors import InputError, MissingColumn
from apportion.studies.arms import Arm, crossed
from apportion.studies.plan import APART, Folder, Study, check_runnable, rates
from apportion.studies.run import check_folder, run_study
from apportion.training.config import TrainConfig
from runs import DIGITS, TABULAR

BASE = dataclasses.replace(
    DIGITS,
    eval_prompts=8,
    verifier=None,
    warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=4, decay=2, batch=8)",
    seed=11,
)
GRPO, TEMPO = Arm("grpo", {"credit": "grpo"}), Arm("tempo", {"credit": "tempo"})


def study(*arms: Arm, base: TrainConfig = BASE, **more: Any) -> Study:
    return Study(base, arms or (GRPO, TEMPO), **more)


def test_every_combination_is_an_arm() -> None:
    arms = crossed({"credit": ["grpo", "tempo"], "learning_rate": [0.1, 0.2], "objective": [("clip", "kl")]})
    assert [arm.name for arm in arms] == [
        "grpo, 0.1, clip + kl",
        "grpo, 0.2, clip + kl",
        "tempo, 0.1, clip + kl",
        "tempo, 0.2, clip + kl",
    ]
    assert arms[2].changes == {"credit": "tempo", "learning_rate": 0.1, "objective": ("clip", "kl")}
    assert crossed({}) == []


@pytest.mark.parametrize(("seeds", "warm_starts"), [(1, 1), (3, 1), (2, 3)])
def test_arms_differ_by_their_changes_alone(seeds: int, warm_starts: int, tmp_path: Path) -> None:
    plan = study(seeds=seeds, warm_starts=warm_starts, tune=(0.5, 1.0), tuning_seeds=2)
    folder = Folder(tmp_path, plan)
    ours, theirs = folder.runs(GRPO, 0.1), folder.runs(TEMPO, 0.1)
    assert len(ours) == len(theirs) == seeds * warm_starts
    for one, other, seed in zip(ours, theirs, plan.run_seeds, strict=True):
        assert dataclasses.replace(one.config, credit="tempo") == other.config
        assert (one.config.seed, one.config.tasks_seed, one.config.learning_rate) == (seed, 11, 0.1)
        assert one.folder != other.folder
    assert len({job.config.warm_start for job in ours}) == warm_starts
    assert plan.clusters == [k for k in range(warm_starts) for _ in range(seeds)]


def test_tuning_touches_nothing_of_the_study(tmp_path: Path) -> None:
    plan = study(seeds=3, warm_starts=2, tune=(0.5, 1.0, 2.0), tuning_seeds=3)
    folder = Folder(tmp_path, plan)
    warm = {str(job.folder): job.config.seed for job in folder.warm_starts()}
    tuning = [job for jobs in folder.tuning(GRPO).values() for job in jobs]
    runs = folder.runs(GRPO, 1.0)
    assert not {job.config.seed for job in tuning} & {job.config.seed for job in runs}
    assert not {job.config.warm_start for job in tuning} & {job.config.warm_start for job in runs}
    assert len(set(warm.values())) == len(warm) == 4
    assert {job.config.seed for job in tuning} == {11 + APART, 12 + APART, 13 + APART}
    assert sorted({job.config.learning_rate for job in tuning}) == pytest.approx(
        [f * BASE.learning_rate for f in (0.5, 1.0, 2.0)]
    )
    every = [job.folder for job in (*folder.warm_starts(), *tuning, *runs)]
    assert len(set(every)) == len(every)


def test_a_rate_may_follow_that_of_another_arm() -> None:
    twice = Arm("twice", {"credit": "grpo"}, rate_of="grpo", factor=2.0)
    assert rates(study(GRPO, twice), {"grpo": 0.3}) == {"grpo": 0.3, "twice": 0.6}


def test_a_gradient_is_measured_once_for_arms_that_share_it(tmp_path: Path) -> None:
    sgd = Arm("grpo, sgd", {"credit": "grpo", "optimizer": "sgd", "learning_rate": 0.1})
    folder = Folder(tmp_path, study(GRPO, TEMPO, sgd, signal=5))
    assert folder.signals(GRPO) == folder.signals(sgd)
    (of_grpo,), (of_tempo,) = folder.signals(GRPO), folder.signals(TEMPO)
    assert of_grpo.folder != of_tempo.folder
    assert dataclasses.replace(of_grpo.config, credit="tempo") == of_tempo.config
    assert (of_grpo.config.learning_rate, of_grpo.config.steps, of_grpo.config.weight_decay) == (0, 5, 0)
    assert not {of_grpo.config.seed} & {*study(GRPO).run_seeds}


def test_another_study_is_another_fingerprint() -> None:
    assert study().fingerprint() == study().fingerprint()
    others = [
        study(seeds=4),
        study(GRPO),
        study(warm_starts=2),
        study(tune=(1.0, 2.0)),
        study(signal=3),
        study(base=dataclasses.replace(BASE, steps=5)),
    ]
    assert len({s.fingerprint() for s in (study(), *others)}) == 7


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no arms": ({"arms": ()}, "has no arms"),
    "no seeds": ({"seeds": 0}, "seeds is 0, expected at least 1"),
    "no warm starts": ({"warm_starts": 0}, "warm_starts is 0"),
    "no tuning seeds": ({"tuning_seeds": 0}, "tuning_seeds is 0"),
    "seeds that reach the tuning's": ({"seeds": APART, "warm_starts": 2}, "are more than 1000000"),
    "a factor of 0": ({"tune": (0.0, 1.0)}, "expected different finite numbers above 0"),
    "a factor twice": ({"tune": (1.0, 1.0)}, "expected different finite numbers"),
    "one factor": ({"tune": (1.0,)}, "one factor 1.0, expected several"),
    "an accuracy above 1": ({"reach": (1.5,)}, "reach has [1.5]"),
    "too few batches": ({"signal": 2}, "signal is 2, expected 0 or at least 3"),
    "no questions": ({"base": dataclasses.replace(BASE, eval_prompts=0)}, "eval_prompts is 0"),
    "no steps": ({"base": dataclasses.replace(BASE, steps=0)}, "steps is 0"),
    "nothing to warm": (
        {"base": dataclasses.replace(BASE, warm_start=None), "warm_starts": 2},
        "have no warm_start to repeat",
    ),
    "a name twice": ({"arms": (GRPO, Arm("grpo", {"credit": "tempo"}))}, "two arms are called 'grpo'"),
    "no such setting": ({"arms": (Arm("a", {"credits": "grpo"}),)}, "did you mean 'credit'"),
    "other questions": ({"arms": (Arm("a", {"tasks": ("echo",)}),)}, "sets tasks, which all arms of a study share"),
    "another seed": ({"arms": (Arm("a", {"seed": 3}),)}, "sets seed, which all arms"),
    "another model": ({"arms": (Arm("a", {"model": "digits"}),)}, "begin with the weights of one warm start"),
    "wrong settings": ({"arms": (Arm("a", {"group_size": 0}),)}, "arm 'a': group_size is 0"),
    "the rate of nobody": ({"arms": (GRPO, Arm("a", {}, rate_of="gro"))}, "did you mean 'grpo'"),
    "the rate of one without": (
        {"arms": (GRPO, Arm("a", {}, rate_of="grpo"), Arm("b", {}, rate_of="a"))},
        "whose learning rate 'b' multiplies",
    ),
    "two rates": ({"arms": (GRPO, Arm("a", {"learning_rate": 1.0}, rate_of="grpo"))}, "leave one out"),
    "a multiple of 0": ({"arms": (GRPO, Arm("a", {}, rate_of="grpo", factor=0.0))}, "takes 0.0 times a rate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_compared_is_refused(name: str) -> None:
    settings, message = WRONG[name]
    with pytest.raises(InputError, match=re.escape(message)):
        Study(**{"base": BASE, "arms": (GRPO,), **settings})


@pytest.mark.parametrize(
    ("arm", "base", "message"),
    [
        (Arm("needy", {"credit": "pure"}), BASE, "needs the column 'reward/prm'"),
        (Arm("odd", {"credit": "nothing_such"}), BASE, "arm 'odd': unknown credit method"),
        (Arm("plain"), TABULAR, "eval_prompts is 0"),
        (Arm("plain"), dataclasses.replace(TABULAR, eval_prompts=4), "hold no prompts out"),
        (
            Arm("critic", {"learners": ("critic",), "credit": "gae"}),
            dataclasses.replace(BASE, warm_start=None),
            "trains other models beside the policy",
        ),
    ],
    ids=["a column", "a method", "no evaluation", "no held-out prompts", "learners"],
)
def test_an_arm_that_cannot_run_is_refused_before_anything_does(
    arm: Arm, base: TrainConfig, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        run_study(Study(base, (Arm("fine"), arm), signal=3), tmp_path / "study")
    assert message in str(refused.value)
    assert not isinstance(refused.value, MissingColumn)
    assert not (tmp_path / "study").exists()


def test_arms_that_can_run_pass() -> None:
    check_runnable(study(GRPO, Arm("tree", {"credit": "tree", "sampling": "branching"}), signal=3))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", study())
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty", study())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not the folder of a study"):
        check_folder(tmp_path / "full", study())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not the folder of a study"):
        check_folder(tmp_path / "file", study())


def test_a_folder_of_another_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.studies import run

    monkeypatch.setattr(run.Workers, "run", lambda *_: (_ for _ in ()).throw(InputError("enough")))
    with pytest.raises(InputError, match="enough"):
        run_study(study(), tmp_path / "study")
    check_folder(tmp_path / "study", study())
    with pytest.raises(InputError, match="belongs to another study"):
        run_study(study(seeds=2), tmp_path / "study")


def test_two_studies_do_not_share_a_folder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.studies import workers

    monkeypatch.setattr(workers, "_PATIENCE", 0.1)
    (tmp_path / "study").mkdir()
    with workers.locked(tmp_path / "study"), pytest.raises(InputError, match="another study is running in"):
        run_study(study(), tmp_path / "study")


def test_no_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="processes is -1"):
        run_study(study(), tmp_path / "study", processes=-1)
