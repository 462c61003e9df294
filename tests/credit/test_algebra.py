"""Stages and how they combine; running a method; rewards moved up and down."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion import credit
from apportion.credit import METHODS, Bias, Claim, Clock, Credit, Result, Reward, Stage, Work
from apportion.errors import InputError
from apportion.rollouts import Rollouts
from credit.cases import close
from credit.worlds import DICE, EIGHTHS, Dialogues, Flat, dialogues, flats

GRPO, RLOO, TEMPO = METHODS["grpo"](), METHODS["rloo"](), METHODS["tempo"]()


@credit.modifier(needs=("surprise",), bias=Bias(Claim.CONSISTENT, "weighs tokens"))
def by_surprise(work: Work) -> Tensor:
    return work.advantages * work.rollouts.column("surprise").to(work.advantages.dtype)


@credit.token_filter()
def not_the_first(work: Work) -> tuple[Tensor, Tensor]:
    """Trains neither the first token of a response nor counts it."""
    first = torch.zeros_like(work.trained)
    starts, ends = work.rollouts.token_offsets[:-1], work.rollouts.token_offsets[1:]
    first[starts[starts < ends]] = True
    return work.trained & ~first, work.counted & ~first


@credit.token_filter()
def positive_only(work: Work) -> tuple[Tensor, Tensor]:
    """Trains only tokens with a positive advantage, and counts all."""
    return work.trained & (work.advantages > 0), work.counted


@credit.shaper(needs=("reward/outcome", "reward/style"))
def mixed(work: Work) -> dict[str, Reward]:
    """The outcome with half the style."""
    outcome, style = work.rewards["outcome"], work.rewards["style"]
    values = outcome.values + 0.5 * style.values
    return {"outcome": Reward(outcome.level, values, outcome.scored & style.scored)}


@credit.estimator(needs=("reward/outcome",), init=lambda: (0.0, 0), reads_clock=True)
def against_the_past(work: Work, state: tuple[float, int], clock: Clock) -> Result:
    """Reward minus the mean of all earlier calls' rewards, fading in over the run."""
    reward_E = work.up("outcome")
    total, count = state
    fade = clock.step / clock.total_steps
    advantages = work.spread(reward_E - fade * total / max(count, 1))
    return Result(
        advantages, {"episode:past": reward_E * 0 + total}, (total + float(reward_E.sum()), count + len(reward_E))
    )


STAGES = {
    "grpo": GRPO,
    "tempo": TEMPO,
    "by_surprise": by_surprise,
    "not_the_first": not_the_first,
    "positive_only": positive_only,
    "scale": credit.scale(-2.0),
    "against_the_past": against_the_past,
}


def surprising(world: Flat) -> Rollouts:
    rollouts = world.rollouts()
    return rollouts.with_column("surprise", torch.arange(rollouts.n_tokens) / 4)


def same(given_credit: Credit, expected: Credit) -> None:
    close(given_credit.advantages, expected.advantages, 1e-12)
    assert torch.equal(given_credit.trained, expected.trained)
    assert torch.equal(given_credit.counted, expected.counted)
    assert given_credit.columns.keys() == expected.columns.keys()


def run(stage: Stage, rollouts: Rollouts, **options: Any) -> Credit:
    return stage(rollouts, clock=Clock(1, 2), **options)


# Laws

three = st.lists(st.sampled_from(sorted(STAGES)), min_size=3, max_size=3)


@given(world=flats(), names=three)
def test_chains_nest(world: Flat, names: list[str]) -> None:
    a, b, c = (STAGES[name] for name in names)
    rollouts = surprising(world)
    flat = run(credit.chain(a, b, c), rollouts)
    same(run(credit.chain(a, credit.chain(b, c)), rollouts), flat)
    same(run(credit.chain(credit.chain(a, b), c), rollouts), flat)


