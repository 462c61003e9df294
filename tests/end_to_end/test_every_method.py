"""Every registered method trains, is killed, resumes, and ends as if it had not been, or says what it lacks."""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apportion.cli.main import main
from apportion.recipes.methods import addition
from apportion.rollouts.store import RolloutStore
from every_method import BASE, EVERY, configuration, killed_and_resumed, make_files, outcome, refusal
from forked import begin, resume

AT_REST = {("credit", "none"), ("objective", "imitation")}
"""With these alone there is nothing to learn from."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    make_files(folder, BASE)
    return folder


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_trains_is_killed_and_resumes_to_the_same_end(kind: str, name: str, files: Path, tmp_path: Path) -> None:
    whole = killed_and_resumed(configuration(kind, name, BASE, files), tmp_path)
    first = {p.name: p.read_bytes() for p in (tmp_path / "whole/checkpoints/step_000000").rglob("*.safetensors")}
    if (kind, name) not in AT_REST:
        assert first["model.safetensors"] != whole["weights"]["model/model.safetensors"]  # it did learn something
    for path, weights in whole["weights"].items():
        if path.startswith("learners/"):
            assert weights != (tmp_path / "whole/checkpoints/step_000000" / path).read_bytes(), path


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_bare_name_trains_or_is_refused_with_what_to_add(kind: str, name: str) -> None:
    said = refusal(kind, name, BASE)
    added = addition(kind, name)
    if not (added.settings or added.specs):
        assert said is None
    elif said is not None:
        lacks = r"needs the column '[^']+', which these rollouts lack: .+ --|compares branches, .+: add --sampling"
        assert re.search(f"{lacks}|expected", said), said


@pytest.mark.parametrize(
    ("words", "column", "maker"),
    [
        (["--credit", "gae"], "values/critic", "--learners critic"),
        (["--credit", "pure"], "reward/prm", "--annotators partial_sums"),
        (["--credit", "gigpo"], "reward/step", "--environment"),
        (["--credit", "oprl"], "log_probs/prm", "--learners implicit_prm"),
        (["--credit", "attention_rhythm"], "waad/old", "--annotators attention_rhythm"),
        (["--objective", "value"], "values/critic", "--learners critic"),
    ],
)
def test_the_quickstart_refuses_what_it_cannot_make(
    words: list[str], column: str, maker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "quickstart", "--run", str(tmp_path / "run"), *words]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert column in message
    assert maker in message
    assert not (tmp_path / "run").exists()


STATEFUL = '''
import torch
from apportion.credit import Bias, Claim, Result, estimator


def moving():
    """Reward minus a moving average of rewards, annealed over training: remembers, and reads the clock."""

    @estimator(
        needs=("reward/outcome",),
        bias=Bias(Claim.EXACT_UP_TO_SCALE, "annealed"),
        init=lambda: {"average": torch.zeros((), dtype=torch.float64)},
        reads_clock=True,
    )
    def credit(work, state, clock):
        reward = work.up("outcome")
        average = 0.5 * state["average"] + 0.5 * reward.mean()
        share = 1 - clock.step / clock.total_steps
        return Result(work.spread((reward - average) * share), state={"average": average})

    return credit
'''


def test_the_state_of_a_method_and_the_clock_survive_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Path
) -> None:
    (tmp_path / "stateful_credit.py").write_text(STATEFUL)
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(BASE, credit="stateful_credit:moving")
    assert begin(tmp_path / "whole", config) == 0
    assert begin(tmp_path / "broken", config, kill_at=("stored", 3)) == -signal.SIGKILL
    assert resume(tmp_path / "broken") == 0
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")
    # Forgetting the average would show: without it the first step after the kill has another baseline.
    step = RolloutStore(tmp_path / "whole/rollouts").read(4)
    reward = step.column("episode:reward/outcome").double()
    forgotten = (reward - 0.5 * reward.mean())[step.episode_of_token] * (1 - 3 / 5)
    assert not bool(torch.allclose(step.column("credit/advantages").double(), forgotten))


def test_a_learner_cloned_from_the_policy_begins_after_the_warm_start(tmp_path: Path) -> None:
    assert begin(tmp_path / "run", replace(BASE, learners=("implicit_prm",), steps=1)) == 0
    first = tmp_path / "run/checkpoints/step_000000"
    assert (first / "learners/prm/model.safetensors").read_bytes() == (first / "model/model.safetensors").read_bytes()
