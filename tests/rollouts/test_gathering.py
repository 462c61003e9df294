"""Files read group by group wherever the records of a group stand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.rollouts import Rollouts, groups_of, read, stream_jsonl
from apportion.rollouts.store import write
from naive import entries, plain, plain_pairs
from strategies import assert_same
from strategies import rollouts as any_rollouts

torch.set_num_threads(1)


def written(folder: Path, *records: dict[str, Any] | str) -> Path:
    path = folder / "given.jsonl"
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gathering")


@pytest.mark.parametrize("ending", ["jsonl", "arrow"])
@given(rollouts=any_rollouts(), dice=st.integers(0, 2**32).map(random.Random))
def test_groups_of_a_shuffled_file_are_those_of_the_rollouts(
    ending: str, rollouts: Rollouts, dice: random.Random, folder: Path
) -> None:
    order = torch.tensor(dice.sample(range(rollouts.n_episodes), rollouts.n_episodes), dtype=torch.int64)
    path = folder / f"shuffled.{ending}"
    shuffled = rollouts.select(order)
    write(shuffled, path)
    found = list(groups_of(path))
    ids = [int(group.group_ids[0]) for group in found]
    assert ids == list(dict.fromkeys(shuffled.group_ids.tolist()))
    for wanted in shuffled.groups():
        assert_same(found[ids.index(int(wanted.group_ids[0]))], wanted)
    in_order = list(groups_of(path, keep_order=True))
    assert [i for part in in_order for i in part.ids.tolist()] == shuffled.ids.tolist()
    runs = sum(a != b for a, b in zip(["", *shuffled.group_ids.tolist()], shuffled.group_ids.tolist(), strict=False))
    assert len(in_order) == (len(ids) if runs == len(ids) else 1)


def test_a_group_has_the_columns_that_other_records_mention(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"group": "shown", "ids": [1, 2], "response": {"origin": "demonstration"}},
        {"group": "drawn", "ids": [3], "reward": 1, "token": {"log_probs/old": [-1]}, "spans": {"step": [[0, 1]]}},
        {"group": "drawn", "ids": [4], "reward": None, "spans": {"step": {"ranges": [[0, 1]], "note": ["a"]}}},
    )
    assert "episode:reward/outcome" not in next(iter(stream_jsonl(path))).columns
    shown, drawn = groups_of(path)
    assert set(shown.columns) == set(drawn.columns) == set(read(path).columns)
    assert entries(shown.columns["episode:reward/outcome"]) == [None]
    assert entries(shown.columns["episode:scored/outcome"]) == [None]
    assert entries(shown.columns["token:log_probs/old"]) == [None, None]
    assert entries(shown.columns["step:note"]) == []
    assert shown.columns["step:note"].text == ()
    assert len(shown.spans["step"].starts) == 0
    assert entries(drawn.columns["episode:scored/outcome"]) == [True, False]


def test_what_a_column_holds_is_told_by_the_first_entry_that_is_not_null(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"group": 0, "ids": [1]},
        {"group": 1, "ids": [2], "response": {"note": None}, "episode_columns": {"reward/two": None}},
        {"group": 2, "ids": [3], "response": {"note": "text"}, "episode_columns": {"reward/two": [0.5, None]}},
    )
    first, second, third = groups_of(path)
    assert first.columns["response:note"].text == (None,)
    assert first.columns["episode:reward/two"].tensor.shape == (1, 2)
    assert third.columns["response:note"].text == ("text",)
    assert second.n_tokens == 1


def test_declarations_and_pairs_may_stand_anywhere(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"group": 0, "episode": "a", "ids": [1], "token": {"x": [1]}},
        {"group": 1, "episode": "c", "ids": [3]},
        {"group": 0, "episode": "b", "ids": [2]},
        {"pair": {"preferred": "b", "other": "a"}},
        {"columns": {"x": {"dtype": "float32", "maker": "me"}}},
    )
    zero, one = groups_of(path)
    assert zero.columns["token:x"].maker == one.columns["token:x"].maker == "me"
    assert zero.columns["token:x"].tensor.dtype == torch.float32
    assert plain_pairs(zero) == [(1, 0, [])]
    assert plain_pairs(one) == []
    (whole,) = groups_of(path, keep_order=True)
    assert plain(whole) == plain(read(path))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"group": 0, "ids": [1]}, "not JSON"], "line 2 is not JSON"),
        ([{"group": 0, "ids": [1]}, {"group": 1, "ids": [2]}, {"group": 0, "ids": "x"}], "line 3: ids is 'x'"),
        ([{"group": 0, "ids": [1]}, {"ids": [2]}], "line 2: a record without 'group'"),
        ([{"group": 0, "ids": [1]}, {"group": None, "ids": [2]}], "line 2: group is null"),
        ([{"group": 0, "ids": [1]}, {"group": [1], "ids": [2]}], "line 2: 'group' is"),
        ([{"group": 0, "ids": [1]}, {"group": "0", "ids": [2]}], "line 2: group is '0', but earlier records"),
        (
            [{"group": 0, "episode": 1, "ids": [1]}, {"group": 0, "ids": [2]}, {"group": 0, "episode": 1, "ids": [3]}],
            "line 3: episode 1 comes again after another began",
        ),
        (
            [{"group": 0, "episode": 0, "ids": [1]}, {"pair": {"preferred": 0, "other": 7}}],
            "line 2: a pair of episode 7, expected episodes that are in this file",
        ),
        ([], "is empty, expected one record a response"),
    ],
)
@pytest.mark.parametrize("keep_order", [False, True])
def test_a_file_that_cannot_be_used(
    records: list[dict[str, Any] | str], message: str, keep_order: bool, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        list(groups_of(written(tmp_path, *records), keep_order))


def test_torn_json_is_found_before_the_first_group(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 2 is not JSON"):
        groups_of(written(tmp_path, {"group": 0, "ids": [1]}, '{"group": 1, "ids": [5'))
