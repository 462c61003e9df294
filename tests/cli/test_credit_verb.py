"""``apportion credit``: what is printed, what is written, and what the library gives are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion import credit
from apportion.cli.main import main
from apportion.credit import Clock
from apportion.rollouts import Rollouts, ragged
from apportion.rollouts.store import read, write

METHODS = ["none", "grpo", "rloo", "tempo", "tempo(norm_by_std=False)", "gae(whiten=True)", "gae(lam=0.9)"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three groups of responses with rewards, one of them unknown in ``unknown.jsonl``, and a critic's values."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(1, 4, (int(n),), generator=generator).tolist() for n in torch.arange(12) % 4 + 1]
    rollouts = Rollouts.from_lists(
        ids,
        groups=[i // 4 for i in range(12)],
        rewards=torch.rand(12, generator=generator).tolist(),
        prompts=[[9, i // 4] for i in range(12)],
    )
    rollouts = rollouts.with_column("values/critic", torch.rand(rollouts.n_tokens, generator=generator).double())
    path = tmp_path / "rollouts.jsonl"
    write(rollouts, path)
    reward = rollouts.column("episode:reward/outcome")
    scored = torch.arange(12) != 1
    write(rollouts.with_reward("outcome", reward, scored), tmp_path / "unknown.jsonl")
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["credit", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def flat(records: list[dict[str, Any]], name: str = "advantages") -> list[float]:
    return [value for record in records for value in record[name]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ending", ["jsonl", "arrow"])
def test_printed_written_and_computed_are_the_same(
    method: str, ending: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = file.with_suffix(f".{ending}"), file.with_name(f"out.{ending}")
    if ending == "arrow":
        write(read(file), source)
    expected = credit.build(method)(read(file))
    records = printed(capsys, method, str(source))
    assert flat(records) == expected.advantages.tolist()
    assert flat(records, "trained") == expected.trained.tolist()
    assert [record["episode"] for record in records] == list(range(12))
    assert main(["credit", method, str(source), "--out", str(out)]) == 0
    assert "12 responses with credit in" in capsys.readouterr().out
    written = read(out)
    assert written.column("credit/advantages").tolist() == expected.advantages.tolist()
    assert written.ids.tolist() == read(file).ids.tolist()
    assert (expected.advantages != 0).any() == (method != "none")


def test_one_group_at_a_time_is_the_same_for_methods_that_look_no_further(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("grpo", "rloo", "tempo"):
        whole, parts = printed(capsys, method, str(file)), printed(capsys, method, str(file), "--by-group")
        assert flat(whole) == flat(parts)
        assert [r["episode"] for r in parts] == [r["episode"] for r in whole]
    # One that compares with the whole batch sees less.
    whole, parts = (printed(capsys, "gae", str(file), *more) for more in ((), ("--by-group",)))
    assert flat(whole) != flat(parts)


def test_details_are_printed_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = printed(capsys, "tempo", str(file))
    rollouts = read(file)
    expected = credit.METHODS["tempo"]()(rollouts)
    after = ragged.unflatten(expected.columns["token:credit/prefix_value_after"].tensor, rollouts.token_offsets)
    assert [record["credit/prefix_value_after"] for record in records] == after


def test_people_get_a_line_a_response(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["credit", "grpo", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    advantages = credit.METHODS["grpo"]()(read(file)).advantages
    assert len(lines) == 13
    assert f"advantages {float(advantages[0]):+.4f} to {float(advantages[0]):+.4f}" in lines[0]
    assert lines[-1] == f"12 responses, {len(advantages)} tokens, {len(advantages)} with an advantage other than 0"


def test_unknown_rewards_can_be_left_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = str(file.with_name("unknown.jsonl"))
    records = printed(capsys, "rloo", unknown, "--drop-unknown")
    assert [record["unknown"] for record in records] == [i == 1 for i in range(12)]
    assert records[1]["advantages"] == [0.0] * len(records[1]["advantages"])
    assert not any(records[1]["trained"])
    rewards = read(file).column("episode:reward/outcome")
    others = rewards[torch.tensor([2, 3])].mean()
    assert records[0]["advantages"][0] == pytest.approx(float(rewards[0] - others))


def test_a_method_may_read_the_clock(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "fading.py").write_text(
        "from apportion.credit import estimator\n\n\n"
        "def fading():\n"
        "    @estimator(needs=('reward/outcome',), reads_clock=True)\n"
        "    def fade(work, state, clock):\n"
        "        return work.down('outcome') * (1 - clock.step / clock.total_steps)\n\n"
        "    return fade\n"
    )
    monkeypatch.syspath_prepend(str(file.parent))
    records = printed(capsys, "fading:fading", str(file), "--step", "3", "--total-steps", "4")
    expected = credit.build("fading:fading")(read(file), clock=Clock(3, 4)).advantages.tolist()
    assert flat(records) == expected
    assert max(expected) > 0
    assert main(["credit", "fading:fading", str(file)]) == 2
    assert "was given no clock: pass --step and --total-steps" in capsys.readouterr().err
