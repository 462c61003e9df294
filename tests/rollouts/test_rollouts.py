"""Construction, columns, select, join and groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError, MissingColumn
from apportion.rollouts import Column, Pairs, Rollouts, Spans, join
from naive import entries, plain, plain_pairs
from strategies import assert_same
from strategies import rollouts as any_rollouts

torch.set_num_threads(1)


def three() -> Rollouts:
    """Three episodes in two groups; the second has two responses."""
    return Rollouts.from_lists(
        [[5, 6, 7], [8], [9, 10], [11]],
        groups=[0, 1, 1, 0],
        episodes=[0, 1, 1, 2],
        prompts=[[1], [1, 2], [1, 2, 8], [1]],
        rewards=[1.0, None, 0.0],
        trained=[[1, 1, 0], [1], [1, 1], [1]],
    )


def parts(**changed: Any) -> dict[str, Any]:
    """The fields of two one-response episodes, some of them changed."""
    return {
        "ids": torch.tensor([5, 6, 7]),
        "token_offsets": torch.tensor([0, 2, 3]),
        "response_offsets": torch.tensor([0, 1, 2]),
        "group_ids": torch.tensor([0, 0]),
        "prompt_ids": torch.tensor([1]),
        "prompt_offsets": torch.tensor([0, 1]),
        "prompts": torch.tensor([0, 0]),
        **changed,
    }


def spans(*ranges: tuple[int, int]) -> dict[str, Spans]:
    table = torch.tensor(ranges).reshape(-1, 2)
    return {"step": Spans(table[:, 0], table[:, 1])}


def columns(name: str, values: Any, present: Any = None) -> dict[str, Column]:
    return {name: Column(values, present)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": torch.tensor([5.0, 6.0, 7.0])}, "ids is torch.float32"),
        ({"ids": torch.zeros(3, 1, dtype=torch.int64)}, "ids is torch.int64 of shape (3, 1)"),
        ({"token_offsets": torch.tensor([0, 2, 4])}, "token_offsets must run from 0 to 3"),
        ({"token_offsets": torch.tensor([1, 2, 3])}, "token_offsets must run from 0 to 3"),
        ({"token_offsets": torch.tensor([0, 4, 3])}, "token_offsets decreases"),
        ({"response_offsets": torch.tensor([0, 1])}, "response_offsets must run from 0 to 2"),
        ({"response_offsets": torch.tensor([0, 0, 2])}, "an episode has no responses"),
        ({"prompt_offsets": torch.tensor([0, 2])}, "prompt_offsets must run from 0 to 1"),
        ({"group_ids": torch.tensor([0])}, "group_ids has 1 entries, expected 2"),
        ({"group_ids": torch.tensor([0.0, 0.0])}, "group_ids is torch.float32"),
        ({"prompts": torch.tensor([0])}, "prompts has 1 entries, expected 2"),
        ({"prompts": torch.tensor([0, 1])}, "prompts names rows outside 0..0"),
        ({"prompts": torch.tensor([0, -1])}, "prompts names rows outside 0..0"),
        ({"spans": spans((0, 4))}, "a step span lies outside the 3 tokens"),
        ({"spans": spans((-1, 1))}, "a step span lies outside the 3 tokens"),
        ({"spans": spans((1, 1))}, "a step span is empty"),
        ({"spans": spans((0, 2), (1, 2))}, "step spans overlap or are unsorted"),
        ({"spans": spans((1, 2), (0, 1))}, "step spans overlap or are unsorted"),
        ({"spans": spans((1, 3))}, "a step span crosses from one response into the next"),
        ({"pairs": Pairs(torch.tensor([0]), torch.tensor([2]))}, "pairs.other names rows outside 0..1"),
        ({"pairs": Pairs(torch.tensor([0]), torch.tensor([0, 1]))}, "pairs.other has 2 entries, expected 1"),
        ({"columns": columns("token:x", torch.zeros(2))}, "column 'token:x' has 2 entries, expected 3, one a token"),
        ({"columns": columns("stpe:x", torch.zeros(2))}, "unknown level 'stpe'"),
        (
            {"columns": columns("episode:x", torch.zeros(2), torch.ones(2))},
            "the presence mask of 'episode:x' must be bool of shape (2,)",
        ),
        (
            {"columns": columns("token:trained", torch.ones(3).bool(), torch.tensor([True, True, False]))},
            "column 'token:trained' has missing entries",
        ),
        (
            {"columns": columns("episode:reward/x", torch.zeros(2)) | columns("token:reward/x", torch.zeros(3))},
            "the reward 'reward/x' lives at two levels",
        ),
        (
            {"columns": columns("episode:reward/x", torch.zeros(2)) | columns("episode:scored/x", torch.ones(2, 1))},
            "'episode:reward/x' and its scored column have different shapes",
        ),
        ({"columns": columns("episode:x", torch.tensor([0.0, torch.nan]))}, "has a value that is not finite"),
        ({"columns": columns("episode:reward/x", torch.tensor([0.0, torch.inf]))}, "has a value that is not finite"),
        (
            {"columns": columns("token:log_probs/old", torch.tensor([-1.0, 0.5, -1.0]))},
            "column 'token:log_probs/old' has a log-probability of 0.5, expected at most 0",
        ),
    ],
)
def test_an_invariant_that_does_not_hold_is_named(changed: dict[str, Any], message: str) -> None:
    Rollouts(**parts())
    with pytest.raises(InputError) as error:
        Rollouts(**parts(**changed))
    assert message in str(error.value)


def test_values_that_do_not_count_need_not_be_finite() -> None:
    nan = torch.tensor([torch.nan, -1.0, -1.0])
    rollouts = Rollouts(**parts())
    rollouts.with_column("x", nan, present=torch.tensor([False, True, True]))
    rollouts.with_column("trained", ~torch.isnan(nan)).with_column("log_probs/old", nan)
    rollouts.with_reward("x", nan, scored=~torch.isnan(nan), level="token")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": [0]}, "got 1 group ids for 2 responses"),
        ({"groups": [0, 0], "episodes": [0]}, "got 1 episodes for 2 responses"),
        ({"groups": [0, 1], "episodes": [4, 4]}, "the responses of an episode are in different groups"),
        ({"groups": [0, 0], "trained": [[1, 1], [1, 1]]}, "trained has rows of other lengths than ids"),
        ({"groups": [0, 0], "rewards": [1.0]}, "column 'episode:reward/outcome' has 1 entries, expected 2"),
    ],
)
def test_lists_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rollouts.from_lists([[5, 6], [7]], **arguments)


def test_lists_become_levels() -> None:
    rollouts = three()
    assert (rollouts.n_tokens, rollouts.n_responses, rollouts.n_episodes, rollouts.n_groups) == (7, 4, 3, 2)
    assert rollouts.episode_of_token.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert rollouts.response_of_token.tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert rollouts.trained.tolist() == [True, True, False, True, True, True, True]
    assert [episode["responses"][0]["prompt"] for episode in plain(rollouts)] == [[1], [1, 2], [1]]


def test_defaults_where_no_column_says_otherwise() -> None:
    rollouts = Rollouts.from_lists([[5, 6], [7]], groups=[0, 0])
    assert rollouts.trained.all()
    assert rollouts.weight.tolist() == [1.0, 1.0, 1.0]
    assert rollouts.temperature.tolist() == [1.0, 1.0]
    assert rollouts.origin == ("policy", "policy")
    marked = rollouts.with_column("response:temperature", torch.tensor([0.5, 9.0]), torch.tensor([True, False]))
    assert marked.temperature.tolist() == [0.5, 1.0]
    assert marked.with_column("response:origin", (None, "stored")).origin == ("policy", "stored")


def test_a_missing_column_says_who_makes_it() -> None:
    with pytest.raises(MissingColumn, match=r"grpo needs the column 'token:log_probs/old'.*the trainer makes it"):
        three().column("token:log_probs/old", reader="grpo")
    with pytest.raises(MissingColumn, match=r"'reward/format'.*a verifier or a process reward makes it"):
        three().column("reward/format")


def test_a_missing_entry_that_is_used_is_an_error_and_one_that_is_not_used_is_none() -> None:
    rollouts = three().with_statistic("log_probs/old", -torch.ones(7), "trainer")
    assert rollouts.column("log_probs/old").shape == (7,)
    with pytest.raises(InputError, match="at 1 rows where it is missing"):
        rollouts.column("log_probs/old", where=torch.tensor([2]))


def test_unknown_absent_and_zero_are_three_things() -> None:
    values, scored = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([True, False, False])
    present = torch.tensor([True, True, False])
    rollouts = three().with_reward("format", values, scored, present)
    assert rollouts.column("scored/format", where=torch.tensor([0, 1])).tolist()[:2] == [True, False]
    with pytest.raises(InputError, match="'episode:scored/format' at 1 rows where it is missing"):
        rollouts.column("scored/format")
    assert rollouts.find("reward/format") == "episode:reward/format"


def test_levels_cannot_be_kinds_of_span() -> None:
    with pytest.raises(InputError, match="'token' is a level of its own"):
        three().with_spans("token", torch.tensor([0]), torch.tensor([1]))


def test_columns_hold_numbers_or_text() -> None:
    with pytest.raises(InputError, match="holds text, expected numbers"):
        _ = Column(("a",)).tensor
    with pytest.raises(InputError, match="holds numbers, expected text"):
        _ = Column(torch.zeros(1)).text


@settings(max_examples=40, deadline=None)
@given(any_rollouts(), st.data())
def test_select_is_picking_episodes(rollouts: Rollouts, data: st.DataObject) -> None:
    index = data.draw(
        st.lists(st.integers(0, rollouts.n_episodes - 1), unique=True) if rollouts.n_episodes else st.just([])
    )
    chosen = rollouts.select(torch.tensor(index, dtype=torch.int64))
    episodes = plain(rollouts)
    assert plain(chosen) == [episodes[i] for i in index]
    pairs = plain_pairs(rollouts)
    if pairs is None:
        assert chosen.pairs is None
    else:
        kept = [(index.index(p), index.index(o), c) for p, o, c in pairs if p in index and o in index]
        assert plain_pairs(chosen) == kept
    mask = torch.zeros(rollouts.n_episodes, dtype=torch.bool)
    mask[index] = True
    assert_same(rollouts.select(mask), rollouts.select(torch.tensor(sorted(index), dtype=torch.int64)))


@settings(max_examples=40, deadline=None)
@given(any_rollouts(), st.data())
def test_consecutive_episodes_are_those_picked_one_by_one(rollouts: Rollouts, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, rollouts.n_episodes))
    last = data.draw(st.integers(first, rollouts.n_episodes))
    assert_same(rollouts.between(first, last), rollouts.select(torch.arange(first, last)))


def test_consecutive_episodes_are_not_copied() -> None:
    rollouts = three().with_column("values/critic", torch.zeros(three().n_tokens))
    part = rollouts.between(1, 3)
    assert part.ids.untyped_storage().data_ptr() == rollouts.ids.untyped_storage().data_ptr()
    values = (r.column("values/critic").untyped_storage().data_ptr() for r in (part, rollouts))
    assert len(set(values)) == 1


@settings(max_examples=40, deadline=None)
@given(any_rollouts())
def test_groups_are_the_episodes_of_equal_id_and_join_puts_them_together(rollouts: Rollouts) -> None:
    groups = list(rollouts.groups())
    assert len(groups) == rollouts.n_groups
    episodes = plain(rollouts)
    wanted = sorted({episode["group"] for episode in episodes})
    assert [plain(group) for group in groups] == [[e for e in episodes if e["group"] == id] for id in wanted]
    if groups:
        assert plain(join(groups)) == [episode for group in groups for episode in plain(group)]


def test_join_leaves_missing_what_a_part_does_not_have() -> None:
    first = (
        three().with_column("response:origin", ("stored",) * 4).with_spans("step", torch.tensor([0]), torch.tensor([2]))
    )
    first = first.with_column("step:score/prm", torch.tensor([[0.5, 1.0]])).with_pairs(
        torch.tensor([0]), torch.tensor([2])
    )
    second = Rollouts.from_lists([[1]], groups=[0]).with_pairs(torch.tensor([0]), torch.tensor([0]))
    second = second.with_column("pair:margin", torch.tensor([2.0]))
    both = join([first, second])
    assert both.n_groups == 2
    assert both.origin == ("stored",) * 4 + ("policy",)
    assert both.trained.tolist() == [*first.trained.tolist(), True]
    assert entries(both.columns["episode:scored/outcome"]) == [True, False, True, None]
    assert plain_pairs(both) == [(0, 2, [None]), (3, 3, [2.0])]
    assert plain(both)[0]["responses"][0]["spans"]["step"][0]["columns"] == {"step:score/prm": [[0.5, 1.0]]}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Column(torch.zeros(3), maker="b"), "one part was made by a with {}, another by b"),
        (Column(torch.zeros(3), maker="a", parameters={"window": 3}), "another by a with {'window': 3}"),
        (Column(("x", "y", "z"), maker="a"), "holds text, expected numbers"),
        (Column(torch.zeros(3, 2), maker="a"), "rows of one part have shape"),
    ],
)
def test_join_refuses_columns_made_differently(other: Column, message: str) -> None:
    bare = Rollouts(**parts())
    first = bare.with_column("x", torch.zeros(3), maker="a")
    second = bare.with_column("x", other.values, maker=other.maker, **other.parameters)
    with pytest.raises(InputError, match=message):
        join([first, second])
    with pytest.raises(InputError, match="no rollouts to join"):
        join([])


@settings(max_examples=20, deadline=None)
@given(any_rollouts())
def test_moving_to_a_device_changes_nothing(rollouts: Rollouts) -> None:
    assert_same(rollouts.to("cpu"), rollouts)
