"""B-Coder's Bellman errors beyond the common suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.credit import METHODS, Clock, Credit
from apportion.errors import InputError
from apportion.models.tabular import TabularPolicy
from apportion.objectives import OBJECTIVES
from apportion.objectives.bellman import GREEDY, PRETRAINED, RESIDUAL, Scale, bellman_errors, read_values, softabs
from apportion.rollouts import Rollouts
from apportion.training.gradient import accumulate, measure
from objectives.cases import CASES, Case, programs
from reference import bellman

POLICY = {"taken": "log_probs", "top": "max_log_prob", "greedy": GREEDY, "residual": RESIDUAL}
LEARNER = {"residual": PRETRAINED}


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def two_turns(**given: Any) -> Rollouts:
    """A human program of two responses with tool output in between, and one of one token; V_pre is 1, 2, 3, ..."""
    rollouts = Rollouts.from_lists(
        [[1, 9], [2, 3], [4]],
        groups=[0, 0, 0],
        episodes=[0, 0, 1],
        rewards=given.get("rewards", [1.0, -0.3]),
        trained=[[1, 0], [1, 1], [1]],
    )
    rollouts = rollouts.with_statistic(PRETRAINED, doubles(1, torch.nan, 2, 3, 4), "pretrained")
    return rollouts.with_column("response:origin", ["demonstration", "demonstration", "policy"])


def now() -> dict[str, Tensor]:
    """log-probs of the tokens, the likeliest and the checkpoint's; the residual."""
    hole = torch.nan
    return {
        "log_probs": doubles(-1.0, hole, -2.0, -3.0, -0.5),
        "max_log_prob": doubles(-0.5, hole, -0.25, -1.0, -0.5),
        GREEDY: doubles(-9.0, hole, -0.75, -2.0, -9.0),
        RESIDUAL: doubles(0.5, hole, 0.5, 0.0, -1.0),
    }


def credited(rollouts: Rollouts) -> Credit:
    return METHODS["none"](component="outcome")(rollouts, unscored="drop")


def test_by_hand() -> None:
    rollouts = two_turns()
    scale = Scale(alpha=2.0, gamma=0.5)
    leaves = {name: values.requires_grad_() for name, values in now().items()}
    at = read_values(leaves, rollouts, credited(rollouts), scale)
    assert at.q.requires_grad
    for what_is_read in (at.next_values, at.next_q, at.reward_model, at.reward_model_exact, at.scores):
        assert not what_is_read.requires_grad
    assert at.tokens.tolist() == [0, 2, 3, 4]
    assert at.advantages.tolist() == [-1.0, -3.5, -4.0, 0.0]
    assert at.values.tolist() == [1.5, 2.5, 3.0, 3.0]
    assert at.next_values.tolist() == [2.5, 3.0, 0.0, 0.0]
    assert at.next_q.tolist() == [1.5, 1.0, 0.0, 0.0]  # 2 (-0.75 + 0.25) + 2.5 and 2 (-2 + 1) + 3
    errors = bellman_errors(at, "outcome", rollouts, credited(rollouts))
    assert errors.targets.tolist() == pytest.approx([0.75, 0.5, 1.0, -0.3])
    assert errors.by_program.tolist() == pytest.approx([(0.25**2 + 1.5**2 + 2.0**2) / 3, 3.3**2])
    assert at.reward_model.tolist() == [0.5 - 1.25, -1.0 - 1.5, -1.0, 3.0]
    assert at.reward_model_exact.tolist() == [0.5 - 0.75, -1.0 - 0.5, -1.0, 3.0]
    assert at.scores.tolist() == [-4.25, 3.0]
    objective = OBJECTIVES["b_coder"](alpha=2.0, gamma=0.5, beta_adv=0.1, beta_ce=0.5, value_steps=0)
    loss = objective(now(), rollouts, credited(rollouts))
    assert loss.metrics["advantage_size"].item() == 8.5
    assert loss.metrics["human_nll"].item() == 6.0
    assert loss.metrics["value"].item() == 2.5
    assert loss.value.item() == pytest.approx(errors.mean.item() + 0.85 + 3.0)


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=str(c)) for c in CASES if c.objective in ("b_coder", "b_coder_value")]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_targets_are_held_fixed_in_the_gradient(case: Case, seed: int) -> None:
    """Differences of the naive loss at every entry, with targets of the values before."""
    given = case.batch(seed)
    values = {name: tensor.detach() for name, tensor in given.now((*case.made.now, *case.made.watches)).items()}
    settings = {k: v for k, v in case.arguments.items() if k not in ("cap_values", "value_steps")}
    settings["cap"] = case.arguments.get("cap_values", False)
    of_policy = case.objective == "b_coder"
    names = {
        "taken": "now/log_probs" if of_policy else "log_probs/reference",
        "top": "now/max_log_prob" if of_policy else "max_log_prob/reference",
        "greedy": f"now/{GREEDY}" if of_policy else "max_log_prob/reference",
        "residual": f"now/{RESIDUAL if of_policy else PRETRAINED}",
        **({"pretrained": PRETRAINED} if of_policy else {}),
    }

    def naive(at: Mapping[str, Tensor]) -> float:
        parts = bellman.b_coder(programs(given, at, names), fixed=programs(given, values, names), **settings)
        return parts["loss" if of_policy else "loss_q"]

    leaves = {name: values[name].clone().requires_grad_() for name in case.made.now}
    case.made({**values, **leaves}, given.rollouts, given.credit).value.backward()
    for name, leaf in leaves.items():
        for t in given.trained.tolist():
            step = torch.zeros_like(values[name]).index_fill(0, torch.tensor([t]), 1e-5)
            slope = (naive({**values, name: values[name] + step}) - naive({**values, name: values[name] - step})) / 2e-5
            assert leaf.grad is not None
            assert leaf.grad[t].item() == pytest.approx(slope, abs=1e-8), (name, t)


