"""One learner on a table: it takes the trainer's path, and what is enumerated is exact."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch

import runs
from apportion.credit import Clock, Result, Work, estimator
from apportion.errors import InputError
from apportion.evals.calibration.worlds import WORLDS
from apportion.models.tabular import TabularPolicy
from apportion.recipes.tabular import tabular
from apportion.rollouts import Rollouts
from apportion.rollouts.store import RolloutStore
from apportion.studies.tabular import (
    Trained,
    every_response,
    expected,
    gradient,
    probabilities,
    rewarded,
    sample,
    update,
)
from apportion.training.run_folder import RunFolder

WORTH = {(0, 0): 0.2, (0, 1): 0.9, (1, 0): 0.0, (1, 1): 0.5}


def worth(prompt: int, tokens: tuple[int, ...]) -> float:
    return WORTH[tokens[:2]] if len(tokens) == 2 else 0.1


def tilted(**settings: int) -> TabularPolicy:
    policy = TabularPolicy(2, 2, **settings)
    with torch.no_grad():
        policy.logits += torch.linspace(-1, 1, policy.logits.numel(), dtype=torch.float64).reshape(policy.logits.shape)
    return policy


def expected_update(method: str) -> torch.Tensor:
    """How one step moves the logits, summed over every group of two with its probability."""
    start = tilted()
    rows, likely = list(WORTH), probabilities(start, every_response(start, worth)).tolist()
    moved = torch.zeros_like(start.logits)
    for pair in itertools.product(range(4), repeat=2):
        group = Rollouts.from_lists([rows[i] for i in pair], groups=[0, 0], prompts=[[0], [0]])
        policy = start.clone()
        aggregated = "reinforce(aggregate='seq_mean_token_sum')"
        Trained(policy, method, aggregated, learning_rate=1.0).step(rewarded(group, worth))
        moved += likely[pair[0]] * likely[pair[1]] * (policy.logits - start.logits)
    return moved.detach()


def test_the_mean_update_by_leave_one_out_is_the_exact_gradient() -> None:
    policy = tilted()
    exact = gradient(policy, every_response(policy, worth))
    torch.testing.assert_close(expected_update("rloo"), exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(expected_update("dr_grpo"), exact / 2, rtol=0, atol=1e-12)
    assert float(torch.cosine_similarity(expected_update("grpo").flatten(), exact.flatten(), dim=0)) < 0.999


def test_the_exact_gradient_is_the_slope_of_the_expected_reward() -> None:
    policy = tilted(prompts=2)
    responses = every_response(policy, lambda prompt, tokens: worth(prompt, tokens) * (1 + prompt))
    slope = gradient(policy, responses)
    for state, token in itertools.product(range(len(slope)), range(2)):
        beside = []
        for step in (1e-5, -1e-5):
            near = policy.clone()
            with torch.no_grad():
                near.logits[state, token] += step
            beside.append(expected(near, responses))
        assert (beside[0] - beside[1]) / 2e-5 == pytest.approx(float(slope[state, token]), abs=1e-9)


def test_responses_end_at_end_tokens_and_come_once() -> None:
    policy = TabularPolicy(2, 3, prompts=2, end_ids=(0,))
    responses = every_response(policy, lambda prompt, tokens: len(tokens) + 10.0 * prompt)
    rewards = responses.column("episode:reward/outcome").tolist()
    assert rewards == [1.0, 2.0, 3.0, 3.0, 11.0, 12.0, 13.0, 13.0]
    assert probabilities(policy, responses).tolist() == pytest.approx([0.5, 0.25, 0.125, 0.125] * 2)
    assert expected(policy, responses) == pytest.approx(1.75 + 5)


@pytest.mark.parametrize("name", ["graded_outcome", "dense_rewards"])
def test_leaves_of_a_calibration_world_are_every_response(name: str) -> None:
    world = WORLDS[name]()
    assert expected(world.tree.policy(), world.leaves) == pytest.approx(world.tree.values().total, abs=1e-12)


def test_samples_follow_the_table() -> None:
    policy = tilted(prompts=2)
    drawn = rewarded(sample(policy, [1, 1, 0], 2000, torch.Generator().manual_seed(3)), worth)
    assert drawn.group_ids.tolist() == [0] * 2000 + [1] * 2000 + [2] * 2000
    responses = every_response(policy, worth)
    likely, of_prompt = probabilities(policy, responses), drawn.group_of_episode == 2
    for prompt, chosen in ((0, of_prompt), (1, ~of_prompt)):
        code = drawn.ids.reshape(-1, 2)[chosen] @ torch.tensor([2, 1])
        found = torch.bincount(code, minlength=4) / int(chosen.sum())
        torch.testing.assert_close(found.double(), likely[responses.prompts == prompt], rtol=0, atol=0.035)
    behaviour = drawn.column("log_probs/behaviour")
    torch.testing.assert_close(behaviour, policy.logits.log_softmax(1)[policy.states_of(drawn), drawn.ids].detach())


@pytest.mark.parametrize(
    ("credit", "objective", "learners", "optimizer"),
    [
        ("grpo", ("clip(low=0.2, high=0.28)", "kl(coefficient=0.1)", "entropy_bonus"), (), "sgd"),
        ("gae", ("clip",), ("critic",), "adamw"),
        ("reinforce_pp", ("clip",), (), "sgd"),
        ("oprl", ("clip",), ("implicit_prm",), "adamw"),
    ],
)
def test_it_learns_what_a_run_learns(
    credit: str, objective: tuple[str, ...], learners: tuple[str, ...], optimizer: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        tabular(),
        credit=credit,
        objective=objective,
        learners=learners,
        optimizer=optimizer,
        learning_rate=0.3,
        max_grad_norm=0.0,
        epochs=2,
        minibatches=2,
        steps=3,
        seed=5,
    )
    runs.begin(tmp_path / "run", config)
    run, _ = RunFolder.open(tmp_path / "run")
    table = TabularPolicy(10, 1, prompts=4, end_ids=())
    settings = {"learning_rate": 0.3, "optimizer": optimizer, "epochs": 2, "minibatches": 2, "seed": 5}
    ours = Trained(table, credit, objective, total_steps=3, learners=learners, **settings)
    for _, stored in RolloutStore(run.path / "rollouts"):
        kept = {name: column for name, column in stored.columns.items() if name.startswith(("episode:", "response:"))}
        given = ours.step(dataclasses.replace(stored, columns=kept))
        torch.testing.assert_close(given.advantages, stored.column("credit/advantages"), rtol=0, atol=1e-12)
    theirs = TabularPolicy(10, 1, prompts=4)
    theirs.load_weights(run.checkpoints.model(3))
    assert not torch.equal(theirs.logits, torch.zeros_like(theirs.logits))
    torch.testing.assert_close(table.logits, theirs.logits, rtol=0, atol=1e-12)


def test_state_and_clock_of_a_method_go_on_from_step_to_step() -> None:
    seen = []

    @estimator(init=lambda: 5, reads_clock=True)
    def counting(work: Work, state: int, clock: Clock) -> Result:
        seen.append((state, clock.step, clock.total_steps))
        return Result(work.advantages, state=state + 1)

    policy = tilted()
    trained = Trained(policy, counting, learning_rate=1.0, total_steps=3)
    for _ in range(3):
        trained.step(sample(policy, [0], 2, torch.Generator().manual_seed(1)))
    assert seen == [(5, 0, 3), (6, 1, 3), (7, 2, 3)]


def test_an_update_is_what_a_step_adds_and_leaves_the_policy_alone() -> None:
    policy = tilted()
    with torch.no_grad():
        policy.logits[0, 1] = -torch.inf
    drawn = rewarded(sample(policy, [0], 8, torch.Generator().manual_seed(1)), worth)
    before, twin = policy.logits.detach().clone(), policy.clone()
    added = update(policy, "rloo", drawn)
    Trained(twin, "rloo", "reinforce", learning_rate=1.0).step(drawn)
    assert torch.equal(policy.logits, before)
    assert float(added.abs().max()) > 0
    torch.testing.assert_close(before + added, twin.logits.detach())


def test_statistics_that_the_rollouts_bring_are_not_measured_again() -> None:
    policy = tilted()
    drawn = rewarded(sample(policy, [0], 4, torch.Generator().manual_seed(1)), worth)
    stale = drawn.with_statistic("log_probs/old", drawn.column("log_probs/behaviour") - 1.0, "test")
    trained = Trained(policy, "rloo", ("clip", "kl"), learning_rate=0.0)
    measured = trained.measured(stale)
    torch.testing.assert_close(measured.column("log_probs/old"), drawn.column("log_probs/behaviour") - 1.0)
    torch.testing.assert_close(measured.column("log_probs/reference"), drawn.column("log_probs/behaviour"))


def test_bad_input_is_said_in_a_sentence() -> None:
    policy = TabularPolicy(2, 2)
    with pytest.raises(InputError, match="the prompt is 1, expected a number from 0 to 0"):
        sample(policy, [1], 2, torch.Generator())
    with pytest.raises(InputError, match=r"2\^20 responses each, expected at most"):
        every_response(TabularPolicy(2, 20), worth)
    missing = every_response(policy, worth).select(torch.tensor([0, 1, 2]))
    with pytest.raises(InputError, match=r"probability 0.750000 in all, expected 1 for each of 1 prompts"):
        expected(policy, missing)
    with pytest.raises(InputError, match="some tokens are not the policy's"):
        probabilities(policy, missing.with_column("trained", torch.zeros(missing.n_tokens, dtype=torch.bool)))
