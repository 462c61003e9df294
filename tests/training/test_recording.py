"""What a run is asked to record is stored, is right, and changes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from apportion import objectives
from apportion.errors import InputError
from apportion.rollouts import Rollouts, RolloutStore
from apportion.rollouts.store import read, write
from apportion.training.annotate import annotate
from apportion.training.config import TrainConfig
from apportion.training.loop import Event
from apportion.training.run_folder import RunFolder
from apportion.training.setup import make_policy, set_up
from runs import DIGITS, TABULAR, begin, resume, weights

RECORDED = dataclasses.replace(DIGITS, record=("entropy,top5", "after"), save_every=1, keep_checkpoints=9)


def stored(folder: Path) -> list[Rollouts]:
    return [rollouts for _, rollouts in RolloutStore(folder / "rollouts")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    begin(folder, RECORDED)
    return folder


def assert_alternatives(rollouts: Rollouts, k: int) -> None:
    """The likeliest tokens are in order, and the token drawn has its own log-prob among them."""
    own = rollouts.trained
    ids, chances = rollouts.column("top_ids/behaviour")[own], rollouts.column("top_log_probs/behaviour")[own]
    assert ids.shape == chances.shape == (int(own.sum()), k)
    assert ids.dtype == torch.int64
    assert bool((chances.diff(dim=1) <= 0).all())
    assert bool((chances.exp().sum(1) <= 1 + 1e-6).all())
    drawn, log_probs = rollouts.ids[own], rollouts.column("log_probs/behaviour")[own]
    among = ids == drawn[:, None]
    assert bool(among.any())
    assert torch.equal(chances[among], log_probs[among.any(1)])
    unlikely = ~among.any(1)
    assert bool((log_probs[unlikely] <= chances[unlikely, -1]).all())


def test_the_likeliest_tokens_at_sampling(run: Path) -> None:
    for rollouts in stored(run):
        assert_alternatives(rollouts, 5)


def test_log_probs_after_the_update_are_those_of_the_next_checkpoint(run: Path) -> None:
    _, config = RunFolder.open(run)
    policy = make_policy(config, objectives.build(*config.objective))
    moved = 0.0
    for step, rollouts in RolloutStore(run / "rollouts"):
        policy.load_weights(run / f"checkpoints/step_{step:06d}/model")
        again = annotate(rollouts, {"now": policy}, {"now": ["log_probs"]}, config.micro_batch_tokens)
        torch.testing.assert_close(again.column("log_probs/now"), rollouts.column("log_probs/after"), atol=1e-5, rtol=0)
        moved = max(moved, float((rollouts.column("log_probs/after") - rollouts.column("log_probs/old")).abs().max()))
    assert moved > 1e-3


def test_recording_changes_nothing_else(run: Path, tmp_path: Path) -> None:
    begin(tmp_path / "plain", dataclasses.replace(RECORDED, record=()))
    assert weights(tmp_path / "plain", 4) == weights(run, 4)
    for ours, theirs in zip(stored(tmp_path / "plain"), stored(run), strict=True):
        extra = theirs.columns.keys() - ours.columns.keys()
        assert extra == {
            f"token:{name}"
            for name in ("entropy/old", "top_ids/behaviour", "top_log_probs/behaviour", "log_probs/after")
        }
        assert torch.equal(ours.ids, theirs.ids)


@pytest.mark.parametrize("point", ["sampled", "updated", "stored"])
def test_a_run_that_broke_ends_with_the_same_records(run: Path, tmp_path: Path, point: str) -> None:
    def break_off(event: Event) -> None:
        if event.name == point and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "run", RECORDED, [break_off])
    resume(tmp_path / "run")
    for step in range(1, 5):
        name = f"rollouts/step_{step:06d}.arrow"
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()
    assert weights(tmp_path / "run", 4) == weights(run, 4)


@pytest.mark.parametrize(
    "changed",
    [
        {"sampling": "branching"},
        {"sampling": "cure", "group_size": 8},
        {"environment": "corridor(length=3, limit=4)", "max_new_tokens": 1},
    ],
)
def test_every_sampler_that_keeps_probabilities_keeps_them(changed: dict[str, object], tmp_path: Path) -> None:
    config = dataclasses.replace(DIGITS, record=("top3", "after"), steps=1, verifier=None)
    if "environment" in changed:
        config = dataclasses.replace(config, tasks=TrainConfig.tasks)
    begin(tmp_path / "run", dataclasses.replace(config, **changed))  # type: ignore[arg-type]
    assert_alternatives(stored(tmp_path / "run")[0], 3)


def test_a_vocabulary_of_fewer_tokens_has_fewer_alternatives(tmp_path: Path) -> None:
    begin(tmp_path / "run", dataclasses.replace(TABULAR, record=("top20",), steps=1))
    rollouts = stored(tmp_path / "run")[0]
    assert_alternatives(rollouts, 10)
    assert rollouts.column("top_log_probs/behaviour").exp().sum(1).allclose(torch.ones(()).double(), atol=1e-5)


def test_records_go_through_both_kinds_of_file(run: Path, tmp_path: Path) -> None:
    rollouts = stored(run)[0]
    for ending in ("jsonl", "arrow"):
        write(rollouts, tmp_path / f"rollouts.{ending}")
        again = read(tmp_path / f"rollouts.{ending}")
        for name in ("top_ids/behaviour", "top_log_probs/behaviour", "log_probs/after"):
            assert torch.equal(again.column(name), rollouts.column(name))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"record": ("top5,surprise",)}, "unknown policy statistic 'surprise'"),
        ({"record": ("top5", "top3")}, "expected each kind of statistic once"),
        ({"record": ("top0",)}, "unknown policy statistic 'top0'"),
        ({"record": ("top5",), "sampling": "search(steps='partial_sums')"}, "keeps no probabilities of other tokens"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_the_run(changed: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        set_up(dataclasses.replace(DIGITS, **changed))  # type: ignore[arg-type]
