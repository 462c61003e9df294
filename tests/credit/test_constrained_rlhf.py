"""What is constrained RLHF's own: how rewards are mixed, how multipliers learn, and that thresholds are held."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion import credit
from apportion.credit import METHODS, Claim, Credit, saturated
from apportion.errors import InputError
from apportion.objectives import OBJECTIVES
from apportion.rollouts import Rollouts
from credit.cases import close
from golden.files import VECTORS, Case, differences, read_cases
from reference import constraints, losses, returns

PAIR = {"components": ("right", "kind"), "thresholds": (0.5, 0.25)}


def rewarded(
    ids: Sequence[Sequence[int]],
    rewards: Mapping[str, Sequence[float | None]],
    values: Mapping[str, Sequence[float]] | None = None,
    divergence: Sequence[float] | None = None,
    **given: Any,
) -> Rollouts:
    """Episodes with rewards by component, critics' values (0 unless given) and log-probs of such a divergence."""
    rollouts = Rollouts.from_lists(ids, groups=range(len(ids)), **given)
    for name, each in rewards.items():
        numbers = torch.tensor([0.0 if r is None else r for r in each], dtype=torch.float64)
        rollouts = rollouts.with_reward(name, numbers, torch.tensor([r is not None for r in each]))
    nought = [0.0] * rollouts.n_tokens
    for head in (*rewards, "kl"):
        rollouts = rollouts.with_column(f"values/{head}", double((values or {}).get(head, nought)))
    old = torch.full((rollouts.n_tokens,), -8.0, dtype=torch.float64)
    with_old = rollouts.with_column("log_probs/old", old)
    return with_old.with_column("log_probs/reference", old - double(divergence or nought))


def double(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def method(**settings: Any) -> credit.Stage:
    return METHODS["constrained_rlhf"](**{"gamma": 1.0, "lam": 1.0, "whiten": False, **settings})


def detail(result: Credit, name: str) -> list[float]:
    level, _, short = name.rpartition(":")
    return result.columns[f"{level or 'token'}:credit/{short}"].tensor.tolist()


def raw(values: Sequence[float]) -> dict[str, Tensor]:
    """Multipliers with these raw values, at rest."""
    return {"raw": double(values), "momentum": torch.zeros(len(values), dtype=torch.float64)}


GOLDEN = {step: [c for c in read_cases(VECTORS / "constrained_rlhf.json") if c.arguments["step"] == step] for step in
          ("gae", "update")}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN["update"], ids=lambda case: case.name)
def test_the_naive_step_agrees_with_the_golden_file(case: Case) -> None:
    given = case.arguments
    everywhere = [[True] * len(given["log_prob"])]
    columns = [[list(column)] for column in zip(*given["constraint_advantages"], strict=True)]
    parts = [constraints.standardised(rows, everywhere) for rows in columns]
    task = constraints.standardised([given["kl_advantages"]], everywhere)
    means = [sum(column) / len(column) for column in zip(*given["constraint_reward_to_go"], strict=True)]
    values, buffer = given["lagrange_raw"], [0.0] * len(means)
    result: dict[str, list[Any]] = {name: [] for name in ("multipliers", "policy_loss", "lagrange_raw_after")}
    for _ in range(given["n_updates"]):
        weights = constraints.multipliers(values, given["constraint"])
        [mixed] = constraints.mixed(task, parts, weights)
        result.setdefault("mixed_advantages", mixed)
        tokens = zip(given["log_prob"], given["old_log_prob"], mixed, strict=True)
        terms = [losses.clip_term(*token, low=given["clip_range"], high=given["clip_range"]) for token in tokens]
        values, buffer = constraints.dual_step(
            values, buffer, means, given["thresholds"], constraint=given["constraint"], lr=given["lagrange_lr"],
            momentum=given["momentum"], max_norm=given["max_grad_norm"],
        )  # fmt: skip
        result["multipliers"].append(weights)
        result["policy_loss"].append(sum(terms) / len(terms))
        result["lagrange_raw_after"].append(values)
    assert not list(differences(result, case.expected, case.atol))


