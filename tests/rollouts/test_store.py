"""The store of a run, and Arrow files that cannot be used."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from apportion.errors import InputError
from apportion.rollouts import Rollouts, RolloutStore, read_arrow, stream_arrow, write_arrow
from strategies import assert_same

torch.set_num_threads(1)


def some(n: int) -> Rollouts:
    return Rollouts.from_lists([[n, 6], [7]], groups=[n, n + 1], rewards=[1.0, None])


def test_a_store_keeps_steps_in_order(tmp_path: Path) -> None:
    store = RolloutStore(tmp_path / "run" / "rollouts")
    assert store.steps() == []
    for step in (12, 0, 1_234_567):
        store.write(step, some(step))
    (store.folder / "step_13.arrow").touch()
    (store.folder / ".step_000013.arrow.0a1b.tmp").touch()
    assert store.path(12).name == "step_000012.arrow"
    assert store.steps() == [0, 12, 1_234_567]
    assert [step for step, _ in store] == [0, 12, 1_234_567]
    for step, rollouts in store:
        assert_same(rollouts, some(step))
    assert_same(store.read(12), some(12))


def test_going_on_from_a_step_drops_what_came_later(tmp_path: Path) -> None:
    store = RolloutStore(tmp_path)
    for step in range(4):
        store.write(step, some(step))
    (tmp_path / ".step_000004.arrow.0a1b.tmp").touch()
    (tmp_path / "notes.txt").touch()
    store.drop_after(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step_000000.arrow", "step_000001.arrow"]
    store.write(2, some(9))
    assert_same(store.read(2), some(9))
    store.drop_after(-1)
    assert store.steps() == []


def test_a_step_is_written_once(tmp_path: Path) -> None:
    store = RolloutStore(tmp_path)
    store.write(3, some(3))
    with pytest.raises(InputError, match=r"step_000003.arrow is there already.*drop the steps after 2"):
        store.write(3, some(4))
    with pytest.raises(InputError, match="step is -1, expected 0 or more"):
        store.write(-1, some(4))
    assert_same(store.read(3), some(3))


def test_a_step_that_is_not_there(tmp_path: Path) -> None:
    store = RolloutStore(tmp_path)
    with pytest.raises(InputError, match="has no rollouts of step 1, expected one it holds: no steps"):
        store.read(1)
    store.write(3, some(3))
    with pytest.raises(InputError, match="expected one it holds: steps 3 to 3"):
        store.read(1)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        RolloutStore(tmp_path / "file").write(0, some(0))


def test_other_readers_see_a_row_a_response(tmp_path: Path) -> None:
    rollouts = Rollouts.from_lists(
        [[5, 6], [7], [8]], groups=[3, 3, 4], episodes=[0, 0, 1], prompts=[[1], [2], [1]], rewards=[1.0, None]
    )
    rollouts = rollouts.with_statistic("log_probs/old", torch.tensor([-1.0, -2.0, -3.0, -4.0]), "trainer")
    rollouts = rollouts.with_spans("step", torch.tensor([2, 3]), torch.tensor([3, 4]))
    write_arrow(rollouts, tmp_path / "a.arrow")
    with pa.ipc.open_file(str(tmp_path / "a.arrow")) as file:
        table = file.read_all()
    assert table.to_pydict() == {
        "group": [3, 3, 4],
        "episode": [0, 0, 1],
        "prompt": [0, 1, 2],
        "prompt_ids": [[1], [2], [1]],
        "ids": [[5, 6], [7], [8]],
        "step.starts": [[], [0], [0]],
        "step.ends": [[], [1], [1]],
        "episode:reward/outcome": [1.0, 1.0, None],
        "episode:scored/outcome": [True, True, False],
        "token:log_probs/old": [[-1.0, -2.0], [-3.0], [-4.0]],
    }


def test_groups_of_a_stream_need_not_stand_together(tmp_path: Path) -> None:
    rollouts = Rollouts.from_lists([[1], [2], [3], [4]], groups=[5, 0, 5, 0], prompts=[[1], [1], [2], [1]])
    write_arrow(rollouts, tmp_path / "a.arrow")
    groups = {int(group.group_ids[0]): group for group in stream_arrow(tmp_path / "a.arrow")}
    assert list(groups) == [5, 0]
    for wanted in rollouts.groups():
        assert_same(groups[int(wanted.group_ids[0])], wanted)


def rewritten(path: Path, change: Any) -> None:
    """The file with its table changed."""
    with pa.ipc.open_file(str(path)) as file:
        table = change(file.read_all())
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def of_version_two(table: pa.Table) -> pa.Table:
    metadata = json.loads(table.schema.metadata[b"apportion"]) | {"schema": "apportion.rollouts/2"}
    return table.replace_schema_metadata({"apportion": json.dumps(metadata)})


def with_short_lists(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("token:x")
    return table.set_column(place, "token:x", pa.array([[1.0], [2.0]], type=table.schema.field(place).type))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_version_two, "a.arrow was written with schema 'apportion.rollouts/2', expected 'apportion.rollouts/1'"),
        (lambda table: table.replace_schema_metadata(None), "is an Arrow file of something else than rollouts"),
        (with_short_lists, "'token:x' has lists of other lengths than the token lists"),
    ],
)
def test_arrow_files_that_cannot_be_used(tmp_path: Path, change: Any, message: str) -> None:
    write_arrow(some(0).with_column("x", torch.zeros(3)), tmp_path / "a.arrow")
    rewritten(tmp_path / "a.arrow", change)
    for read in (read_arrow, lambda path: list(stream_arrow(path))):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.arrow")


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"something else", None])
def test_torn_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.arrow"
    write_arrow(some(0), path)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(InputError, match=r"is not a whole Arrow file|cannot read"):
        read_arrow(path)


def test_without_pyarrow_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] in ("pyarrow", "pandas"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for act in (lambda: write_arrow(some(0), tmp_path / "a.arrow"), lambda: read_arrow(tmp_path / "a.arrow")):
        with pytest.raises(InputError, match=r'pip install "apportion\[train\]"'):
            act()
