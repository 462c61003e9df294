"""What holds of every credit method; the table is in ``cases.py``."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apportion.credit import METHODS, Credit
from apportion.credit.blocks import blocks_of
from apportion.errors import InputError, MissingColumn
from apportion.rollouts import ORIGINS, Rollouts, ragged
from apportion.rollouts.makers import maker_of
from credit.cases import CASES, Case, close
from credit.worlds import DICE, EIGHTHS, Dialogues, Flat, dialogues, few, flats


def every(promise: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Run for every row of the table that makes a promise."""
    return pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in CASES if promise(c)])


def reads_outcome(case: Case) -> bool:
    return "reward/outcome" in case.stage.needs


def drops_unknown(case: Case) -> bool:
    return reads_outcome(case) and "outcome" not in case.stage.sees_unknown


def has_reference(case: Case) -> bool:
    return case.reference is not None


def with_origins(rollouts: Rollouts, origins: Sequence[str]) -> Rollouts:
    return rollouts.with_column("response:origin", origins)


def same_credit(given: Credit, expected: Credit, atol: float = 1e-9) -> None:
    """Equal advantages, masks and details."""
    close(given.advantages, expected.advantages, atol)
    assert torch.equal(given.trained, expected.trained)
    assert torch.equal(given.counted, expected.counted)
    assert given.columns.keys() == expected.columns.keys()
    for name, column in given.columns.items():
        close(column.tensor.double(), expected.columns[name].tensor.double(), atol)


def test_every_method_is_in_the_table() -> None:
    assert {case.method for case in CASES} == set(METHODS), "add a row to CASES in tests/credit/cases.py"


# Against the naive loops


@every(has_reference)
@few
@given(world=flats())
def test_equals_the_naive_loop(case: Case, world: Flat) -> None:
    rollouts = world.rollouts()
    assert case.reference is not None
    expected = torch.tensor([a for row in case.reference(world) for a in row], dtype=torch.float64)
    close(case.credit(rollouts).advantages, expected)


# Laws


@every()
@few
@given(world=flats(), dice=DICE)
def test_order_of_episodes_and_names_of_groups_do_not_matter(case: Case, world: Flat, dice: random.Random) -> None:
    prepared = case.prepare(world.rollouts())
    order = torch.tensor(dice.sample(range(prepared.n_episodes), prepared.n_episodes))
    renamed = replace(prepared, group_ids=7 - prepared.group_ids * 2)
    same_credit(case.run(renamed.select(order)), case.run(prepared).select(order))


@every(lambda case: case.by_group)
@few
@given(world=flats())
def test_groups_do_not_see_each_other(case: Case, world: Flat) -> None:
    prepared = case.prepare(world.rollouts())
    whole = case.run(prepared)
    for group in prepared.group_ids.unique():
        mine = prepared.group_ids == group
        same_credit(case.run(prepared.select(mine)), whole.select(mine))


@every(lambda case: case.by_group)
@few
@given(world=flats(), tokens=st.integers(1, 12))
def test_large_rollouts_are_credited_block_by_block(case: Case, world: Flat, tokens: int) -> None:
    together = case.prepare(world.rollouts())
    together = together.select(together.group_ids.argsort(stable=True))
    whole = case.run(together)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            import_module("apportion.credit.assign"), "blocks_of", lambda rollouts: blocks_of(rollouts, tokens)
        )
        same_credit(case.run(together), whole)


@every()
def test_what_is_declared_to_look_at_one_group_alone(case: Case) -> None:
    # The table's word is what the test above holds it to; files are credited group by group on the stage's.
    assert case.stage.by_group == case.by_group, (
        f"the table says by_group={case.by_group}, the stage by_group={case.stage.by_group}: give the decorator of "
        "each of its stages by_group=True if that stage never looks beyond a group, or the row by_group=False"
    )


@every(lambda case: reads_outcome(case) and case.shift)
@few
@given(world=flats(), by=st.integers(-40, 40))
def test_a_constant_added_to_all_rewards_changes_nothing(case: Case, world: Flat, by: int) -> None:
    shifted = case.credit(world.rollouts([r + by / 8 for r in world.rewards]))
    close(shifted.advantages, case.credit(world.rollouts()).advantages)


