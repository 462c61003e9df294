"""The quickstart as a user runs it: one real run of 60 steps, then every verb on what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion import credit
from apportion.cli.main import main
from apportion.rollouts import ragged
from apportion.rollouts.store import RolloutStore, read

STEPS, SEED = 60, 1
COMMAND = Path(sys.executable).parent / "apportion"
METRICS = {"step", "seconds", "reward", "accuracy", "unknown", "groups_right", "groups_wrong", "groups_mixed"}
METRICS |= {"groups_unknown", "response_length", "truncated", "entropy", "mismatch_max", "mismatch_mean"}
METRICS |= {"advantage_std", "loss", "grad_norm", "learning_rate", "clip_fraction", "kl_old", "tokens_per_second"}


def apportion(*arguments: str | Path, folder: Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def done(place: Path) -> subprocess.CompletedProcess[str]:
    """The run, in the folder ``run``."""
    settings = ("--run", "run", "--steps", str(STEPS), "--seed", str(SEED), "--json")
    return apportion("train", "quickstart", *settings, folder=place)


@pytest.fixture(scope="module")
def run(place: Path, done: object) -> Path:
    return place / "run"


def test_it_learns_and_says_so(done: subprocess.CompletedProcess[str], run: Path) -> None:
    summary = json.loads(done.stdout)
    assert summary == json.loads((run / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["accuracy.after.interval"][0] > summary["accuracy.before.interval"][1]
    for when in ("before", "after"):
        low, high = summary[f"accuracy.{when}.interval"]
        assert 0 < low <= summary[f"accuracy.{when}"] <= high < 1
    assert 0 < summary["seconds"] < 600


def test_it_tells_what_it_does(done: subprocess.CompletedProcess[str]) -> None:
    said = done.stderr  # --json keeps standard output for the summary
    assert "108,480 trained parameters in float32" in said
    assert "after step 0: held-out accuracy" in said
    assert f"training {STEPS}/{STEPS}  reward" in said
    mismatch = next(line for line in said.splitlines() if line.startswith("largest difference between the sampler"))
    largest = float(mismatch.partition("log-probs: ")[2].split()[0])
    assert 0 < largest < 1e-4
    assert "refused above 0.01" in mismatch


def test_the_folder_tells_how_it_was_made(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert (config["steps"], config["seed"], config["model"], config["credit"]) == (STEPS, SEED, "digits", "grpo")
    environment = json.loads((run / "environment.json").read_text())
    assert torch.__version__.startswith(environment["versions"]["torch"].partition("+")[0])
    assert environment["command"][1:3] == ["train", "quickstart"]


def test_there_is_a_line_of_metrics_a_step(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        assert line.keys() >= METRICS
        assert line["seconds"] > 0
        assert abs(sum(line[f"groups_{kind}"] for kind in ("right", "wrong", "mixed", "unknown")) - 1) < 1e-9
    first, last = (sum(line["reward"] for line in part) / 10 for part in (lines[:10], lines[-10:]))
    assert last > first + 0.2
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


def test_every_step_has_its_rollouts_with_credit(run: Path) -> None:
    store = RolloutStore(run / "rollouts")
    assert store.steps() == list(range(1, STEPS + 1))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for step, rollouts in store:
        assert (rollouts.n_responses, rollouts.n_groups) == (64, 4)
        assert {"token:credit/advantages", "token:credit/trained", "token:log_probs/old"} <= set(rollouts.columns)
        reward = rollouts.column("episode:reward/outcome")
        assert float(reward.mean()) == pytest.approx(metrics[step - 1]["reward"])
        text = rollouts.columns["response:text"].text[0]
        assert len(str(text)) <= 8


def test_the_checkpoint_is_the_policy_and_loads_with_transformers_alone(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    last = Path("checkpoints") / f"step_{STEPS:06d}" / "model"
    assert json.loads((run / "summary.json").read_text())["checkpoint"] == str(Path("run") / last)
    assert AutoModelForCausalLM.from_pretrained(run / last).dtype is torch.float32
    model = AutoModelForCausalLM.from_pretrained(run / "checkpoints/step_000040/model")
    tokenizer = AutoTokenizer.from_pretrained(run / last)
    # What was drawn at step 41 was drawn from the weights after step 40.
    rollouts = RolloutStore(run / "rollouts").read(41)
    for b in range(0, 64, 8):
        start, end = rollouts.token_offsets[b : b + 2].tolist()
        p = int(rollouts.prompts[b])
        asked = rollouts.prompt_ids[rollouts.prompt_offsets[p] : rollouts.prompt_offsets[p + 1]]
        assert tokenizer.decode(asked) == rollouts.columns["response:prompt_text"].text[b]
        with torch.no_grad():
            logits = model(input_ids=torch.cat([asked, rollouts.ids[start:end]])[None]).logits[0, len(asked) - 1 : -1]
        log_probs = logits.log_softmax(-1).gather(1, rollouts.ids[start:end, None]).squeeze(1)
        assert torch.allclose(log_probs, rollouts.column("log_probs/old")[start:end], atol=1e-5)


def test_credit_is_what_the_library_gives(run: Path, place: Path) -> None:
    printed = apportion("credit", "tempo", f"run/rollouts/step_{STEPS:06d}.arrow", "--json", folder=place).stdout
    assert_same_as_the_library("tempo", printed, run)


@pytest.mark.parametrize("method", ["rloo", "grpo(norm_by_std=False)"])
def test_other_credit_is_what_the_library_gives(method: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credit", method, str(run / f"rollouts/step_{STEPS:06d}.arrow"), "--json"]) == 0
    assert_same_as_the_library(method, capsys.readouterr().out, run)


def assert_same_as_the_library(method: str, printed: str, run: Path) -> None:
    records = [json.loads(line) for line in printed.splitlines()]
    rollouts = read(run / f"rollouts/step_{STEPS:06d}.arrow")
    result = credit.build(method)(rollouts)
    for name, values in (("advantages", result.advantages), ("trained", result.trained), ("counted", result.counted)):
        assert [record[name] for record in records] == ragged.unflatten(values, rollouts.token_offsets)
    groups = rollouts.group_ids[rollouts.episode_of_response].tolist()
    assert [record["group"] for record in records] == groups
    assert any(value != 0 for record in records for value in record["advantages"])


def test_credit_anew_is_the_credit_it_was_trained_with(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / f"rollouts/step_{STEPS:06d}.arrow"
    assert main(["credit", "grpo", str(file), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rollouts = read(file)
    stored = ragged.unflatten(rollouts.column("credit/advantages"), rollouts.token_offsets)
    assert [record["advantages"] for record in records] == stored


def test_the_run_can_be_measured_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--samples", "4", "--prompts", "128", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["prompts"], result["samples"], set(result["sampled"])) == (128, 4, {"pass@1", "pass@4"})
    summary = json.loads((run / "summary.json").read_text())
    assert result["sampled"]["pass@1"]["value"] == pytest.approx(summary["accuracy.after"], abs=0.12)
    assert result["sampled"]["pass@1"]["low"] > summary["accuracy.before.interval"][1]
    assert result["sampled"]["pass@4"]["value"] >= result["sampled"]["pass@1"]["value"]


def test_its_policy_can_be_sampled_and_credited(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["--out", "x.jsonl", "--prompts", "6", "--group-size", "4", "--seed", "3"]
    assert main(["rollout", str(run), *settings]) == 0
    assert capsys.readouterr().out.startswith("24 responses to 6 prompts in x.jsonl: mean reward 0.")
    rollouts = read("x.jsonl")
    assert (rollouts.n_responses, rollouts.n_groups) == (24, 6)
    assert main(["credit", "rloo", "x.jsonl", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = credit.METHODS["rloo"]()(rollouts).advantages
    assert [a for record in records for a in record["advantages"]] == expected.tolist()
    assert main(["credit", "tempo", "x.jsonl", "--out", "credited.arrow"]) == 0
    expected = credit.METHODS["tempo"]()(rollouts).advantages
    assert read("credited.arrow").column("credit/advantages").tolist() == expected.tolist()


def test_it_ends_by_saying_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["train", "quickstart", "--run", "small", "--steps", "1", "--group-size", "4", "--eval-prompts", "16"]
    quick = "imitation(teacher='apportion.tasks.running_sum:demonstrate', max_steps=2, decay=2)"
    assert main([*small, "--tasks", "running_sum(digits=3, train=200, held_out=40)", "--warm-start", quick]) == 0
    said = capsys.readouterr().out
    assert "held-out accuracy       before                    after" in said
    hints = said.partition("where to look next:\n")[2]
    commands = [line.split("   ")[0].strip() for line in hints.splitlines() if line.strip().startswith("apportion ")]
    assert [command.split()[1] for command in commands] == ["eval", "view", "credit"]
    for command in commands:
        words = command.split()[1:]
        assert main([*words, "--terminal"] if words[0] == "view" else words) == 0, command
    assert "small/metrics.jsonl" in hints
    assert (tmp_path / "small/metrics.jsonl").is_file()


def test_the_teacher_leaves_room_to_learn(run: Path) -> None:
    first = json.loads((run / "evaluations.jsonl").read_text().splitlines()[0])
    assert 0.1 < first["sampled"]["pass@1"]["value"] < 0.5
    assert first["step"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_its_own_number_of_steps_gains_a_quarter(seed: int, place: Path) -> None:
    done = apportion("train", "quickstart", "--run", f"own_{seed}", "--seed", str(seed), "--json", folder=place)
    summary: dict[str, Any] = json.loads(done.stdout)
    assert summary["accuracy.after"] - summary["accuracy.before"] >= 0.25
    assert summary["accuracy.after.interval"][0] > summary["accuracy.before.interval"][1]
    assert summary["seconds"] <= 240
