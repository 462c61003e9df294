"""The list of allowed skips, and the run that fails on others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from golden.pending import PENDING_FILE, Pending, read_pending


def test_read(tmp_path: Path) -> None:
    file = tmp_path / "pending.txt"
    file.write_text("# why\n\ngolden: loop\nskip: no accelerator\n")
    assert read_pending(file) == Pending(("loop",), ("no accelerator",))


@pytest.mark.parametrize("line", ["loop", "gold: loop", "golden:", "golden: a\ngolden: a"])
def test_a_line_of_another_form_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "pending.txt"
    file.write_text(line)
    with pytest.raises(ValueError, match=r"pending\.txt:"):
        read_pending(file)


def test_unlisted() -> None:
    pending = Pending(("loop",), ("no accelerator",))
    assert pending.unlisted(["golden: loop", "no accelerator here", "no accelerator here"]) == []
    assert pending.unlisted(["no", "golden: loop_amdp", "no", "golden: loop"]) == ["golden: loop_amdp", "no"]
    assert Pending((), ()).unlisted(["anything"]) == ["anything"]


SUITE = """
import pytest
def test_listed():
    pytest.skip("golden: loop")
@pytest.mark.xfail(strict=True)
def test_expected_to_fail(): assert False
@pytest.mark.skip(reason="felt like it")
def test_unlisted(): pass
"""


@pytest.mark.parametrize(
    ("option", "ci", "code"),
    [
        pytest.param(["--strict-skips"], "", 1, id="option"),
        pytest.param([], "true", 1, id="CI"),
        pytest.param([], "", 0, id="lenient"),
    ],
)
def test_a_strict_run_fails_on_unlisted_skips(tmp_path: Path, option: list[str], ci: str, code: int) -> None:
    tests = PENDING_FILE.parent / "tests"
    (tmp_path / "tests" / "golden").mkdir(parents=True)
    for name in ("conftest.py", "golden/__init__.py", "golden/pending.py"):
        shutil.copy(tests / name, tmp_path / "tests" / name)
    (tmp_path / "tests" / "test_suite.py").write_text(SUITE)
    (tmp_path / "pending.txt").write_text("golden: loop\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *option, "tests"],
        env={**os.environ, "CI": ci},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert ("felt like it" in ended.stdout) == (code == 1)
    assert "golden: loop" not in ended.stdout