@every(lambda case: reads_outcome(case) and case.scale is not None)
@few
@given(world=flats(), factor=st.sampled_from([0.125, 3.0, 64.0]))
def test_rewards_multiplied_by_a_constant(case: Case, world: Flat, factor: float) -> None:
    assert case.scale is not None
    scaled = case.credit(world.rollouts([r * factor for r in world.rewards]))
    close(scaled.advantages, case.credit(world.rollouts()).advantages * factor**case.scale)


@every(lambda case: reads_outcome(case) and case.zero_when_equal)
@few
@given(world=flats(), reward=st.sampled_from([0.0, 1.0, 0.1, -0.7, 1e6 + 0.1]))
def test_a_group_of_equal_rewards_gets_no_credit(case: Case, world: Flat, reward: float) -> None:
    credit = case.credit(world.rollouts([reward] * len(world.ids)))
    close(credit.advantages, torch.zeros_like(credit.advantages), atol=1e-9 * max(1.0, abs(reward)))


@every(lambda case: case.zero_sum)
@few
@given(world=flats(untrained=False))
def test_one_number_an_episode_that_sums_to_zero_in_a_group(case: Case, world: Flat) -> None:
    ended = replace(world, ids=[[*row, 9] for row in world.ids], trained=[[*row, True] for row in world.trained])
    credit = case.credit(ended.rollouts())
    last = credit.rollouts.token_offsets[1:] - 1
    per_episode = credit.advantages[last]
    close(credit.advantages, per_episode[credit.rollouts.episode_of_token], atol=0)
    group = credit.rollouts.group_of_episode
    sums = torch.zeros(credit.rollouts.n_groups, dtype=torch.float64).index_add(0, group, per_episode)
    close(sums, torch.zeros_like(sums))


@every(lambda case: case.stage.compares_groups)
@few
@given(world=flats())
def test_a_group_of_one_gets_no_credit_and_is_counted(case: Case, world: Flat) -> None:
    alone = replace(world, groups=list(range(len(world.groups))))
    credit = case.credit(alone.rollouts())
    assert not credit.advantages.any()
    assert case.filters or torch.equal(credit.counted, credit.rollouts.trained)


# How rollouts are stored


@every()
@few
@given(world=flats(), width=st.integers(0, 3), pad=st.sampled_from([0, 1, 77]))
def test_padding_does_not_matter(case: Case, world: Flat, width: int, pad: int) -> None:
    credit = case.credit(world.rollouts())
    padded = case.credit(world.padded(width, pad))
    same_credit(padded, credit)
    matrix = padded.to_padded(width=7)
    inside = torch.arange(7) < ragged.lengths_of(credit.rollouts.token_offsets)[:, None]
    assert torch.equal(matrix[inside], credit.advantages)
    assert not matrix[~inside].any()


@every()
@few
@given(world=dialogues(), history=st.booleans())
def test_one_growing_response_or_one_a_turn(case: Case, world: Dialogues, history: bool) -> None:
    growing = case.credit(world.growing())
    separate = case.credit(world.separate(history))
    said = growing.rollouts.trained
    close(growing.advantages[said], separate.advantages)
    assert torch.equal(growing.trained[said], separate.trained)
    assert torch.equal(growing.counted[said], separate.counted)


@every()
@few
@given(world=dialogues())
def test_tool_output_gets_nothing(case: Case, world: Dialogues) -> None:
    credit = case.credit(world.growing())
    heard = ~credit.rollouts.trained
    assert not credit.advantages[heard].any()
    assert not credit.trained[heard].any()
    assert not credit.counted[heard].any()


@every(lambda case: reads_outcome(case) and case.totals)
@pytest.mark.parametrize("level", ["token", "turn", "response"])
@few
@given(world=dialogues(), dice=DICE)
def test_rewards_at_any_level_are_summed(case: Case, level: str, world: Dialogues, dice: random.Random) -> None:
    rollouts = world.growing() if level == "turn" else world.separate(history=True)
    rows = rollouts.rows(level)
    parts = torch.tensor(dice.choices(EIGHTHS, k=rows), dtype=torch.float64)
    response = {
        "token": rollouts.response_of_token,
        "turn": rollouts.response_of_span.get("turn"),
        "response": torch.arange(rollouts.n_responses),
    }[level]
    totals = torch.zeros(rollouts.n_episodes, dtype=torch.float64)
    for part, row in zip(parts.tolist(), response.tolist(), strict=True):
        totals[rollouts.episode_of_response[row]] += part
    bare = replace(rollouts, columns={n: c for n, c in rollouts.columns.items() if not n.endswith("/outcome")})
    below, at_end = bare.with_reward("outcome", parts, level=level), bare.with_reward("outcome", totals)
    close(case.credit(below).advantages, case.credit(at_end).advantages)