@given(world=flats(), names=three)
def test_sums_nest_commute_and_are_sums(world: Flat, names: list[str]) -> None:
    a, b, c = (credit.chain(GRPO, STAGES[name]) for name in names)
    rollouts = surprising(world)
    flat = run(credit.add(a, b, c), rollouts)
    same(run(credit.add(c, a, b), rollouts), flat)
    same(run(credit.add(a, credit.add(b, c)), rollouts), flat)
    parts = [run(stage, rollouts) for stage in (a, b, c)]
    trained = parts[0].trained & parts[1].trained & parts[2].trained
    assert torch.equal(flat.trained, trained)
    assert torch.equal(flat.counted, parts[0].counted & parts[1].counted & parts[2].counted)
    close(flat.advantages, torch.where(trained, sum(part.advantages for part in parts), 0.0), 1e-12)


@given(world=flats())
def test_one_stage_alone(world: Flat) -> None:
    rollouts = world.rollouts()
    same(credit.chain(TEMPO)(rollouts), TEMPO(rollouts))
    same(credit.add(TEMPO)(rollouts), TEMPO(rollouts))


@given(world=flats(), factor=st.sampled_from([-3.0, 0.0, 0.5]))
def test_scale(world: Flat, factor: float) -> None:
    rollouts = world.rollouts()
    scaled = credit.chain(TEMPO, credit.scale(factor))(rollouts)
    close(scaled.advantages, TEMPO(rollouts).advantages * factor, 1e-12)
    twice = credit.chain(TEMPO, credit.scale(factor), credit.scale(2.0))
    close(twice(rollouts).advantages, credit.chain(TEMPO, credit.scale(2 * factor))(rollouts).advantages, 1e-12)


@given(world=flats(), dice=DICE)
def test_per_component_is_a_weighted_sum(world: Flat, dice: random.Random) -> None:
    styles = torch.tensor(dice.choices(EIGHTHS, k=len(world.ids)), dtype=torch.float64)
    rollouts = world.rollouts().with_reward("style", styles)
    method = credit.per_component(
        {"outcome": RLOO, "style": METHODS["grpo"]("style", norm_by_std=False)}, {"outcome": 2.0, "style": -0.5}
    )
    by_hand = 2 * RLOO(rollouts).advantages - 0.5 * METHODS["grpo"]("style", norm_by_std=False)(rollouts).advantages
    close(method(rollouts).advantages, by_hand, 1e-12)
    assert method.needs == ("reward/outcome", "reward/style")


# What combinations declare


def test_needs_are_joined_once_and_in_order() -> None:
    method = credit.chain(METHODS["grpo"]("style"), by_surprise, credit.add(METHODS["rloo"]("style"), GRPO))
    assert method.needs == ("reward/style", "surprise", "reward/outcome")
    with pytest.raises(InputError, match="'token:surprise'"):
        method(Flat([[1]], [0], [1.0], [[True]]).rollouts().with_reward("style", torch.ones(1)))


def test_the_weakest_claim_is_the_whole_ones_unless_it_states_its_own() -> None:
    assert credit.chain(RLOO, credit.scale(1.0)).bias.claim is Claim.EXACT
    assert credit.chain(RLOO, credit.scale(2.0)).bias.claim is Claim.EXACT_UP_TO_SCALE
    assert credit.add(RLOO, credit.chain(RLOO, by_surprise)).bias == by_surprise.bias
    assert credit.chain(TEMPO, by_surprise).bias == TEMPO.bias
    own = Bias(Claim.EXACT_UP_TO_SCALE, "shown elsewhere")
    assert credit.chain(TEMPO, by_surprise, bias=own).bias == own
    assert credit.per_component({"outcome": TEMPO}, {"outcome": 1.0}, bias=own).bias == own


def test_flags_are_joined() -> None:
    seeing = credit.shaper(sees_unknown=("outcome",))(lambda work: {})
    method = credit.chain(seeing, against_the_past, RLOO)
    assert method.sees_unknown == ("outcome",)
    assert method.reads_clock
    assert method.compares_groups
    assert not credit.chain(seeing, credit.scale(2.0)).compares_groups


@pytest.mark.parametrize("combine", [credit.chain, credit.add])
def test_what_cannot_be_combined(combine: Any) -> None:
    with pytest.raises(InputError, match="no stages to combine, expected at least one"):
        combine()
    with pytest.raises(InputError, match="cover different origins"):
        combine(GRPO, METHODS["none"]())