@pytest.mark.parametrize("case", GOLDEN["gae"], ids=lambda case: case.name)
def test_the_naive_returns_agree_with_the_golden_file(case: Case) -> None:
    given, begins = case.arguments, [t for t, start in enumerate(case.arguments["episode_starts"]) if start or not t]
    result: list[float] = []
    for a, b in zip(begins, [*begins[1:], len(given["kl_rewards"])], strict=True):
        row = given["kl_rewards"][a:b], given["kl_values"][a:b], [True] * (b - a)
        result += returns.gae(*row, gamma=given["gamma"], lam=given["gae_lambda"])[0]
    assert not list(differences({"kl": result}, {"kl": case.expected["kl_advantages"]}, case.atol))


# Mixing


def test_by_hand() -> None:
    """Two tokens; half of 2 is left for the divergence, and each reward has a quarter of 2."""
    one = rewarded([[1, 2]], {"right": [1.0], "kind": [0.5]}, {"kind": [0.25, 0.0]}, divergence=[1.0, 2.0])
    result = method(**PAIR, kl_coefficient=0.5)(one)
    assert detail(result, "raw_advantages/kl") == [-1.5, -1.0]
    assert detail(result, "raw_advantages/right") == [1.0, 1.0]
    assert detail(result, "raw_advantages/kind") == [0.25, 0.5]
    assert detail(result, "returns/kind") == [0.5, 0.5]
    assert detail(result, "rewards_to_go/kind") == [0.5, 0.5]
    assert detail(result, "episode:multipliers") == [[0.5, 0.5]]
    assert result.advantages.tolist() == [-1.5 + 0.625, -1.0 + 0.75]


def test_rewards_stay_where_they_are_earned() -> None:
    steps = rewarded([[1, 2, 3]], {"kind": [0.0]}).with_spans("step", torch.tensor([0, 2]), torch.tensor([2, 3]))
    steps = steps.with_reward("right", double([1.0, 2.0]), level="step").with_column("values/right", double([0.0] * 3))
    result = method(**PAIR, kl_coefficient=1.0)(steps)
    assert detail(result, "rewards_to_go/right") == [3.0, 3.0, 2.0]


def test_every_reward_is_standardised_by_itself() -> None:
    rewards = {"right": [1.0, 0.0, 3.0], "kind": [100.0, 50.0, 0.0]}
    values = {"right": [0.5, 0.25, 0.0, 0.0], "kind": [3.0, -4.0, 9.0, 0.0], "kl": [0.1, 0.2, 0.3, 0.0]}
    trained = [[1, 1], [0], [1]]
    three = rewarded([[1, 2], [3], [4]], rewards, values, divergence=[1.0, -0.5, 0.25, 0.75], trained=trained)
    result = method(**PAIR, whiten=True, kl_coefficient=0.5)(three)
    masks = [[bool(x) for x in row] for row in trained]
    parts = []
    for head in ("kl", "right", "kind"):
        one, two, three_, four = detail(result, f"raw_advantages/{head}")
        parts.append(constraints.standardised([[one, two], [three_], [four]], masks))
    expected = constraints.mixed(parts[0], parts[1:], [0.5, 0.5])
    close(result.advantages, double([x for row in expected for x in row]))


def test_a_reward_that_does_not_vary_is_standardised_to_nothing() -> None:
    one = rewarded([[1, 2, 3]], {"right": [0.1], "kind": [0.0]}, divergence=[0.0, 0.0, 0.0])
    assert method(**PAIR, whiten=True)(one).advantages.tolist() == [0.0, 0.0, 0.0]


