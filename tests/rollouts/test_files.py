"""What holds of both file formats: the round trip, streaming, and whole files or none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings

from apportion import rollouts as package
from apportion.errors import InputError, RunStopped
from apportion.rollouts import Rollouts, RolloutStore, join
from strategies import assert_same
from strategies import rollouts as any_rollouts

torch.set_num_threads(1)


class Format(NamedTuple):
    ending: str
    write: Callable[[Rollouts, Path], None]
    read: Callable[[Path], Rollouts]
    stream: Callable[[Path], Iterator[Rollouts]]


JSONL = Format(".jsonl", package.write_jsonl, package.read_jsonl, package.stream_jsonl)
ARROW = Format(".arrow", package.write_arrow, package.read_arrow, package.stream_arrow)
both_formats = pytest.mark.parametrize("form", [JSONL, ARROW], ids=["jsonl", "arrow"])


def two() -> Rollouts:
    return Rollouts.from_lists([[5, 6], [7]], groups=[0, 1], rewards=[1.0, None])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@both_formats
@settings(max_examples=80, deadline=None)
@given(any_rollouts())
def test_what_is_read_is_what_was_written(form: Format, folder: Path, rollouts: Rollouts) -> None:
    path = folder / f"round{form.ending}"
    form.write(rollouts, path)
    assert_same(form.read(path), rollouts)
    assert_same(package.read(path), rollouts)


@both_formats
@settings(max_examples=40, deadline=None)
@given(any_rollouts(contiguous=True))
def test_a_stream_gives_the_groups(form: Format, folder: Path, rollouts: Rollouts) -> None:
    path = folder / f"stream{form.ending}"
    form.write(rollouts, path)
    for given_group, wanted in zip(form.stream(path), rollouts.groups(), strict=True):
        assert_same(given_group, wanted)


@settings(max_examples=20, deadline=None)
@given(any_rollouts())
def test_both_formats_hold_the_same(folder: Path, rollouts: Rollouts) -> None:
    package.write_jsonl(rollouts, folder / "same.jsonl")
    package.write_arrow(package.read_jsonl(folder / "same.jsonl"), folder / "same.arrow")
    assert_same(package.read_arrow(folder / "same.arrow"), rollouts)


@both_formats
def test_a_view_of_larger_storage_and_a_tensor_with_gradient_are_written(form: Format, tmp_path: Path) -> None:
    values = torch.arange(8.0, requires_grad=True)[1:7:2]
    rollouts = two().with_column("x", values)
    form.write(rollouts, tmp_path / f"a{form.ending}")
    assert form.read(tmp_path / f"a{form.ending}").column("x").tolist() == [1.0, 3.0, 5.0]


@both_formats
@pytest.mark.parametrize("values", [torch.zeros(3, dtype=torch.complex64), torch.zeros(3, 1, 1)])
def test_columns_that_files_cannot_hold(form: Format, tmp_path: Path, values: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"column 'token:x' is .* of shape .*, expected real numbers of shape"):
        form.write(two().with_column("x", values), tmp_path / f"a{form.ending}")
    assert list(tmp_path.iterdir()) == []


@both_formats
@pytest.mark.parametrize("setting", [float("nan"), {1: 2}, torch.float32])
def test_settings_that_files_cannot_hold(form: Format, tmp_path: Path, setting: object) -> None:
    with pytest.raises(InputError, match="column 'token:x' was made with a setting that files cannot hold"):
        form.write(two().with_column("x", torch.zeros(3), window=setting), tmp_path / f"a{form.ending}")


@both_formats
def test_a_reward_without_scored_gets_it(form: Format, tmp_path: Path) -> None:
    rollouts = two().with_column("token:reward/x", torch.ones(3), torch.tensor([True, False, True]), "judge")
    form.write(rollouts, tmp_path / f"a{form.ending}")
    scored = form.read(tmp_path / f"a{form.ending}").columns["token:scored/x"]
    assert scored.present is not None
    assert scored.present.tolist() == [True, False, True]
    assert scored.tensor[scored.present].all()
    assert scored.maker == "judge"


@both_formats
def test_a_write_that_fails_leaves_the_file_that_was_there(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{form.ending}"
    form.write(two(), path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(RunStopped, match=r"failed \(No space left on device\).*make room on the disk"):
                form.write(join([two(), two()]), path)
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        assert_same(form.read(path), two())


@both_formats
def test_an_interrupt_leaves_nothing_half_written(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        form.write(two(), tmp_path / f"a{form.ending}")
    assert list(tmp_path.iterdir()) == []


FULL_AND_KILLED = """
import os, resource, signal, sys
import torch
from apportion.errors import RunStopped
from apportion.rollouts import Rollouts, RolloutStore, write_arrow, write_jsonl

folder = sys.argv[1]
small = Rollouts.from_lists([[1]], groups=[0])
large = Rollouts.from_lists([list(range(100_000))], groups=[0])
RolloutStore(folder).write(0, small)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for write, name in ((write_arrow, "a.arrow"), (write_jsonl, "a.jsonl")):
    try:
        write(large, f"{folder}/{name}")
    except RunStopped as error:
        print(error)
print(sorted(os.listdir(folder)))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
sys.stdout.flush()
RolloutStore(folder).write(1, large)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")
def test_a_full_disk_and_a_kill_in_the_middle_of_a_write(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FULL_AND_KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    arrow, jsonl, names = child.stdout.splitlines()
    assert arrow.startswith(f"writing {tmp_path / 'a.arrow'} failed (File too large)")
    assert jsonl.startswith(f"writing {tmp_path / 'a.jsonl'} failed (File too large)")
    assert names == "['step_000000.arrow']"

    assert child.returncode == -9, child.stderr
    left = {path.name for path in tmp_path.iterdir()} - {"step_000000.arrow"}
    assert len(left) == 1, "the killed writer leaves its temporary file"
    store = RolloutStore(tmp_path)
    assert store.steps() == [0]
    store.drop_after(0)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000.arrow"]
    assert store.read(0).n_tokens == 1


@both_formats
def test_a_folder_that_is_not_there(form: Format, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .* \(No such file or directory\).*make the folder"):
        form.write(two(), tmp_path / "nowhere" / f"a{form.ending}")
    (tmp_path / f"folder{form.ending}").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        form.write(two(), tmp_path / f"folder{form.ending}")
    assert len(list(tmp_path.iterdir())) == 1


@both_formats
def test_a_file_that_is_not_there(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"a{form.ending}"
    for read in (form.read, lambda path: list(form.stream(path))):
        with pytest.raises(InputError, match=f"cannot read {path}"):
            read(path)
    for open_ in (package.read, package.stream):
        with pytest.raises(InputError, match=f"{path} is not a file that exists"):
            open_(path)


def test_endings_choose_the_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in '.csv', expected one of .jsonl, .ndjson, .json, .arrow"):
        package.read(tmp_path / "a.csv")
    with pytest.raises(InputError, match="ends in 'nothing'"):
        package.stream(tmp_path / "a")
    for ending in (".jsonl", ".ndjson", ".JSON"):
        package.write_jsonl(two(), tmp_path / f"a{ending}")
        assert_same(package.read(tmp_path / f"a{ending}"), two())
        assert [group.n_tokens for group in package.stream(tmp_path / f"a{ending}")] == [2, 1]
    package.write_arrow(two(), tmp_path / "a.arrow")
    assert [group.n_tokens for group in package.stream(tmp_path / "a.arrow")] == [2, 1]
