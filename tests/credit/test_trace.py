"""What stages made is what they made: by hand, for every method, and where episodes are left out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from apportion import credit
from apportion.credit import METHODS, Reward, Work, add, chain, per_component, scale, shaper, token_filter
from apportion.credit.trace import is_recording, own_details, recording, traces
from apportion.rollouts import Rollouts
from credit.cases import CASES, Case
from credit.worlds import Flat, few, flats

GROUP = Rollouts.from_lists([[1, 2], [1, 3]], groups=[0, 0], rewards=[1.0, 0.0])


@shaper(needs=("reward/outcome",))
def doubled(work: Work) -> dict[str, Reward]:
    reward = work.rewards["outcome"]
    return {"outcome": Reward(reward.level, 2 * reward.values, reward.scored)}


@token_filter()
def last_only(work: Work) -> tuple[torch.Tensor, torch.Tensor]:
    last = torch.zeros_like(work.trained).index_fill_(0, work.rollouts.token_offsets[1:] - 1, True)
    return last, work.counted


def told(method: credit.Stage, rollouts: Rollouts = GROUP) -> list[tuple[str, str, str, list[float]]]:
    with recording():
        given = method(rollouts, unscored="drop")
    return [(t.stage, t.kind, t.component, t.values.tensor.tolist()) for t in traces(given)]


def test_a_chain_tells_what_each_stage_made_in_order() -> None:
    method = chain(doubled, METHODS["rloo"](), scale(0.5), last_only)
    assert told(method) == [
        ("doubled", "shaper", "outcome", [2.0, 2.0, 0.0, 0.0]),
        ("leave_one_out", "estimator", "", [2.0, 2.0, -2.0, -2.0]),
        ("scaled", "modifier", "", [1.0, 1.0, -1.0, -1.0]),
        ("last_only", "filter", "", [0.0, 1.0, 0.0, -1.0]),
    ]


def test_the_parts_of_a_sum_are_all_there_and_counted_on() -> None:
    both = chain(add(METHODS["rloo"](), chain(METHODS["rloo"](), scale(0.25))), scale(2.0))
    assert [(stage, values[0]) for stage, _, _, values in told(both)] == [
        ("leave_one_out", 1.0),
        ("leave_one_out", 1.0),
        ("scaled", 0.25),
        ("add", 1.25),
        ("scaled", 2.5),
    ]


def test_a_sum_of_components_too() -> None:
    twice = GROUP.with_reward("style", torch.tensor([0.0, 1.0]))
    method = per_component(
        {"outcome": METHODS["rloo"](), "style": METHODS["rloo"]("style")}, {"outcome": 1, "style": 3}
    )
    assert [values[0] for _, _, _, values in told(method, twice)] == [1.0, 1.0, -1.0, -3.0, -2.0]


def test_several_groups_and_an_episode_that_is_left_out() -> None:
    rollouts = Rollouts.from_lists(
        [[1], [2], [3], [4], [5]], groups=[0, 0, 0, 1, 1], rewards=[1.0, None, 0.0, 0.0, 1.0]
    )
    with recording():
        given = chain(METHODS["rloo"](), scale(0.5))(rollouts, unscored="drop")
    first, second = traces(given)
    assert first.values.present.tolist() == [True, False, True, True, True]
    assert first.values.tensor.tolist() == [1.0, 0.0, -1.0, -1.0, 1.0]
    assert second.values.tensor.tolist() == given.advantages.tolist() == [0.5, 0.0, -0.5, -0.5, 0.5]


def test_nothing_is_kept_unless_asked_for_nor_after_an_error() -> None:
    assert traces(METHODS["tempo"]()(GROUP)) == []
    with pytest.raises(ZeroDivisionError), recording():
        _ = 1 / 0
    assert not is_recording()
    assert traces(METHODS["tempo"]()(GROUP)) == []


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in CASES])
@few
@given(world=flats())
def test_recording_changes_no_method_and_ends_with_its_advantages(case: Case, world: Flat) -> None:
    rollouts = case.prepare(world.rollouts())
    plain = case.credit(rollouts)
    with recording():
        told_too = case.credit(rollouts)
    assert torch.equal(plain.advantages, told_too.advantages)
    assert torch.equal(plain.trained, told_too.trained)
    assert torch.equal(plain.counted, told_too.counted)
    assert own_details(told_too).keys() == plain.columns.keys()
    found = traces(told_too)
    assert found
    last = [trace for trace in found if trace.kind != "shaper"][-1].values
    made = last.tensor if last.present is None else last.tensor.where(last.present, torch.zeros(()).double())
    assert torch.equal(made.to(told_too.advantages.dtype), told_too.advantages)