def test_components_and_weights_must_match() -> None:
    with pytest.raises(InputError, match=r"estimators for \['outcome'\] but weights for \['style'\]"):
        credit.per_component({"outcome": GRPO}, {"style": 1.0})


# Kinds of stages

PAIR = Flat([[1, 2], [1, 3]], [0, 0], [1.0, 0.0], [[True, True], [True, False]])


def test_shaped_rewards_reach_the_estimator() -> None:
    rollouts = PAIR.rollouts().with_reward("style", torch.tensor([0.0, 4.0]))
    assert credit.chain(mixed, RLOO)(rollouts).advantages.tolist() == [-1.0, -1.0, 1.0, 0.0]
    assert RLOO(rollouts).advantages.tolist() == [1.0, 1.0, -1.0, 0.0]


def test_unknown_in_any_component_makes_the_episode_unknown() -> None:
    known = torch.tensor([True, False])
    rollouts = PAIR.rollouts().with_reward("style", torch.tensor([0.0, torch.nan]), scored=known)
    assert not RLOO(rollouts).unknown.any()
    with pytest.raises(InputError, match="1 of 2 episodes have an unknown reward"):
        credit.chain(mixed, RLOO)(rollouts)
    assert credit.chain(mixed, RLOO)(rollouts, unscored="drop").unknown.tolist() == [False, True]


def test_a_stage_may_ask_to_see_unknown_members() -> None:
    @credit.shaper(needs=("reward/outcome",), sees_unknown=("outcome",))
    def half_for_unknown(work: Work) -> dict[str, Reward]:
        reward = work.rewards["outcome"]
        values = torch.where(reward.scored, reward.values, 0.5)
        return {"outcome": Reward(reward.level, values, torch.ones_like(reward.scored))}

    result = credit.chain(half_for_unknown, RLOO)(PAIR.rollouts([1.0, None]))
    assert result.advantages.tolist() == [0.5, 0.5, -0.5, 0.0]
    assert not result.unknown.any()


def test_modifiers_see_what_came_before() -> None:
    assert credit.chain(RLOO, by_surprise)(surprising(PAIR)).advantages.tolist() == [0.0, 0.25, -0.5, 0.0]


def test_filters_set_training_and_counting_apart() -> None:
    result = credit.chain(RLOO, not_the_first)(PAIR.rollouts())
    assert result.advantages.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert result.trained.tolist() == result.counted.tolist() == [False, True, False, False]
    result = credit.chain(RLOO, positive_only)(PAIR.rollouts())
    assert result.advantages.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert result.trained.tolist() == [True, True, False, False]
    assert result.counted.tolist() == [True, True, True, False]


def test_nothing_brings_back_what_is_not_trained() -> None:
    everything = credit.token_filter()(lambda work: (torch.ones_like(work.trained),) * 2)
    loud = credit.modifier()(lambda work: work.advantages + 5)
    result = credit.chain(RLOO, not_the_first, everything, loud)(PAIR.rollouts())
    assert result.advantages.tolist() == [0.0, 6.0, 0.0, 0.0]
    assert result.trained.tolist() == result.counted.tolist() == [False, True, False, False]


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(4, 1), 1.0, None])
def test_a_stage_that_returns_something_else_is_refused(value: Any) -> None:
    for stage in (
        credit.estimator()(lambda work: value),
        credit.modifier()(lambda work: value),
        credit.token_filter()(lambda work: (value, work.counted)),
        credit.token_filter()(lambda work: (work.trained, value)),
    ):
        with pytest.raises(InputError, match=r"returned .*, expected a tensor of shape \(4,\)"):
            stage(PAIR.rollouts())


def test_numbers_that_are_not_finite_are_refused_where_they_would_be_used() -> None:
    bad_at = credit.estimator()
    with pytest.raises(InputError, match="an advantage that is not finite"):
        bad_at(lambda work: torch.tensor([0.0, torch.nan, 0.0, 0.0]))(PAIR.rollouts())
    unused = bad_at(lambda work: torch.tensor([0.0, 0.0, 0.0, torch.nan]))(PAIR.rollouts())
    assert not unused.advantages.any()