def test_a_cut_off_episode_goes_on_from_what_every_critic_expects() -> None:
    one = rewarded([[1, 2]], {"right": [1.0], "kind": [0.0]})
    one = one.with_column("response:values_end/right", double([4.0]))
    result = method(**PAIR)(one)
    assert detail(result, "raw_advantages/right") == [5.0, 5.0]
    assert detail(result, "raw_advantages/kind") == [0.0, 0.0]
    assert detail(result, "rewards_to_go/right") == [1.0, 1.0]  # what is compared with the threshold was earned


def test_without_squashing_the_task_keeps_its_weight() -> None:
    one = rewarded([[1]], {"right": [1.0], "kind": [2.0]}, divergence=[1.0])
    plain = method(**PAIR, squash=False, kl_coefficient=1.0)
    assert plain(one, raw([3.0, 0.25])).advantages.tolist() == [-1.0 + 3.0 + 0.5]
    after = plain(one, raw([0.01, 0.0])).state["raw"]
    assert after.tolist() == [0.0, 0.0]  # a bound does not become a bonus for breaking it
    signed = method(**PAIR, squash=False, constraint="equality")
    assert (signed(one, raw([0.01, 0.0])).state["raw"] < 0).all()


def test_upper_bounds_maximise_the_rewards_until_they_are_too_high() -> None:
    one = rewarded([[1]], {"right": [1.0], "kind": [2.0]})
    above = method(**PAIR, constraint="upper_bound", weights=(1.0, 3.0))
    assert "values/kl" not in above.needs
    assert "log_probs/reference" not in above.needs
    result = above(one)
    assert result.advantages.tolist() == [(1.0 + 6.0) - 0.5 * (1.0 + 2.0)]
    assert (result.state["raw"] > 0).all()
    below = method(components=("right",), thresholds=(2.0,), constraint="upper_bound")
    assert (below(one).state["raw"] < 0).all()


# Multipliers


@pytest.mark.parametrize("constraint", ["lower_bound", "equality", "upper_bound"])
def test_multipliers_learn_as_the_naive_loop_says(constraint: str) -> None:
    two = rewarded([[1, 2, 3], [4]], {"right": [1.0, 0.0], "kind": [-2.0, 5.0]})
    settings: dict[str, Any] = {"lagrange_lr": 0.3, "momentum": 0.4, "max_grad_norm": 0.2}
    stage, state = method(**PAIR, constraint=constraint, start=0.25, **settings), None
    values, buffer = [0.25, 0.25], [0.0, 0.0]
    means = [3 * 1.0 / 4, (3 * -2.0 + 5.0) / 4]  # a mean over tokens: the longer episode counts three times
    for _ in range(4):
        result = stage(two, state)
        state = result.state
        [shown, _] = detail(result, "episode:multipliers")
        assert shown == pytest.approx(constraints.multipliers(values, constraint))
        values, buffer = constraints.dual_step(
            values, buffer, means, PAIR["thresholds"], constraint=constraint, lr=0.3, momentum=0.4, max_norm=0.2
        )
        assert state["raw"].tolist() == pytest.approx(values)
        assert state["momentum"].tolist() == pytest.approx(buffer)


def test_a_reward_above_its_threshold_loses_weight() -> None:
    one = rewarded([[1]], {"right": [1.0], "kind": [0.0]})
    above, below = method(**PAIR)(one).state["raw"].tolist()
    assert above < 0 < below


def test_long_episodes_weigh_more_unless_told_otherwise() -> None:
    two = rewarded([[1, 2, 3], [4]], {"right": [1.0, 0.0]}, trained=[[0, 1, 1], [1]])
    settings: dict[str, Any] = {"components": ("right",), "thresholds": (0.6,)}
    assert method(**settings)(two).state["raw"].item() < 0  # two tokens of three
    assert method(**settings, per_response=True)(two).state["raw"].item() > 0  # one episode of two


def test_a_saturated_multiplier_hardly_moves() -> None:
    one = rewarded([[1]], {"right": [1.0], "kind": [1.0]})
    before = raw([20.0, 0.0])
    moved = (method(**PAIR)(one, before).state["raw"] - before["raw"]).abs()
    assert 0 < moved[0] < 1e-8 < moved[1]