def test_without_human_programs_only_bellman_errors_are_left() -> None:
    rollouts = two_turns().with_column("response:origin", ["policy"] * 3)
    loss = OBJECTIVES["b_coder"](value_steps=0)(now(), rollouts, credited(rollouts))
    assert loss.value == loss.metrics["td_loss"]
    assert loss.metrics["human_nll"] == loss.metrics["advantage_size"] == 0


def test_human_programs_that_were_never_run_are_in_no_bellman_error() -> None:
    rollouts = two_turns()
    asked = torch.tensor([False, True])
    rollouts = rollouts.with_reward("outcome", doubles(7.0, -0.3), present=asked)
    loss = OBJECTIVES["b_coder"](value_steps=0)(now(), rollouts, METHODS["none"]()(rollouts))
    assert loss.metrics["td_loss"].item() == pytest.approx((-0.3 - 3.0) ** 2)
    assert loss.metrics["human_nll"].item() == 6.0


def test_programs_whose_outcome_is_unknown_are_left_out() -> None:
    rollouts = two_turns(rewards=[1.0, None])
    loss = OBJECTIVES["b_coder"](value_steps=0)(now(), rollouts, credited(rollouts))
    alone = torch.tensor([True, False])
    tokens = rollouts.indices(alone)["token"]
    part = credited(rollouts).select(alone)
    there = OBJECTIVES["b_coder"](value_steps=0)({n: v[tokens] for n, v in now().items()}, part.rollouts, part)
    assert loss.value.item() == pytest.approx(there.value.item(), rel=1e-14)


def test_a_cap_keeps_values_below_the_largest_reward() -> None:
    raw = torch.linspace(-50, 50, 101, dtype=torch.float64)
    capped = Scale(cap_values=True, r_max=0.7).value(raw)
    assert capped.max().item() == pytest.approx(0.7)
    assert capped[50].item() == pytest.approx(0.7)  # no head says anything yet
    torch.testing.assert_close(softabs(raw), softabs(-raw))
    assert softabs(doubles(40.0)).item() == pytest.approx(20 - 0.6931471805599453)


def test_where_the_policy_is_the_checkpoint_both_stages_have_the_same_errors() -> None:
    rollouts = two_turns()
    given = now()
    given[GREEDY] = given["max_log_prob"]
    given[RESIDUAL] = torch.zeros_like(given[RESIDUAL])
    second = OBJECTIVES["b_coder"](value_steps=0)(given, rollouts, credited(rollouts))
    for name in ("log_probs", "max_log_prob"):
        rollouts = rollouts.with_statistic(f"{name}/reference", given[name], "trainer")
    values = {PRETRAINED: rollouts.column(PRETRAINED)}
    first = OBJECTIVES["b_coder_value"]()(values, rollouts, credited(rollouts))
    assert first.value.item() == pytest.approx(second.metrics["td_loss"].item(), rel=1e-14)


def test_the_policy_waits_for_the_first_stage() -> None:
    rollouts = two_turns()
    objective = OBJECTIVES["b_coder"](value_steps=2)
    leaves = {name: values.requires_grad_() for name, values in now().items()}
    for step, waits in ((0, True), (1, True), (2, False)):
        loss = objective(leaves, rollouts, credited(rollouts), Clock(step, 9))
        assert loss.value.requires_grad != waits
        assert (loss.value.item() == 0) == waits
        assert loss.metrics["td_loss"].item() > 0
    with pytest.raises(InputError, match="first 2 steps and was given no clock: pass Clock"):
        objective(leaves, rollouts, credited(rollouts))


