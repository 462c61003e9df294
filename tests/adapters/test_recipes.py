"""The ten-line recipes of docs/borrow.md, as they are written there: inside the package where it can be installed, on
stand-ins with the fields its source reads where it cannot."""

from __future__ import annotations

import importlib.util
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from apportion import credit
from apportion.adapters.offers import Offer, borrow
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from test_docs import ROOT, blocks

IDS = [[5, 7, 2], [5, 7, 9, 2], [5, 8, 2], [4, 2], [4, 4, 2], [6]]
GROUPS = [0, 0, 0, 1, 1, 1]
REWARDS = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
PROMPTS = [[1, 2], [1, 2], [1, 2], [3], [3], [3]]

Recipe = Callable[..., Any]


def installed(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture
def recipe() -> Recipe:
    """The module that a block of the document makes, perhaps with another method in it."""

    def load(file: str, method: str | None = None) -> types.ModuleType:
        block = next(b for b in blocks(ROOT / "docs/borrow.md") if b.file == file)
        text = block.text
        if method is not None:
            first = text.index('borrow("') + len('borrow("')
            text = text[:first] + method + text[text.index('"', first) :]
        module = types.ModuleType(Path(file).stem)
        exec(compile(text, file, "exec"), module.__dict__)
        return module

    return load


def rows(values: torch.Tensor, lengths: list[int]) -> list[list[float]]:
    return [row.tolist() for row in values.split(lengths)]


def expected(method: str) -> list[list[float]]:
    group = Rollouts.from_lists(IDS, groups=GROUPS, rewards=REWARDS)
    return rows(credit.build(method)(group).advantages, [len(own) for own in IDS])


def close(given: list[list[float]], wanted: list[list[float]]) -> None:
    assert [len(row) for row in given] == [len(row) for row in wanted]
    assert [a for row in given for a in row] == pytest.approx([a for row in wanted for a in row], abs=1e-6)


# A method for others


def test_a_method_that_needs_more_than_is_offered_is_refused_at_once() -> None:
    bare = Offer("the hook", ("reward/outcome",), ids=False, clock=False, state=False)
    with pytest.raises(InputError, match="looks at which tokens were sampled"):
        borrow("tempo", bare)
    with pytest.raises(InputError, match="needs 'values/critic'"):
        borrow("gae", bare)


def test_tokens_taken_out_of_the_normaliser_are_refused() -> None:
    with_ids = Offer("the hook", ("reward/outcome", "response:truncated"), ids=True, clock=False, state=False)
    equal = Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 1.0])
    cut = equal.with_column("response:truncated", torch.tensor([True, False]))
    with pytest.raises(InputError, match="tokens out of the normaliser, which the hook makes of its own mask"):
        borrow("dapo", with_ids)(cut)


# SkyRL