def test_nothing_to_learn_from_leaves_the_multipliers() -> None:
    one = rewarded([[1]], {"right": [None], "kind": [1.0]})
    state = raw([0.5, -0.5])
    after = method(**PAIR, whiten=True)(one, state, unscored="drop").state
    assert torch.equal(after["raw"], state["raw"])


def test_the_state_survives_a_checkpoint() -> None:
    one = rewarded([[1]], {"right": [1.0], "kind": [0.0]})
    stage = method(**PAIR)
    first, file = stage(one), io.BytesIO()
    torch.save(first.state, file)
    file.seek(0)
    again = stage(one, torch.load(file, weights_only=True))
    assert again.advantages.tolist() == stage(one, first.state).advantages.tolist()
    assert again.state["raw"].tolist() == stage(one, first.state).state["raw"].tolist()


# Together with the rest


def test_every_critic_regresses_its_own_returns() -> None:
    two = rewarded([[1, 2], [3]], {"right": [1.0, 0.0], "kind": [0.5, 0.5]})
    stage = method(**PAIR)
    assert stage.makes == ("credit/returns/right", "credit/returns/kind", "credit/returns/kl")
    result = stage(two)
    for head, expected in (("right", 1.0 + 1.0), ("kind", 3 * 0.25), ("kl", 0.0)):
        objective = OBJECTIVES["value"](head=head, returns=f"returns/{head}", clip=9.0)
        loss = objective({f"values/{head}": torch.zeros(3, dtype=torch.float64)}, two, result)
        assert loss.value.item() == expected / 6


def test_a_saturated_sum_is_best_at_the_thresholds() -> None:
    three = rewarded([[1], [2], [3]], {"right": [0.5, 1.0, 0.5], "kind": [0.25, 0.25, 2.25]})
    three = three.with_groups(torch.zeros(3, dtype=torch.int64))
    stage = credit.chain(saturated(*PAIR.values(), weights=(2.0, 1.0)), METHODS["grpo"]("saturated", norm_by_std=False))
    assert set(stage.needs) == {"reward/right", "reward/kind"}
    result = stage(three)
    assert detail(result, "episode:reward/saturated") == [0.0, -0.5, -4.0]
    assert result.advantages.tolist() == [1.5, 1.0, -2.5]


def bandit(stage: credit.Stage, proxies: Tensor, logits: Tensor) -> tuple[list[float], list[float]]:
    """Policy gradient on one choice among actions that two proxies reward; their values and the multipliers after."""
    generator, state = torch.Generator().manual_seed(5), None
    reference = logits.log_softmax(0)
    logits = logits.clone().requires_grad_()
    optimiser = torch.optim.SGD([logits], lr=3.0)
    for _ in range(300):
        log_probs = logits.log_softmax(0)
        actions = torch.multinomial(log_probs.exp().detach(), 64, True, generator=generator)
        batch = Rollouts.from_lists([[a] for a in actions.tolist()], groups=range(64))
        batch = batch.with_column("log_probs/old", log_probs.detach()[actions])
        batch = batch.with_column("log_probs/reference", reference[actions])
        for i, name in enumerate(("right", "kind")):
            batch = batch.with_reward(name, proxies[actions, i]).with_column(f"values/{name}", double([0.0] * 64))
        result = stage(batch.with_column("values/kl", double([0.0] * 64)), state)
        state = result.state
        optimiser.zero_grad()
        (-(result.advantages * log_probs[actions]).mean()).backward()
        optimiser.step()
    return (logits.detach().softmax(0) @ proxies).tolist(), state["raw"].tolist()


