"""Runs whose credit comes from judges: they train, stop, and go on to the same end; what they lack is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apportion.errors import MissingColumn
from apportion.rollouts.store import RolloutStore
from apportion.training.config import TrainConfig
from apportion.training.setup import set_up
from runs import DIGITS, begin, metrics, resume, weights

WALK: dict[str, Any] = {"environment": "corridor", "max_new_tokens": 1}
ATTRIBUTION = "attribution(dimensions=('outcome',))"
SUMS = "('right_sums', 'length', 'form')"
RUNS: dict[str, dict[str, Any]] = {
    "edu_align": {
        "credit": f"edu_align(components={SUMS}, scale_within_group=True)",
        "annotators": (f"dimensions(dimensions={SUMS})",),
    },
    "calm": {"credit": "calm(ordered=True)", "annotators": ("subgoals",), **WALK},
    "sotopia_rl": {"credit": "sotopia_rl(dimensions=('outcome',))", "annotators": (ATTRIBUTION,), **WALK},
    "the reward model": {
        "credit": "apportion.credit.step_returns:step_relative(component='utterance_rm', gamma=0.0, norm_by_std=True)",
        "annotators": (ATTRIBUTION,),
        "learners": ("utterance_reward_model(dimensions=('outcome',))",),
        **WALK,
    },
}
SHOWN = {
    "edu_align": "episode:credit/reward/mixed",
    "calm": "response:credit/terminations",
    "sotopia_rl": "response:credit/attributed/outcome",
    "the reward model": "response:reward/utterance_rm",
}


@pytest.mark.parametrize("name", RUNS)
def test_it_trains_stops_and_goes_on_to_the_same_end(name: str, tmp_path: Path) -> None:
    config: TrainConfig = replace(DIGITS, learning_rate=0.01, **RUNS[name])
    begin(tmp_path / "whole", config)
    begin(tmp_path / "parts", replace(config, steps=2))
    resume(tmp_path / "parts", steps=4)
    assert weights(tmp_path / "parts", 4) == weights(tmp_path / "whole", 4) != weights(tmp_path / "whole", 0)
    assert all(line["unknown"] == 0 for line in metrics(tmp_path / "whole"))
    batches = [batch for _, batch in RolloutStore(tmp_path / "whole/rollouts")]
    assert any(batch.column(SHOWN[name]).double().std() > 0 for batch in batches)


@pytest.mark.parametrize(
    ("credit", "more", "column", "maker"),
    [
        ("edu_align", {}, "reward/helpfulness", r"--annotators dimensions\(judge=\.\.\."),
        ("calm", {}, "reward/step", "--environment"),
        ("calm", WALK, "reward/subgoals", r"--annotators subgoals\(judge=\.\.\."),
        ("sotopia_rl(dimensions=('outcome',))", WALK, "reward/attribution/outcome", r"--annotators attribution\(judge"),
        ("sotopia_rl(dimensions=('outcome',), method='singular')", WALK, "reward/key/outcome", "attribution"),
        (RUNS["the reward model"]["credit"], WALK, "reward/utterance_rm", "--learners utterance_reward_model"),
    ],
)
def test_what_is_lacking_is_named_before_anything_is_sampled(
    credit: str, more: dict[str, Any], column: str, maker: str
) -> None:
    with pytest.raises(MissingColumn, match=f"'{column}', which these rollouts lack: .*{maker}"):
        set_up(replace(DIGITS, credit=credit, **more))
