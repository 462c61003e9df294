"""A package that is not installed gives the line that installs it; credit and objectives need torch and numpy only."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from places import lines, snapshot

HERE = Path(__file__).parent
INSTALL = 'run pip install "apportion[train]".'

CASES = {
    "pyarrow": ("train tabular --run new", "pyarrow"),
    "peft": ("train quickstart --run new --lora-rank 2", "peft"),
    "reasoning_gym": ("train quickstart --run new --tasks chain_sum", "reasoning-gym"),
}
VERBS = [
    "train tabular",
    "rollout run",
    "credit tempo rollouts.jsonl",
    "compare run",
    "view rollouts.jsonl",
    "report rollouts.jsonl -o report.html",
    "grams rollouts.jsonl --out grams.json",
    "eval run",
    "claims --list",
    "methods",
    "methods --example",
    "doctor",
]
CREDIT_ALONE = """
import apportion.credit, apportion.objectives
from apportion.rollouts.store import read
method = apportion.credit.METHODS["tempo"](norm_by_std=False)
print(method(read("rollouts.jsonl")).advantages.tolist())
objective = apportion.objectives.build("clip(high=0.28)", "kl")
print(objective.needs)
"""
ALL_VERBS = f"""
import contextlib, io, shlex
from apportion.cli.main import main
for line in {VERBS!r}:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(shlex.split(line))
    print(code, said.getvalue(), end="")
print(main(["--version"]), main([]))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    records = [{"group": 0, "ids": [1, 2], "reward": 1.0}, {"group": 0, "ids": [1, 3], "reward": 0.0}]
    lines(tmp_path / "rollouts.jsonl", records)
    return tmp_path


def without(packages: str, arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "without.py"), packages, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_missing_package_gives_the_line_that_installs_it(place: Path) -> None:
    before = snapshot(place)
    running = {name: without(name, shlex.split(line), place) for name, (line, _) in CASES.items()}
    said = {name: process.communicate(timeout=120) for name, process in running.items()}
    for name, (_, package) in CASES.items():
        output, error = said[name]
        assert running[name].returncode == 2, (name, error)
        assert error.startswith("apportion: "), name
        assert error.count("\n") == 1, (name, error)
        assert INSTALL in error, name
        assert package in error, name
        assert output == "", name
    assert snapshot(place) == before


def test_credit_and_objectives_need_torch_and_numpy_only(place: Path) -> None:
    process = without("all", ["-c", CREDIT_ALONE], place)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert output.splitlines()[0] == "[0.5, 1.0, -0.5, -1.0]"
    assert "log_probs/reference" in output


def test_every_verb_says_what_to_install_where_there_are_torch_and_numpy_only(place: Path) -> None:
    before = snapshot(place)
    process = without("all", ["-c", ALL_VERBS], place)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    first = output.splitlines()[: len(VERBS)]
    for line, verb in zip(first, VERBS, strict=True):
        assert line.startswith("2 apportion: "), verb
        assert line.endswith(INSTALL), verb
    assert output.splitlines()[-1] == "0 0"
    assert snapshot(place) == before


@pytest.mark.slow
def test_credit_in_an_environment_of_torch_and_numpy_only(place: Path) -> None:
    """A real environment: nothing but torch with its dependencies, numpy and this package can be imported."""
    import torch
    from without import LIGHT

    import apportion

    site, source = Path(torch.__file__).parents[1], Path(apportion.__file__).parents[1]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    inside = next((place / "venv/lib").glob("python*/site-packages"))
    for name in sorted(p.name for p in site.iterdir()):
        package = name.partition(".")[0].partition("-")[0]
        if package in LIGHT - {"apportion", "setuptools"} or package == "numpy" or package.startswith("torch"):
            (inside / name).symlink_to(site / name)
    (inside / "source.pth").write_text(f"{source}\n")
    python = str(place / "venv/bin/python")
    found = subprocess.run([python, "-c", CREDIT_ALONE], cwd=place, capture_output=True, text=True)
    assert found.stdout.startswith("[0.5, 1.0, -0.5, -1.0]"), found.stderr
    absent = subprocess.run([python, "-c", "import transformers"], cwd=place, capture_output=True, text=True)
    assert "No module named 'transformers'" in absent.stderr
    command = [python, "-m", "apportion.cli.main", "credit", "tempo", "rollouts.jsonl"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith(INSTALL + "\n")