@pytest.mark.parametrize(("setting", "value"), [("gamma", 0.9), ("alpha", 2.0), ("cap_values", True), ("r_max", 2.0)])
def test_values_fitted_with_other_settings_are_refused(setting: str, value: Any) -> None:
    rollouts = two_turns()
    column = rollouts.columns[f"token:{PRETRAINED}"]
    made = {field.name: getattr(Scale(), field.name) for field in fields(Scale)} | {"value_steps": 0}
    fitting = rollouts.with_column(PRETRAINED, column.values, column.present, "pretrained", **made)
    OBJECTIVES["b_coder"](value_steps=0)(now(), fitting, credited(fitting))
    with pytest.raises(InputError, match=f"made with {setting}={value}, but pretrained made it with {setting}"):
        OBJECTIVES["b_coder"](value_steps=0, **{setting: value})(now(), fitting, credited(fitting))
    with pytest.raises(InputError, match="made with value_steps=3"):
        OBJECTIVES["b_coder"](value_steps=3)(now(), fitting, credited(fitting), Clock(4, 9))


@pytest.mark.parametrize("name", ["b_coder", "b_coder_value"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0, expected more than 0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"gamma": 0.0}, "gamma is 0.0, expected above 0 to 1"),
        ({"gamma": 1.1}, "gamma is 1.1"),
        ({"r_max": float("inf")}, "r_max is inf, expected a finite number"),
    ],
)
def test_bad_scales(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES[name](**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta_adv": -0.1}, "beta_adv is -0.1, expected 0 or more"),
        ({"beta_ce": float("inf")}, "beta_ce is inf"),
        ({"value_steps": -1}, "value_steps is -1, expected a whole number from 0"),
        ({"value_steps": 1.5}, "value_steps is 1.5"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OBJECTIVES["b_coder"](**settings)


@pytest.mark.parametrize("level", ["token", "response"])
def test_rewards_below_the_program_are_refused(level: str) -> None:
    rollouts = two_turns()
    columns = {n: c for n, c in rollouts.columns.items() if "outcome" not in n}
    rollouts = replace(rollouts, columns=columns)
    rollouts = rollouts.with_reward("outcome", torch.ones(rollouts.rows(level)), level=level)
    with pytest.raises(InputError, match=f"reward 'outcome' is one a {level}, expected one an episode"):
        OBJECTIVES["b_coder"](value_steps=0)(now(), rollouts, credited(rollouts))


def test_a_program_without_tokens_is_refused() -> None:
    rollouts = Rollouts.from_lists([[1], []], groups=[0, 0], rewards=[1.0, -1.0])
    rollouts = rollouts.with_column(PRETRAINED, doubles(0.0))
    given = {name: doubles(-0.5) for name in now()}
    with pytest.raises(InputError, match="an episode has no tokens"):
        OBJECTIVES["b_coder"](value_steps=0)(given, rollouts, credited(rollouts))


def test_its_fixed_point_is_the_value_of_the_checkpoints_greedy_policy() -> None:
    """On a tree of two tokens, by the trainer's gradient, with every path in the batch."""
    policy = TabularPolicy(vocabulary=2, depth=2)
    with torch.no_grad():
        policy.logits.copy_(doubles(1.0, 0.0, 0.0, 1.0, 2.0, 0.0).reshape(3, 2))
    reference = policy.frozen_copy()
    policy.add_value_head("residual")
    paths = [[0, 0], [0, 1], [1, 0], [1, 1]]
    outcomes = [-1.0, 0.5, 1.0, -0.3]
    rollouts = Rollouts.from_lists(paths, groups=[0] * 4, rewards=outcomes, prompts=[[0]] * 4)
    everything = [torch.arange(4)]
    greedy = measure(reference, rollouts, ["greedy"], everything)["greedy"]
    assert greedy.tolist() == [0, 1, 0, 1, 0, 0, 0, 0]
    rollouts = rollouts.with_column("greedy/reference", greedy).with_column(PRETRAINED, doubles(*[0.0] * 8))
    objective = OBJECTIVES["b_coder"](gamma=0.5, value_steps=0)
    optimiser = torch.optim.Adam([values for _, values in policy.named_parameters()], lr=0.05)
    credit = METHODS["none"]()(rollouts)
    for _ in range(2000):
        optimiser.zero_grad()
        loss = accumulate(policy, objective, rollouts, credit, everything)
        optimiser.step()
    assert float(loss.value) < 1e-9
    table = {name: values.detach() for name, values in policy.named_parameters()}
    q = table["logits"] - table["logits"].amax(1, keepdim=True) + table["values/residual"][:, None]
    # After a token the checkpoint would go on with 1 and then with 0, whatever is best: 0.5 gamma and 1.0 gamma.
    assert q.flatten().tolist() == pytest.approx([0.25, 0.5, -1.0, 0.5, 1.0, -0.3], abs=1e-4)
