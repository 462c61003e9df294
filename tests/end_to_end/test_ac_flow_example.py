"""examples/ac_flow.py runs, and shows what it says it shows."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/ac_flow.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("ac_flow_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_reward_alone_collapses_and_the_wasserstein_term_holds(seed: int, example: Any) -> None:
    before, reward, held, critic = example.run(seed, steps=60, pretraining=500, report=lambda text: None)
    assert before.clusters == 4
    assert before.reward == pytest.approx(0.41, abs=0.05)  # 1.8 / 4, less the spread of a cluster
    assert reward.clusters == 1
    assert reward.shares[0] > 0.9
    for way in (held, critic):  # both rewarded clusters stay, the better one ahead
        assert 0.5 < way.shares[0] < 0.9
        assert way.shares[1] > 0.1
    assert before.reward + 0.2 < held.reward < reward.reward
    assert held.reward < critic.reward
    # Without a critic a sample has one weight at all times; with one, what was foreseen late no longer counts.
    for way in (reward, held):
        assert max(way.spread) - min(way.spread) < 0.05
    assert critic.spread[2] < 0.6 * critic.spread[0]


def test_it_runs_as_a_program(example: Any) -> None:
    words = [sys.executable, str(EXAMPLE), "--seed", "3"]
    done = subprocess.run([*words, "--steps", "1", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("pretraining")
    results = [example.Measured(**row) for row in json.loads(done.stdout)]
    lines = example.table(results)
    assert [line.split()[0] for line in lines[1:]] == ["pretrained", "reward", "reward+w2", "critic+w2"]
    assert f"{results[1].reward:.3f}" in lines[2]
    refused = subprocess.run([*words, "--steps", "0"], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "--steps is 0, expected at least 1" in refused.stderr