# State and clock


def test_state_goes_from_call_to_call() -> None:
    rollouts = PAIR.rollouts()
    first = against_the_past(rollouts, state=None, clock=Clock(0, 4))
    assert first.advantages.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert first.state == (1.0, 2)
    second = against_the_past(rollouts, state=first.state, clock=Clock(2, 4))
    assert second.advantages.tolist() == [0.75, 0.75, -0.25, 0.0]
    assert second.state == (2.0, 4)
    assert second.columns["episode:credit/past"].tensor.tolist() == [1.0, 1.0]
    assert against_the_past(rollouts, state=None, clock=Clock(2, 4)).state == (1.0, 2)


@pytest.mark.parametrize("combine", [credit.chain, credit.add])
def test_parts_keep_their_own_state(combine: Any) -> None:
    method = combine(against_the_past, RLOO, against_the_past)
    first = method(PAIR.rollouts(), clock=Clock(0, 4))
    assert first.state == ((1.0, 2), None, (1.0, 2))
    assert method(PAIR.rollouts(), first.state, Clock(1, 4)).state == ((2.0, 4), None, (2.0, 4))


@pytest.mark.parametrize("method", [against_the_past, credit.chain(RLOO, credit.add(RLOO, against_the_past))])
def test_a_method_that_reads_the_clock_refuses_without(method: Stage) -> None:
    with pytest.raises(InputError, match=r"was given no clock: pass Clock\(step, total_steps\)"):
        method(PAIR.rollouts())


def test_details_of_all_parts_are_kept_at_their_level() -> None:
    result = credit.chain(TEMPO, against_the_past)(PAIR.rollouts(), clock=Clock(0, 1))
    assert set(result.columns) == {
        "token:credit/prefix_value_before",
        "token:credit/prefix_value_after",
        "episode:credit/prefix_value_root",
        "episode:credit/past",
    }
    dropped = TEMPO(PAIR.rollouts([1.0, None]), unscored="drop").record()
    assert dropped.columns["token:credit/prefix_value_after"].present.tolist() == [True, True, False, False]
    assert dropped.columns["episode:credit/prefix_value_root"].present.tolist() == [True, False]


# Specs


