"""Tables for pandas, held against plain lists."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from apportion.errors import InputError
from apportion.rollouts import Rollouts, to_pandas
from naive import plain
from strategies import rollouts as any_rollouts

torch.set_num_threads(1)


def example() -> Rollouts:
    rollouts = Rollouts.from_lists(
        [[5, 6], [7], [8]], groups=[3, 3, 4], episodes=[0, 0, 1], rewards=[1.0, None], trained=[[1, 0], [1], [1]]
    )
    rollouts = rollouts.with_statistic("log_probs/old", torch.tensor([-1.0, -2.0, -3.0, -4.0]), "trainer")
    rollouts = rollouts.with_spans("step", torch.tensor([1, 3]), torch.tensor([2, 4]))
    scored = torch.tensor([[True, False], [True, True]])
    rollouts = rollouts.with_reward("critics", torch.ones(2, 2), scored, level="step")
    rollouts = rollouts.with_column("response:version", torch.tensor([1, 2, 3]), torch.tensor([True, True, False]))
    rollouts = rollouts.with_column("response:origin", ("stored", None, "policy"))
    rollouts = rollouts.with_pairs(torch.tensor([0]), torch.tensor([1]))
    return rollouts.with_column("pair:margin", torch.tensor([0.5])).with_column("id", torch.tensor([0, 1, 2, 3]))


def rows(rollouts: Rollouts, level: str) -> list[tuple[Any, ...]]:
    frame = to_pandas(rollouts, level)
    return list(frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None))


def test_every_level() -> None:
    rollouts = example()
    assert list(to_pandas(rollouts)) == [
        *("group", "episode", "response", "position", "id", "trained", "log_probs/old", "token:id")
    ]
    assert rows(rollouts, "token") == [
        (3, 0, 0, 0, 5, True, -1.0, 0),
        (3, 0, 0, 1, 6, False, None, 1),
        (3, 0, 1, 0, 7, True, -3.0, 2),
        (4, 1, 2, 0, 8, True, -4.0, 3),
    ]
    assert list(to_pandas(rollouts, "response"))[4:] == ["tokens", "version", "origin"]
    assert rows(rollouts, "response") == [
        (3, 0, 0, 0, 2, 1, "stored"),
        (3, 0, 1, 1, 1, 2, None),
        (4, 1, 2, 0, 1, None, "policy"),
    ]
    assert rows(rollouts, "episode") == [(3, 0, 3, 1.0, True), (4, 1, 1, None, False)]
    assert list(to_pandas(rollouts, "step"))[6:] == [
        *("reward/critics[0]", "reward/critics[1]", "scored/critics[0]", "scored/critics[1]")
    ]
    assert rows(rollouts, "step") == [
        (3, 0, 0, 0, 1, 2, 1.0, None, True, False),
        (4, 1, 2, 0, 0, 1, 1.0, 1.0, True, True),
    ]
    assert rows(rollouts, "pair") == [(0, 1, 0.5)]


def test_dtypes_are_nullable_only_where_something_is_missing() -> None:
    dtypes = to_pandas(example(), "response").dtypes
    assert str(dtypes["tokens"]) == "int64"
    assert str(dtypes["version"]) == "Int64"
    assert str(to_pandas(example()).dtypes["log_probs/old"]) == "Float32"


@settings(max_examples=20, deadline=None)
@given(any_rollouts())
def test_tables_have_the_rows_of_their_level(rollouts: Rollouts) -> None:
    frame = to_pandas(rollouts)
    ids = [id for episode in plain(rollouts) for response in episode["responses"] for id in response["ids"]]
    assert frame["id"].tolist() == ids
    for level in ("response", "episode", "pair", *rollouts.spans):
        assert len(to_pandas(rollouts, level)) == rollouts.rows(level)


def test_a_level_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"unknown level 'stpe'.*token, response, episode, pair, step"):
        to_pandas(example(), "stpe")


def test_without_pandas_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="pip install pandas"):
        to_pandas(example())