@pytest.fixture
def skyrl(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its functions of advantages; on Python 3.11 it imports a name that pydantic does not take from there."""
    import typing_extensions

    if sys.version_info < (3, 12):
        monkeypatch.setattr(typing, "TypedDict", typing_extensions.TypedDict)
    from skyrl.backends.skyrl_train.utils import ppo_utils

    return ppo_utils


@pytest.mark.system
@installed("skyrl")
def test_skyrl_hands_our_advantages_on(skyrl: Any, recipe: Recipe) -> None:
    recipe("credit_for_skyrl.py")
    width = max(map(len, IDS)) + 2
    mask = torch.zeros(len(IDS), width)
    rewards = torch.zeros(len(IDS), width)
    for b, own in enumerate(IDS):
        mask[b, : len(own)] = 1
        rewards[b, len(own) - 1] = REWARDS[b]
    advantages, returns = skyrl.compute_advantages_and_returns(
        token_level_rewards=rewards,
        response_mask=mask,
        index=[f"prompt {g}" for g in GROUPS],
        adv_estimator="apportion",
        config=None,
    )
    assert advantages.shape == mask.shape
    assert torch.equal(advantages, returns)
    assert not advantages[mask == 0].any()
    close([advantages[b, : len(own)].tolist() for b, own in enumerate(IDS)], expected("rloo"))


@pytest.mark.system
@installed("skyrl")
def test_skyrl_cannot_carry_tempo(skyrl: Any, recipe: Recipe) -> None:
    with pytest.raises(InputError, match="tempo looks at which tokens were sampled, and SkyRL's hook hands no"):
        recipe("credit_for_skyrl.py", "tempo")


# Tinker


def assembled(turns: list[list[tuple[list[int], list[int], float]]], groups: list[int]) -> tuple[Any, Any, Any]:
    """What the cookbook makes of trajectories: (prompt, answer, reward) a turn."""
    import tinker
    from tinker_cookbook.completers import TokensWithLogprobs
    from tinker_cookbook.rl.data_processing import assemble_training_data, compute_advantages
    from tinker_cookbook.rl.types import Trajectory, TrajectoryGroup, Transition

    def trajectory(own: list[tuple[list[int], list[int], float]]) -> Any:
        made = [
            Transition(
                ob=tinker.ModelInput.from_ints(prompt),
                ac=TokensWithLogprobs(tokens=answer, maybe_logprobs=[-1.0] * len(answer)),
                reward=reward,
                episode_done=turn == len(own) - 1,
            )
            for turn, (prompt, answer, reward) in enumerate(own)
        ]
        return Trajectory(transitions=made, final_ob=tinker.ModelInput.from_ints([0]))

    trajectory_groups = []
    for g in dict.fromkeys(groups):
        members = [trajectory(own) for own, group in zip(turns, groups, strict=True) if group == g]
        trajectory_groups.append(TrajectoryGroup(members, [0.0] * len(members), [{} for _ in members]))
    data, metadata = assemble_training_data(trajectory_groups, compute_advantages(trajectory_groups))
    return data, metadata, trajectory_groups


@pytest.mark.system
@installed("tinker_cookbook")
def test_tinker_s_data_hold_our_advantages_and_nothing_else_changes(recipe: Recipe) -> None:
    turns = [[(p, i, r)] for p, i, r in zip(PROMPTS, IDS, REWARDS, strict=True)]
    data, metadata, trajectory_groups = assembled(turns, GROUPS)
    made = recipe("credit_for_tinker.py").with_credit(data, metadata, trajectory_groups)
    given = []
    for before, after in zip(data, made, strict=True):
        inputs = {name: value.to_torch() for name, value in after.loss_fn_inputs.items()}
        mask = inputs["mask"].bool()
        assert not inputs["advantages"][~mask].any()
        assert inputs["advantages"].shape == before.loss_fn_inputs["advantages"].to_torch().shape
        given.append(inputs["advantages"][mask].tolist())
        for name in ("target_tokens", "logprobs", "mask"):
            assert torch.equal(inputs[name], before.loss_fn_inputs[name].to_torch())
        assert after.model_input == before.model_input
    close(given, expected("tempo"))


@pytest.mark.system
@installed("tinker_cookbook")
def test_tinker_s_turns_of_one_trajectory_are_one_episode(recipe: Recipe) -> None:
    """The first's second turn begins with another prompt, so that it is a datum of its own."""
    turns = [[([1], [5, 6], 0.0), ([2], [7], 1.0)], [([1], [5, 8], 0.0)]]
    data, metadata, trajectory_groups = assembled(turns, [0, 0])
    assert len(data) == 3
    made = recipe("credit_for_tinker.py").with_credit(data, metadata, trajectory_groups)
    group = Rollouts.from_lists(
        [[5, 6], [7], [5, 8]], groups=[0, 0, 0], episodes=[0, 0, 1], rewards=[1.0, 0.0], prompts=[[1], [2], [1]]
    )
    given = [d.loss_fn_inputs["advantages"].to_torch() for d in made]
    masks = [d.loss_fn_inputs["mask"].to_torch().bool() for d in made]
    wanted = rows(credit.METHODS["tempo"]()(group).advantages, [2, 1, 2])
    close([row[mask].tolist() for row, mask in zip(given, masks, strict=True)], wanted)


# rLLM and slime, which the package index does not have


@pytest.fixture
def rllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    """In place of rLLM, its decorator; gives what was registered."""
    registered: dict[str, Recipe] = {}

    def register_adv_estimator(name: str) -> Callable[[Recipe], Recipe]:
        return lambda function: registered.setdefault(name, function)

    for name in ("rllm", "rllm.trainer", "rllm.trainer.algorithms", "rllm.trainer.algorithms.advantage"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = sys.modules["rllm.trainer.algorithms.advantage"]
    monkeypatch.setattr(module, "register_adv_estimator", register_adv_estimator, raising=False)
    return registered


def test_rllm_s_steps_get_our_advantages(rllm: dict[str, Recipe], recipe: Recipe) -> None:
    recipe("credit_for_rllm.py")
    estimate: Any = rllm["apportion"]
    steps = [SimpleNamespace(prompt_ids=p, response_ids=i, advantage=None) for p, i in zip(PROMPTS, IDS, strict=True)]
    groups = [
        SimpleNamespace(
            trajectories=[SimpleNamespace(steps=[s]) for s, own in zip(steps, GROUPS, strict=True) if own == g]
        )
        for g in (0, 1)
    ]
    estimate(rewards=[torch.tensor(REWARDS[:3]), torch.tensor(REWARDS[3:])], algorithm_config=None, traj_groups=groups)
    assert estimate.writes_step_advantages
    close([step.advantage for step in steps], expected("tempo"))


def slime_data() -> dict[str, Any]:
    return {
        "tokens": [torch.tensor(p + i) for p, i in zip(PROMPTS, IDS, strict=True)],
        "response_lengths": [len(own) for own in IDS],
        "loss_masks": [torch.ones(len(own), dtype=torch.int) for own in IDS],
        "rewards": list(REWARDS),
        "kl": [torch.zeros(len(own)) for own in IDS],
    }


def test_slime_s_rollout_data_get_our_advantages(recipe: Recipe) -> None:
    data = slime_data()
    recipe("credit_for_slime.py").estimate(SimpleNamespace(n_samples_per_prompt=3), data)
    close([row.tolist() for row in data["advantages"]], expected("tempo"))
    assert data["returns"] is data["advantages"]


def test_slime_s_untrained_tokens_get_none(recipe: Recipe) -> None:
    data = slime_data()
    data["loss_masks"][1][1] = 0
    recipe("credit_for_slime.py").estimate(SimpleNamespace(n_samples_per_prompt=3), data)
    assert float(data["advantages"][1][1]) == 0
    assert bool((data["advantages"][1][[0, 2, 3]] != 0).all())


def test_parts_of_groups_and_of_responses_are_refused(recipe: Recipe) -> None:
    module, data = recipe("credit_for_slime.py"), slime_data()
    with pytest.raises(InputError, match="holds part of a group"):
        module.estimate(SimpleNamespace(n_samples_per_prompt=4), data)
    data["kl"][0] = data["kl"][0][:1]
    with pytest.raises(InputError, match="holds part of a response"):
        module.estimate(SimpleNamespace(n_samples_per_prompt=3), data)
    assert "advantages" not in data