def test_build() -> None:
    built = credit.build("grpo(norm_by_std=False)")
    same(built(PAIR.rollouts()), METHODS["grpo"](norm_by_std=False)(PAIR.rollouts()))
    same(credit.build("apportion.credit.tempo:tempo")(PAIR.rollouts()), TEMPO(PAIR.rollouts()))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpro", "did you mean 'grpo'"),
        ("grpo(norm=False)", "unknown argument .* 'norm'"),
        ("grpo(eps=-1)", "eps is -1"),
        ("os:getcwd", "'os:getcwd' made a str, expected a credit.Stage"),
    ],
)
def test_specs_that_build_nothing(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        credit.build(spec)


# Rewards moved up and down


def seen(rollouts: Rollouts, component: str = "outcome") -> Work:
    """The work a first stage gets."""
    caught: list[Work] = []

    @credit.estimator(needs=(f"reward/{component}",))
    def catch(work: Work) -> Tensor:
        caught.append(work)
        return work.advantages

    catch(rollouts)
    return caught[0]


TOLD = Dialogues([[100]] * 2, [[([0, 1], [7]), ([1], [])], [([1], [7, 8]), ([0, 0], [])]], [0, 0], [0.0, 0.0])
SEPARATE = TOLD.separate(history=True)
GROWING = TOLD.growing().with_column("trained", torch.tensor([1, 1, 0, 1, 1, 0, 0, 1, 0]).bool())


def rewarded(rollouts: Rollouts, level: str) -> Work:
    """With rewards 1, 2, 4, ... at a level."""
    return seen(rollouts.with_reward("r", 2.0 ** torch.arange(rollouts.rows(level)), level=level), "r")


@pytest.mark.parametrize(
    ("rollouts", "level", "responses", "episodes", "last", "over"),
    [
        (SEPARATE, "token", [3, 4, 8, 48], [7, 56], [1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32]),
        (SEPARATE, "response", [1, 2, 4, 8], [3, 12], [0, 1, 2, 4, 0, 8], [1, 1, 2, 4, 8, 8]),
        (SEPARATE, "episode", None, [1, 2], [0, 0, 1, 0, 0, 2], [1, 1, 1, 2, 2, 2]),
        (GROWING, "turn", [3, 12], [3, 12], [0, 1, 0, 2, 4, 0, 0, 8, 0], [1, 1, 0, 2, 4, 0, 0, 8, 0]),
        (GROWING, "response", [1, 2], [1, 2], [0, 0, 0, 1, 0, 0, 0, 2, 0], [1, 1, 0, 1, 2, 0, 0, 2, 0]),
    ],
)
def test_up_and_down(
    rollouts: Rollouts,
    level: str,
    responses: list[float] | None,
    episodes: list[float],
    last: list[float],
    over: list[float],
) -> None:
    work = rewarded(rollouts, level)
    assert work.up("r").tolist() == episodes
    assert work.down("r").tolist() == last
    assert work.down("r", where="over").tolist() == over
    if responses is None:
        with pytest.raises(InputError, match="expected a level below response"):
            work.up("r", level="response")
    else:
        assert work.up("r", level="response").tolist() == responses


def test_holes_of_several_critics_are_left_out_of_the_sum() -> None:
    values = torch.tensor([[1.0, torch.nan], [2.0, 4.0], [8.0, torch.nan], [torch.nan, 16.0]])
    work = seen(GROWING.with_reward("r", values, ~values.isnan(), level="turn"), "r")
    assert work.up("r").tolist() == [7.0, 24.0]
    assert work.down("r").tolist() == [0, 1, 0, 6, 8, 0, 0, 16, 0]
    unknown = torch.tensor([[True, False], [True, True], [False, False], [False, True]])
    result = METHODS["grpo"]("r")(GROWING.with_reward("r", values, unknown, level="turn"), unscored="drop")
    assert result.unknown.tolist() == [False, True]


def test_spread_over_responses() -> None:
    work = seen(SEPARATE)
    assert work.spread(torch.tensor([1.0, 2.0, 3.0, 4.0]), "response").tolist() == [1, 1, 2, 3, 4, 4]
    assert work.spread(torch.tensor([1.0, 2.0])).tolist() == [1, 1, 1, 2, 2, 2]


def test_no_spans_of_a_kind() -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    rollouts = SEPARATE.with_spans("step", nobody, nobody).with_reward("r", torch.zeros(0), level="step")
    work = seen(rollouts, "r")
    assert work.up("r").tolist() == [0.0, 0.0]
    assert work.down("r").dtype == torch.float64
    assert work.down("r").tolist() == [0.0] * 6


def test_another_way_down_is_refused() -> None:
    with pytest.raises(InputError, match="where is 'first', expected 'last' or 'over'"):
        seen(SEPARATE).down("outcome", where="first")


# A credit by itself


@given(world=dialogues())
def test_selected_credit_is_the_credit_of_what_is_selected(world: Dialogues) -> None:
    whole = TEMPO(world.separate(history=False))
    some = torch.tensor([i % 2 == 0 for i in range(whole.rollouts.n_episodes)])
    part = whole.select(some)
    inside = some[whole.rollouts.episode_of_token]
    assert torch.equal(part.rollouts.ids, whole.rollouts.ids[inside])
    assert torch.equal(part.advantages, whole.advantages[inside])
    assert torch.equal(part.trained, whole.trained[inside])
    assert torch.equal(part.counted, whole.counted[inside])
    assert torch.equal(part.unknown, whole.unknown[some])
    for name, column in part.columns.items():
        rows = inside if name.startswith("token:") else some
        assert torch.equal(column.tensor, whole.columns[name].tensor[rows])
    part.record()


def test_padded_credit() -> None:
    result = RLOO(PAIR.rollouts())
    assert result.to_padded().tolist() == [[1.0, 1.0], [-1.0, 0.0]]
    assert result.to_padded(width=3).tolist() == [[1.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]
    with pytest.raises(InputError, match="a response has 2 tokens, expected at most width=1"):
        result.to_padded(width=1)