@every(reads_outcome)
@few
@given(world=flats())
def test_float32_rewards_are_computed_in_float64(case: Case, world: Flat) -> None:
    narrow = world.rollouts().with_reward("outcome", torch.tensor(world.rewards, dtype=torch.float32))
    close(case.credit(narrow).advantages, case.credit(world.rollouts()).advantages, atol=0)


@every()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_result_has_the_log_probs_dtype(case: Case, dtype: torch.dtype) -> None:
    world = Flat([[0, 1], [0]], [0, 0], [1.0, 0.0], [[True, True], [True]])
    prepared = case.prepare(world.rollouts())
    assert case.run(prepared).advantages.dtype == torch.float64
    behaviour = prepared.with_column("log_probs/behaviour", torch.full((3,), -1.0, dtype=dtype))
    if not prepared.has("log_probs/old"):
        assert case.run(behaviour).advantages.dtype == dtype
    both = behaviour.with_column("log_probs/old", torch.full((3,), -1.0, dtype=torch.float16))
    assert case.run(both).advantages.dtype == torch.float16


# Purity


@every()
@few
@given(world=flats())
def test_the_rollouts_are_not_changed_and_the_state_goes_round(case: Case, world: Flat) -> None:
    prepared = case.prepare(world.rollouts())
    columns = prepared.columns.items()
    before = {name: column.values.clone() for name, column in columns if isinstance(column.values, Tensor)}
    first = case.run(prepared, state=None)
    again = case.run(prepared, state=None)
    same_credit(again, first, atol=0)
    assert case.run(prepared, state=first.state).advantages.isfinite().all()
    for name, values in before.items():
        assert torch.equal(prepared.columns[name].tensor, values), name


@every()
def test_the_credit_as_columns(case: Case) -> None:
    world = Flat([[0, 1], [0], []], [0, 0, 0], [1.0, 0.0, 0.5], [[True, False], [True], []])
    credit = case.credit(world.rollouts())
    record = credit.record()
    assert torch.equal(record.column("credit/advantages"), credit.advantages)
    assert torch.equal(record.column("credit/trained"), credit.trained)
    assert torch.equal(record.column("credit/counted"), credit.counted)
    assert set(credit.columns) <= set(record.columns)
    assert all(name.split(":")[1].startswith("credit/") for name in credit.columns)


@every()
def test_no_episodes_and_empty_responses(case: Case) -> None:
    nobody = case.credit(Flat([], [], [], []).rollouts())
    assert nobody.advantages.shape == (0,)
    silent = case.credit(Flat([[], []], [0, 0], [1.0, 0.0], [[], []]).rollouts())
    assert silent.advantages.shape == (0,)


# Rewards that are not there


@every(drops_unknown)
@few
@given(world=flats(), dice=DICE)
def test_unknown_members(case: Case, world: Flat, dice: random.Random) -> None:
    unknown = torch.tensor([True, *(dice.random() < 0.4 for _ in world.ids[1:])])
    rewards = [None if lost else r for lost, r in zip(unknown.tolist(), world.rewards, strict=True)]
    prepared = case.prepare(world.rollouts(rewards))
    with pytest.raises(InputError, match=r"episodes have an unknown reward: score them, or pass unscored='drop'"):
        case.run(prepared)

    credit = case.run(prepared, unscored="drop")
    assert torch.equal(credit.unknown, unknown)
    lost = credit.select(unknown)
    assert not lost.advantages.any()
    assert not lost.trained.any()
    assert not lost.counted.any()
    same_credit(credit.select(~unknown), case.run(prepared.select(~unknown)))
    shown = [name for name in credit.columns if name.startswith("token:")]
    present = ~unknown[prepared.episode_of_token]
    assert all(torch.equal(credit.columns[name].present, present) for name in shown)