def test_thresholds_are_held_where_fixed_weights_overshoot() -> None:
    """The paper's claim in small: two proxies, worth having up to their thresholds only."""
    proxies = torch.rand(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start, names = torch.zeros(40, dtype=torch.float64), {"components": ("right", "kind")}
    fixed, _ = bandit(method(**names, thresholds=(0.65, 0.6), start=2.0, lagrange_lr=0.0), proxies, start)
    assert fixed[0] > 0.65 + 0.2
    assert fixed[1] > 0.6 + 0.3
    for constraint in ("lower_bound", "equality"):
        stage = method(**names, thresholds=(0.65, 0.6), constraint=constraint, lagrange_lr=0.3)
        held, _ = bandit(stage, proxies, start)
        assert held == pytest.approx((0.65, 0.6), abs=0.02), constraint
    # From a policy whose first proxy is above its threshold, only a negative multiplier brings it down.
    stage = method(**names, thresholds=(0.6, 0.5), constraint="equality", lagrange_lr=0.3)
    held, values = bandit(stage, proxies, 3 * proxies[:, 0])
    assert held == pytest.approx((0.6, 0.5), abs=0.03)
    assert values[0] < 0


@pytest.mark.parametrize(
    ("settings", "claim"),
    [
        ({}, Claim.EXACT),
        ({"whiten": True}, Claim.BIASED),
        ({"gamma": 0.9}, Claim.BIASED),
        ({"lam": 0.9}, Claim.BIASED),
        ({"kl_estimator": "k3"}, Claim.BIASED),
        ({"kl_estimator": "k3", "constraint": "upper_bound"}, Claim.EXACT),
    ],
)
def test_what_is_claimed(settings: dict[str, Any], claim: Claim) -> None:
    assert method(**settings).bias.claim == claim


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"components": (), "thresholds": ()}, r"got components \(\), expected a list of different names"),
        ({"components": ("a", "a"), "thresholds": (1, 2)}, "expected a list of different names"),
        ({"components": "outcome"}, "got 1 thresholds for 1 components, expected lists of one each"),
        ({"components": ("a", "b")}, "got 1 thresholds for 2 components, expected lists of one each"),
        ({"components": ("a", "b"), "thresholds": 0.5}, "got 1 thresholds for 2 components"),
        ({"thresholds": (float("nan"),)}, r"thresholds are \[nan\], expected finite numbers"),
        ({"components": ("kl",)}, "a component is called 'kl', which is the name of the task's own reward"),
        ({"constraint": "equal"}, "unknown constraint 'equal': did you mean 'equality'"),
        ({"weights": (1.0,)}, "weights are given with constraint 'lower_bound', whose task is the divergence alone"),
        ({"weights": (1.0, 2.0), "constraint": "upper_bound"}, "got 2 weights for 1 components"),
        ({"kl_coefficient": 0.0}, "kl_coefficient is 0.0, expected more than 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0, expected more than 0"),
        ({"momentum": 1.5}, "momentum is 1.5, expected 0 to 1"),
        ({"lagrange_lr": -1.0}, "lagrange_lr is -1.0, expected 0 or more"),
        ({"start": float("inf")}, "start is inf, expected a finite number"),
        ({"kl_estimator": "k4"}, "unknown KL estimator 'k4'"),
        ({"gamma": 2.0}, "gamma is 2.0, expected 0 to 1"),
        ({"lam": 2.0}, "lam is 2.0, expected 0 to 1"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        METHODS["constrained_rlhf"](**settings)


def test_one_token_cannot_be_standardised() -> None:
    one = rewarded([[1, 2]], {"right": [1.0], "kind": [0.0]}, trained=[[1, 0]])
    with pytest.raises(InputError, match="got 1 trained token to standardise over, expected at least 2"):
        method(**PAIR, whiten=True)(one)


def test_a_critic_that_is_missing_is_named() -> None:
    one = rewarded([[1]], {"right": [1.0]})
    with pytest.raises(InputError, match=r"'token:values/kind'.*critic\(head='kl', returns='returns/kl'\)"):
        method(**PAIR)(one.with_reward("kind", double([1.0])))
