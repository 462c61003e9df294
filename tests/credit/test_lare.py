"""What is LaRe's own: which decisions are compared, and with what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from apportion.credit import METHODS, Claim
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.columns import with_scores
from credit.latents import lare as naive
from credit.worlds import Flat


def proxied(rows: list[list[float]], groups: list[int], trained: list[list[int]] | None = None) -> Rollouts:
    """Episodes whose every token is a step with such a proxy reward."""
    rollouts = Rollouts.from_lists([range(len(row)) for row in rows], groups=groups, trained=trained)
    tokens = torch.arange(rollouts.n_tokens)
    values = torch.tensor([x for row in rows for x in row], dtype=torch.float64)
    return rollouts.with_spans("step", tokens, tokens + 1).with_reward("proxy", values, level="step")


def test_by_hand() -> None:
    credit = METHODS["lare"](gamma=0.5)(proxied([[1.0, 2.0], [0.0, 4.0], [8.0]], [0, 0, 0]))
    assert credit.columns["step:credit/step_returns"].tensor.tolist() == [2.0, 2.0, 2.0, 4.0, 8.0]
    # Others at the first place: (2 + 8)/2, (2 + 8)/2, (2 + 2)/2; at the second only the other of two.
    assert credit.advantages.tolist() == [-3.0, -2.0, -3.0, 2.0, 6.0]


def test_over_the_batch_equals_the_naive_loop() -> None:
    world = Flat([[0, 1, 0], [1, 1], [0]], [0, 4, 4], [0.0] * 3, [[True, True, False], [True, True], [True]])
    stage = METHODS["lare"](component="prm", baseline="batch", gamma=0.5)
    assert not stage.compares_groups
    expected = torch.tensor([a for row in naive(0.5, "batch")(world) for a in row], dtype=torch.float64)
    close(stage(with_scores(world.rollouts())).advantages, expected)


def test_steps_and_turns_are_different_decisions() -> None:
    turns = Rollouts.from_lists([[1, 2], [3], [4]], groups=[0, 0, 0], episodes=[0, 0, 1])
    turns = turns.with_reward("proxy", torch.tensor([1.0, 2.0, 0.5]), level="response")
    assert METHODS["lare"](level="response")(turns).advantages.tolist() == [2.5, 2.5, 2.0, -2.5]
    with pytest.raises(InputError, match="no spans of kind 'step': an annotator, such as steps, makes them"):
        METHODS["lare"]()(turns)


def test_what_is_claimed() -> None:
    for baseline in ("group", "batch"):
        assert METHODS["lare"](baseline=baseline).bias.claim == Claim.BIASED


def test_who_makes_the_proxies() -> None:
    with pytest.raises(MissingColumn, match=r"'reward/proxy'.*--annotators latent_reward --learners return_decoder"):
        METHODS["lare"]()(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"baseline": "value"}, "unknown baseline 'value'"),
        ({"gamma": 1.5}, "gamma is 1.5, expected 0 to 1"),
        ({"singleton": "none"}, "singleton is 'none'"),
        ({"eps": -1.0}, "eps is -1.0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["lare"](**settings)


def test_one_token_cannot_be_whitened() -> None:
    with pytest.raises(InputError, match="got 1 trained tokens to whiten"):
        METHODS["lare"](baseline="batch")(proxied([[1.0]], [0]))