@every(drops_unknown)
@pytest.mark.parametrize("level", ["token", "turn", "response"])
def test_unknown_spreads_upwards(case: Case, level: str) -> None:
    turns = [[([0], [50]), ([1], [])], [([0], [50]), ([0], [])], [([1], [])]]
    world = Dialogues([[100]] * 3, turns, [0, 0, 0], [0.0, 0.0, 0.0])
    rollouts = world.growing() if level == "turn" else world.separate(history=True)
    bare = replace(rollouts, columns={n: c for n, c in rollouts.columns.items() if not n.endswith("/outcome")})
    values = torch.arange(rollouts.rows(level), dtype=torch.float64)
    scored = torch.ones(len(values), dtype=torch.bool)
    scored[3], values[3] = False, torch.nan
    credit = case.run(case.prepare(bare.with_reward("outcome", values, scored, level=level)), unscored="drop")
    assert credit.unknown.tolist() == [False, True, False]


@every(drops_unknown)
def test_a_group_that_dropping_leaves_with_one_is_dead_and_counted(case: Case) -> None:
    world = Flat(
        [[0, 1], [0, 0], [1], [0]], [0, 0, 4, 4], [1.0, 0.0, 1.0, 0.0], [[True, True], [True, True], [True], [True]]
    )
    credit = case.run(case.prepare(world.rollouts([1.0, None, 1.0, 0.0])), unscored="drop")
    if case.stage.compares_groups:
        assert not credit.advantages[:2].any()
    known = [True, True, False, False, True, True]
    for mask in (credit.trained, credit.counted):
        assert not mask[2:4].any()
        assert case.filters or mask.tolist() == known


@every(reads_outcome)
def test_nothing_known_at_all(case: Case) -> None:
    world = Flat([[0, 1], [0]], [0, 0], [1.0, 0.0], [[True, True], [True]])
    credit = case.run(case.prepare(world.rollouts([None, None])), unscored="drop")
    if drops_unknown(case):
        assert not credit.advantages.any()
        assert not credit.counted.any()


@every()
@few
@given(world=flats(), dice=DICE)
def test_other_origins_are_left_alone(case: Case, world: Flat, dice: random.Random) -> None:
    origins = dice.choices(ORIGINS, k=len(world.ids))
    outside = torch.tensor([origin not in case.stage.covers for origin in origins], dtype=torch.bool)
    rewards = [None if lost else r for lost, r in zip(outside.tolist(), world.rewards, strict=True)]
    prepared = case.prepare(with_origins(world.rollouts(rewards), origins))
    credit = case.run(prepared)
    others = credit.select(outside)
    assert not others.advantages.any()
    assert torch.equal(others.trained, others.rollouts.trained)
    assert torch.equal(others.counted, others.rollouts.trained)
    assert not credit.unknown.any()
    same_credit(credit.select(~outside), case.run(prepared.select(~outside)))


@every(reads_outcome)
def test_an_absent_reward_is_an_error_unless_nobody_credits_it(case: Case) -> None:
    world = Flat([[0, 1], [0], [1]], [0, 0, 0], [1.0, 0.0, 0.0], [[True, True], [True], [True]])
    values, present = torch.tensor([1.0, 0.0, torch.nan]), torch.tensor([True, True, False])
    prepared = case.prepare(world.rollouts()).with_reward("outcome", values, present=present)
    with pytest.raises(InputError, match=r"1 rows of 'episode:reward/outcome' are absent .*: score them, or give"):
        case.run(prepared, unscored="drop")
    credit = case.run(with_origins(prepared, ["policy", "policy", "demonstration"]))
    assert credit.advantages.isfinite().all()
    assert credit.unknown.tolist() == [False, False, False]


@every()
def test_a_missing_column_is_named_with_its_maker(case: Case) -> None:
    prepared = case.prepare(Flat([[0, 1], [0]], [0, 0], [1.0, 0.0], [[True, True], [True]]).rollouts())
    for name in case.stage.needs:
        full = prepared.find(name)
        without = replace(prepared, columns={n: c for n, c in prepared.columns.items() if n != full})
        with pytest.raises(MissingColumn) as raised:
            case.run(without)
        assert raised.value.column in (name, full)
        assert maker_of(name) in str(raised.value)
        assert repr(raised.value.column) in str(raised.value)


@every()
def test_another_way_to_treat_unknown_members_is_refused(case: Case) -> None:
    prepared = case.prepare(Flat([[0]], [0], [1.0], [[True]]).rollouts())
    with pytest.raises(InputError, match="unscored is 'ignore', expected 'error' or 'drop'"):
        case.run(prepared, unscored="ignore")
