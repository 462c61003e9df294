"""The nine methods that break frames: each trains, is killed, resumes, and ends as if it had not been."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.cli.main import main
from apportion.rollouts.store import RolloutStore
from apportion.training.config import TrainConfig
from forked import begin, resume

BASE = TrainConfig(
    model="digits(hidden=16, layers=2, heads=2)",
    tasks=("running_sum(digits=3, train=200, held_out=20)",),
    warm_start="imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=30, decay=10, batch=32)",
    prompts_per_step=2,
    group_size=4,
    max_new_tokens=4,
    steps=5,
    eval_prompts=0,
    save_every=2,
    threads=1,
    seed=11,
)
AGENT: dict[str, Any] = {
    "environment": "corridor(length=3, limit=4)",
    "warm_start": None,
    "max_new_tokens": 1,
    "group_size": 6,
}
NINE: dict[str, dict[str, Any]] = {
    "gae": {"credit": "gae(kl_coefficient=0.01)", "learners": ("critic",), "epochs": 2},
    "dph_rl": {"objective": ("dph_rl",), "rollouts": "rehearse.jsonl", "rollouts_per_step": 2},
    "rover": {"credit": "grpo(norm_by_std=False, singleton='raw')", "objective": ("rover",), "epochs": 2},
    "pacs": {"credit": "none(component='outcome')", "objective": ("pacs",), "epochs": 2},
    "token_dpo": {
        "credit": "token_dpo",
        "objective": ("dpo",),
        "rollouts": "pairs.jsonl",
        "rollouts_per_step": 2,
        "prompts_per_step": 0,
    },
    "pure": {"credit": "pure", "annotators": ("partial_sums",), "max_unscored": 1.0},
    "gigpo": {"credit": "gigpo", **AGENT},
    "oprl": {"credit": "oprl", "learners": ("implicit_prm(learning_rate=1e-3)",), **AGENT},
    "attention_rhythm": {
        "credit": "attention_rhythm(window=2, fai_low=1, fai_high=3)",
        "annotators": ("attention_rhythm(window=2, fai_low=1, fai_high=3)",),
    },
}
CLOCK = {"seconds", "step_seconds", "tokens_per_second"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rehearsal set and preference pairs, made from a short run as a user would."""
    folder = tmp_path_factory.mktemp("stored")
    assert begin(folder / "run", replace(BASE, steps=1)) == 0
    for name, flag in (("rehearse", "--only-right"), ("pairs", "--pairs")):
        words = ["rollout", str(folder / "run"), "--out", str(folder / f"{name}.jsonl"), flag, "--reference"]
        assert main([*words, "--prompts", "12", "--group-size", "8"]) == 0
    return folder


def configuration(name: str, files: Path) -> TrainConfig:
    changes = dict(NINE[name])
    if "rollouts" in changes:
        changes["rollouts"] = str(files / changes["rollouts"])
    return replace(BASE, **changes)


def outcome(folder: Path) -> dict[str, Any]:
    checkpoint = folder / "checkpoints/step_000005"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": {str(p.relative_to(checkpoint)): p.read_bytes() for p in checkpoint.rglob("*.safetensors")},
        "metrics": [{k: repr(v) for k, v in line.items() if k not in CLOCK} for line in lines],
        "rollouts": {
            step: (r.ids.tolist(), r.column("credit/advantages").tolist())
            for step, r in RolloutStore(folder / "rollouts")
        },
    }


@pytest.mark.parametrize("name", NINE)
def test_trains_is_killed_and_resumes_to_the_same_end(name: str, files: Path, tmp_path: Path) -> None:
    config = configuration(name, files)
    assert begin(tmp_path / "whole", config) == 0
    assert begin(tmp_path / "broken", config, kill_at=("updated", 3)) == -signal.SIGKILL
    assert resume(tmp_path / "broken") == 0
    whole, broken = outcome(tmp_path / "whole"), outcome(tmp_path / "broken")
    for part in whole:
        assert broken[part] == whole[part], part
    assert len(whole["metrics"]) == 5
    first = {p.name: p.read_bytes() for p in (tmp_path / "whole/checkpoints/step_000000").rglob("*.safetensors")}
    assert first["model.safetensors"] != whole["weights"]["model/model.safetensors"]  # it did learn something
    for path, weights in whole["weights"].items():
        if path.startswith("learners/"):
            assert weights != (tmp_path / "whole/checkpoints/step_000000" / path).read_bytes(), path


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
