"""Methods with models and multipliers of their own: each trains, is killed, resumes, and ends as if it had not been."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apportion.cli.main import main
from apportion.rollouts.store import RolloutStore
from every_method import BASE, outcome
from forked import begin, resume

HEADS = ("outcome", "prm", "kl")
CONSTRAINED: dict[str, Any] = {
    "credit": "constrained_rlhf(components=('outcome', 'prm'), thresholds=(0.4, 1.0), lagrange_lr=1.0)",
    "learners": tuple(f"critic(head='{head}', returns='returns/{head}')" for head in HEADS),
    "annotators": ("partial_sums",),
    "max_unscored": 1.0,
    "epochs": 2,
}
DRAWN = "return_decoder(loss='rrd_unbiased', sampled_steps=3, hidden=8, epochs=3)"
RUNS: dict[str, dict[str, Any]] = {
    "constrained_rlhf": CONSTRAINED,
    "lare": {"credit": "lare", "annotators": ("latent_reward(each_token=True)",), "learners": (DRAWN,)},
    "lare_after": {
        "credit": "lare(baseline='batch')",
        "annotators": ("latent_reward(each_token=True, judge='running_sum_author', file={file!r}, task='Add.')",),
        "learners": ("return_decoder(order='after', hidden=8)",),
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_trains_is_killed_and_resumes_to_the_same_end(name: str, tmp_path: Path) -> None:
    settings = dict(RUNS[name])
    settings["annotators"] = tuple(a.format(file=str(tmp_path / "factors.py")) for a in settings["annotators"])
    config = replace(BASE, **settings)
    assert begin(tmp_path / "whole", config) == 0
    assert begin(tmp_path / "broken", config, kill_at=("updated", 3)) == -signal.SIGKILL
    assert resume(tmp_path / "broken") == 0
    whole, broken = outcome(tmp_path / "whole"), outcome(tmp_path / "broken")
    for part in whole:
        assert broken[part] == whole[part], part
    assert len(whole["metrics"]) == 5
    first = {
        str(p.relative_to(tmp_path / "whole/checkpoints/step_000000")): p.read_bytes()
        for p in (tmp_path / "whole/checkpoints/step_000000").rglob("*.safetensors")
    }
    assert first.keys() == whole["weights"].keys()
    for path, weights in whole["weights"].items():
        assert weights != first[path], path  # everything learned something


def test_multipliers_move_from_step_to_step(tmp_path: Path) -> None:
    assert begin(tmp_path / "run", replace(BASE, steps=3, **CONSTRAINED)) == 0
    seen = [
        r.columns["episode:credit/multipliers"].tensor[0].tolist() for _, r in RolloutStore(tmp_path / "run/rollouts")
    ]
    assert seen[0] == [0.5, 0.5]
    assert len({tuple(row) for row in seen}) == 3


@pytest.mark.parametrize(
    ("words", "column", "maker"),
    [
        (["--credit", "constrained_rlhf"], "values/outcome", "critic(head='kl', returns='returns/kl')"),
        (["--credit", "lare"], "reward/proxy", "--annotators latent_reward --learners return_decoder"),
        (["--credit", "lare", "--learners", "return_decoder"], "step:latent", "--annotators latent_reward"),
        (["--credit", "gae", "--learners", "critic(returns='returns/critic')"], "credit/returns/critic", "constrained"),
        (["--objective", "return_decomposition(loss='rrd')"], "step:drawn", "return_decoder"),
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
