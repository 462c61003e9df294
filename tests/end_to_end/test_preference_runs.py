"""Runs on stored pairs: marks of the reference, filtered pairs, and a reward model beside the policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.cli.main import main
from apportion.rollouts.store import RolloutStore
from runs import DIGITS, begin, metrics, resume, weights

MARKS = "contrastive_marks(better='{answer}{prompt}', worse='={answer}={prompt}')"
PAIRED: dict[str, Any] = {"credit": "none", "prompts_per_step": 0, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Preferences among the answers of a model that has not learnt anything."""
    folder = tmp_path_factory.mktemp("pairs")
    begin(folder / "run", replace(DIGITS, steps=1))
    file = str(folder / "pairs.jsonl")
    words = ["rollout", str(folder / "run"), "--out", file, "--pairs", "--reference"]
    assert main([*words, "--prompts", "2", "--group-size", "6"]) == 0
    return file


@pytest.mark.parametrize(
    ("objective", "annotators"),
    [("t_reg", (MARKS,)), ("mm_dpo", ()), ("dpo", ("hidden_states", "ches", "ches_filter(keep_fraction=0.5)"))],
)
def test_it_trains_stops_and_goes_on_to_the_same_end(
    objective: str, annotators: tuple[str, ...], pairs: str, tmp_path: Path
) -> None:
    config = replace(DIGITS, objective=(objective,), annotators=annotators, rollouts=pairs, **PAIRED)
    begin(tmp_path / "whole", config)
    begin(tmp_path / "parts", replace(config, steps=2))
    resume(tmp_path / "parts", steps=4)
    assert weights(tmp_path / "parts", 4) == weights(tmp_path / "whole", 4) != weights(tmp_path / "whole", 0)
    losses = [line["loss"] for line in metrics(tmp_path / "whole")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("evaluator", ["reference", "old"])
def test_marks_are_those_of_the_evaluator(evaluator: str, pairs: str, tmp_path: Path) -> None:
    """The same two groups every step: the reference goes on saying of them what it said, the policy changes."""
    spec = MARKS.replace(")", f", evaluator='{evaluator}')")
    config = replace(DIGITS, objective=("t_reg",), annotators=(spec,), rollouts=pairs, **PAIRED)
    begin(tmp_path / "run", replace(config, steps=2))
    resume(tmp_path / "run", steps=4)
    store = RolloutStore(tmp_path / "run/rollouts")
    marked = []
    for step in (1, 4):
        rollouts = store.read(step)
        order = torch.argsort(rollouts.group_ids, stable=True)
        marked.append(rollouts.select(order).column("mark/contrastive"))
    assert marked[0].abs().max() > 1e-3
    assert torch.allclose(*marked, atol=1e-7) == (evaluator == "reference")


def test_the_filter_keeps_some_pairs_of_every_batch(pairs: str, tmp_path: Path) -> None:
    filtered = ("hidden_states", "ches", "ches_filter(keep_fraction=0.5)")
    config = replace(DIGITS, objective=("dpo",), annotators=filtered, rollouts=pairs, steps=1, **PAIRED)
    begin(tmp_path / "some", config)
    begin(tmp_path / "all", replace(config, annotators=("hidden_states", "ches")))
    some, every = (RolloutStore(tmp_path / name / "rollouts").read(1) for name in ("some", "all"))
    scores = every.column("pair:ches_length_normalised").sort().values
    kept = some.column("pair:ches_length_normalised").sort().values
    assert len(scores) > 1
    torch.testing.assert_close(kept, scores[: -(-len(scores) // 2)])


def test_a_reward_model_learns_from_pairs_what_the_policy_is_rewarded_by(pairs: str, tmp_path: Path) -> None:
    config = replace(
        *(DIGITS,),
        credit="grpo(component='rm')",
        learners=("reward_model(learning_rate=1e-2)",),
        rollouts=pairs,
        learning_rate=1e-5,
        steps=8,
        group_size=8,
    )
    begin(tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    assert lines[-1]["rm/loss"] < lines[0]["rm/loss"]
    assert lines[-1]["rm/pair_accuracy"] > 0.5
    last = RolloutStore(tmp_path / "run/rollouts").read(8)
    sampled = torch.tensor([origin == "policy" for origin in last.origin])
    reward = last.column("episode:reward/rm")
    assert reward[sampled].std() > 0
    advantages = last.column("credit/advantages")[last.token_offsets[:-1]]
    assert advantages[sampled].any()
    assert not advantages[~sampled].any()
    resumed = tmp_path / "parts"
    begin(resumed, replace(config, steps=4))
    resume(resumed, steps=8)
    file = "checkpoints/step_000008/learners/rm/model.safetensors"
    assert (resumed / file).read_bytes() == (tmp_path / "run" / file).read_bytes()


def test_the_quickstart_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, column, maker in (
        (["--objective", "t_reg"], "mark/contrastive", "--annotators contrastive_marks"),
        (["--objective", "mm_dpo"], "pair:margin", "apportion rollout --pairs"),
        (["--objective", "cad_rl"], "precision_weight", "--annotators precision_tokens"),
        (["--credit", "grpo(component='rm')"], "reward/rm", "--learners reward_model"),
    ):
        assert main(["train", "quickstart", "--run", str(tmp_path / "run"), *words]) == 2
        message = capsys.readouterr().err
        assert column in message
        assert maker in message
