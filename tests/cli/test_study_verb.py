"""apportion study: what it reads, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apportion.cli import study as cli
from apportion.cli.main import main
from apportion.cli.study import _arm, _left, _study
from apportion.recipes.quickstart import quickstart
from apportion.studies.arms import Arm
from apportion.studies.plan import Study
from apportion.studies.run import Stand


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "study needs a recipe"),
        (["quickstar"], "did you mean 'quickstart'"),
        (["quickstart"], "the study has no arms: vary a setting"),
        (["quickstart", "--vary", "credit"], "--vary was given 'credit', expected a setting and values"),
        (["quickstart", "--vary", "credits=grpo"], "did you mean 'credit'"),
        (["quickstart", "--vary", "credit=grpo,,tempo"], "expected names separated by single commas"),
        (["quickstart", "--vary", "credit=grpo", "--vary", "credit=tempo"], "names credit twice"),
        (["quickstart", "--vary", "learning_rate=fast"], "--learning-rate is 'fast', expected a number"),
        (["quickstart", "--vary", "learning_rate=-1"], "learning_rate is -1.0, expected a finite number"),
        (["quickstart", "--vary", "credit=grpo,grpo"], "two arms are called 'grpo'"),
        (["quickstart", "--vary", "seed=1,2"], "sets seed, which all arms of a study share"),
        (["quickstart", "--arm", "credit=grpo"], 'expected "NAME: SETTING=VALUE'),
        (["quickstart", "--arm", "a: credit"], "expected SETTING=VALUE"),
        (["quickstart", "--arm", "a: learning_rate=2*grpo"], "whose learning rate 'a' multiplies"),
        (["quickstart", "--arm", "a: learning_rate=1e*b"], "takes '1e' times a rate"),
        (["quickstart", "--vary", "credit=pure,grpo"], "arm 'pure': credit 'pure' needs the column 'reward/prm'"),
        (["quickstart", "--vary", "credit=grpo,nothing"], "unknown credit method 'nothing'"),
        (["quickstart", "--vary", "credit=grpo", "--sedes", "3"], "unknown setting of apportion study '--sedes'"),
        (["quickstart", "--vary", "credit=grpo", "--tune-learning-rate", "2"], "one factor 2.0"),
        (["quickstart", "--vary", "credit=grpo"], "the study has the one arm 'grpo', expected at least two"),
        (["quickstart", "--arm", "mine: credit=grpo"], "the study has the one arm 'mine', expected at least two"),
        (["tabular", "--vary", "credit=grpo,tempo"], "eval_prompts is 0"),
        (["trees", "--write", "nowhere"], "cannot write into nowhere"),
        (["trees", "--step", "3"], "did you mean '--steps'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def read(*words: str) -> Study:
    return _study(cli.parse(cli.Arguments, words, "apportion study", cli.Arguments(config=quickstart())))


def test_arms_of_a_command_line() -> None:
    study = read("--vary", "credit=grpo,tempo(norm_by_std=False)", "--vary", "learning-rate=0.1,0.2", "--seeds", "3")
    assert [(arm.changes["credit"], arm.changes["learning_rate"]) for arm in study.arms] == [
        ("grpo", 0.1),
        ("grpo", 0.2),
        ("tempo(norm_by_std=False)", 0.1),
        ("tempo(norm_by_std=False)", 0.2),
    ]
    assert (study.seeds, study.base.threads, study.base.eval_every) == (3, 1, 15)
    assert read("--vary", "credit=grpo", "--eval-every", "7", "--steps", "9").base.eval_every == 7


def test_an_arm_of_several_settings() -> None:
    base = quickstart()
    text = "mine: credit=tree; sampling=branching(rule='uniform(rate=0.5)', roots=4); objective=clip + kl"
    assert _arm(text, base) == Arm(
        "mine",
        {
            "credit": "tree",
            "sampling": "branching(rule='uniform(rate=0.5)', roots=4)",
            "objective": ("clip", "kl"),
        },
    )
    assert _arm("twice: credit=grpo; learning_rate=2 * grpo", base) == Arm("twice", {"credit": "grpo"}, "grpo", 2.0)
    assert _arm("same: learning_rate=1e-3", base) == Arm("same", {"learning_rate": 1e-3})


def test_the_folder_stands_for_what_was_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked: list[Path] = []

    def noted(study: Study, path: Path, processes: int) -> dict:
        asked.append(path)
        raise cli.InputError("enough.")

    monkeypatch.setattr(cli, "carry_out", noted)
    commands = [
        ["quickstart", "--vary", "credit=grpo,tempo"],
        ["quickstart", "--vary", "credit=grpo,tempo", "--json"],
        ["quickstart", "--vary", "credit=grpo,tempo", "--processes", "1"],
        ["quickstart", "--vary", "credit=grpo,tempo", "--seeds", "6"],
        ["quickstart", "--vary", "credit=grpo,tempo", "--out", "mine"],
    ]
    for command in commands:
        assert main(["study", *command]) == 2
    assert asked[0] == asked[1] == asked[2] != asked[3]
    assert asked[0].parent == Path("studies")
    assert asked[0].name.startswith("quickstart-")
    assert asked[4] == Path("mine")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("seconds", "stand", "said"),
    [
        (60.0, Stand("runs", 5.0, 10, 0), "1:00 left"),
        (10.0, Stand("runs", 4.5, 10, 4), "1:50 left"),
        (1.0, Stand("runs", 1.0, 3663, 0), "1:01:02 left"),
        (1.0, Stand("runs", 4.0, 10, 4), "time left unknown"),
        (1.0, Stand("runs", 10.0, 10, 4), "0:00 left"),
    ],
)
def test_the_time_left_is_what_runs_took_here(seconds: float, stand: Stand, said: str) -> None:
    assert _left(seconds, stand) == said


def test_help_names_both_kinds_of_study(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    said = capsys.readouterr().out
    for option in ("--vary", "--arm", "--seeds", "--warm-starts", "--tune-learning-rate", "--optimizer", "--json"):
        assert option in said


def test_json_is_what_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cli, "carry_out", lambda study, path, processes: path.mkdir() or {"seeds": study.seeds})
    monkeypatch.setattr(cli, "draw", lambda found, path: path.write_text("drawn"))
    assert main(["study", "quickstart", "--vary", "credit=grpo,tempo", "--out", str(tmp_path / "s"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seeds": 5}
    assert (tmp_path / "s/study.svg").read_text() == "drawn"
