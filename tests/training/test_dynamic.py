"""Dynamic sampling: which groups are kept, what is said of the others, and a run that uses it, resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from apportion.rollouts import Rollouts
from apportion.rollouts.store import RolloutStore
from apportion.training.config import TrainConfig
from apportion.training.dynamic import contrasting, draw_contrasting
from apportion.training.loop import Event
from runs import DIGITS, TABULAR, begin, metrics, resume, weights

CONFIG = dataclasses.replace(TABULAR, resample=3, group_size=4, credit="dapo", steps=6)
"""One digit in ten is right, so most groups of four are all wrong."""


NET = dataclasses.replace(DIGITS, resample=2, group_size=2, max_new_tokens=1)
"""Pairs of single letters, which are both even digits, or neither, about as often as not."""


def scored(groups: list[list[float | None]], first: int = 0) -> Rollouts:
    """A group for every list of rewards; every response is as long as its group's number."""
    rows = [(first + g, reward) for g, rewards in enumerate(groups) for reward in rewards]
    return Rollouts.from_lists(
        [[0] * g for g, _ in rows], groups=[g for g, _ in rows], rewards=[reward for _, reward in rows]
    )


def test_a_contrast_is_between_known_rewards() -> None:
    groups = [[1.0, 0.0], [1.0, 1.0], [1.0, None], [None, None], [0.5, None, 0.25], [0.0]]
    assert contrasting(scored(groups)).tolist() == [True, False, False, False, True, False]


def test_rounds_until_there_are_enough() -> None:
    rounds = [[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0]] * 2]
    asked = []

    def draw(number: int) -> Rollouts:
        asked.append(number)
        return scored(rounds[number], first=2 * number)

    kept, said = draw_contrasting(draw, groups=2, rounds=9)
    assert asked == [0, 1, 2]
    assert kept.group_ids.tolist() == [1, 1, 4, 4]
    assert said == {"sampling_rounds": 3.0, "groups_discarded": 4.0, "tokens_discarded": 2.0 * (0 + 2 + 3 + 5)}


def test_enough_at_once_is_the_first_round_as_it_is() -> None:
    first = scored([[1.0, 0.0], [0.0, 1.0]])
    kept, said = draw_contrasting(lambda number: first, groups=2, rounds=4)
    assert torch.equal(kept.ids, first.ids)
    assert torch.equal(kept.group_ids, first.group_ids)
    assert said == {"sampling_rounds": 1.0, "groups_discarded": 0.0, "tokens_discarded": 0.0}


def test_what_is_missing_at_the_cap_is_filled_with_the_first_of_the_others() -> None:
    rounds = [[[1.0, 1.0], [None, None], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]]
    kept, said = draw_contrasting(lambda number: scored(rounds[number], first=3 * number), groups=3, rounds=2)
    assert kept.group_ids.tolist() == [0, 0, 1, 1, 4, 4]
    assert said["sampling_rounds"] == 2.0
    assert said["groups_discarded"] == 3.0


def test_a_run_trains_on_groups_that_differ(tmp_path: Path) -> None:
    begin(tmp_path / "plain", dataclasses.replace(CONFIG, resample=0))
    begin(tmp_path / "run", CONFIG)
    plain, lines = metrics(tmp_path / "plain"), metrics(tmp_path / "run")
    assert not any("sampling_rounds" in line for line in plain)
    assert all(1 <= line["sampling_rounds"] <= 4 for line in lines)
    assert sum(line["groups_mixed"] for line in lines) > sum(line["groups_mixed"] for line in plain)
    short = [line for line in lines if line["sampling_rounds"] < 4]
    assert short
    assert all(line["groups_mixed"] == 1.0 for line in short)
    seen = set()
    for _, rollouts in RolloutStore(tmp_path / "run" / "rollouts"):
        assert rollouts.n_groups == CONFIG.prompts_per_step
        ids = set(rollouts.group_ids.tolist())
        assert not seen & ids
        seen |= ids
    discarded = sum(line["groups_discarded"] for line in lines)
    drawn = sum(line["sampling_rounds"] for line in lines) * CONFIG.prompts_per_step
    assert discarded == drawn - len(seen)
    assert all(line["tokens_discarded"] == 4 * line["groups_discarded"] for line in lines)


def test_every_round_draws_anew(tmp_path: Path) -> None:
    """Of one prompt again and again: were the draws the same, all rounds would differ or none."""
    one = {"model": "tabular(vocabulary=10, depth=1)", "tasks": ("apportion.recipes.tabular:echo(numbers=1)",)}
    begin(tmp_path / "run", dataclasses.replace(CONFIG, **one, prompts_per_step=1, resample=30, learning_rate=0.01))
    assert any(1 < line["sampling_rounds"] < 31 for line in metrics(tmp_path / "run"))


@pytest.mark.parametrize("config", [CONFIG, NET], ids=["table", "net"])
@pytest.mark.parametrize("point", ["sampled", "updated", "stored"])
def test_a_run_broken_off_and_resumed_ends_like_one_that_was_not(
    config: TrainConfig, point: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, steps=5, save_every=2)

    def strike(event: Event) -> None:
        if event.name == point and event.step == 3:
            raise KeyboardInterrupt

    begin(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "broken", config, [strike])
    resume(tmp_path / "broken")
    assert weights(tmp_path / "broken", 5) == weights(tmp_path / "whole", 5)
    clocks = {"seconds", "step_seconds", "tokens_per_second"}
    ours, theirs = (
        [{k: v for k, v in line.items() if k not in clocks} for line in metrics(tmp_path / name)]
        for name in ("broken", "whole")
    )
    assert ours == theirs
    assert any(line["sampling_rounds"] > 1 for line in theirs)
    for (_, one), (_, other) in zip(
        *(RolloutStore(tmp_path / name / "rollouts") for name in ("broken", "whole")), strict=True
    ):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.group_ids, other.group_ids)
