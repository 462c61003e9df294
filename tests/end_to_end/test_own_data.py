"""A user's own questions, model and code, none of them part of this repository."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.cli.main import main
from apportion.models.digits import digit_llama
from apportion.rollouts.store import RolloutStore
from own_model import save_own_model

PAIRS = [(a, b) for a in range(1, 6) for b in (3, 5, 7, 9)]
ROWS: list[dict[str, Any]] = [{"question": f"What is {a} + {b}?", "answer": a + b} for a, b in PAIRS]
SMALL = "--steps 3 --eval-prompts 4 --prompts-per-step 2 --group-size 4 --max-new-tokens 6 --threads 1 --json"

MINE = '''
"""Nothing of this is in the repository."""

import torch

from apportion.credit import estimator
from apportion.objectives import Loss, Objective
from apportion.rewards import Verdict
from apportion.tasks import Source, Task


def tasks(count: int = 6) -> Source:
    every = [Task(f"{a}{b}=", str((a + b) % 10), "pairs") for a in range(count) for b in range(3)]
    return Source.divided("pairs", every, 4, seed=0, verifier="mine:length", what="pairs")


def length(prompt, response, answer):
    """Longer is better."""
    return len(response) / 4


def at_most(limit: int = 2):
    def verify(tasks, responses):
        return [Verdict(float(len(response) <= limit), f"{len(response)} characters") for response in responses]

    return verify


def last_token_only(scale: float = 1.0):
    """All of the reward on the last token."""

    @estimator(needs=("reward/outcome",))
    def last(work):
        return work.down("outcome") * scale

    return last


def squares(strength: float = 1.0):
    """Pulls log-probs of credited tokens towards 0; looks at whole groups."""

    def evaluate(now, rollouts, credit, clock):
        used = credit.trained
        value = strength * (credit.advantages[used] * now["log_probs"][used] ** 2).mean()
        return Loss(value, {"of_my_own": torch.tensor(float(rollouts.n_groups))})

    return Objective("group", ("log_probs",), evaluate=evaluate)


def teach(prompt, rng):
    return "12."
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    save_own_model(folder / "model")
    (folder / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with (folder / "my.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    import pyarrow
    import pyarrow.parquet

    chats = [{"prompt": [{"role": "user", "content": r["question"]}], "solution": str(r["answer"])} for r in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(chats), folder / "my.parquet")
    (folder / "mine.py").write_text(MINE)
    return folder


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    for name in ("mine", "models", "own"):  # of another test's folder
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(place)])
    return place


def train(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    code = main(["train", *shlex.split(line)])
    said = capsys.readouterr()
    assert code == 0, said.err
    summary: dict[str, Any] = json.loads(said.out)
    return summary


def texts(rollouts: Any, name: str) -> list[str]:
    return [str(text) for text in rollouts.columns[f"response:{name}"].text]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_twenty_questions_in_a_file_are_enough(ending: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"run_{ending}"
    line = f"instruct --model model --tasks my.{ending} --verifier integer --run {run} {SMALL}"
    summary = train(line, capsys)
    assert summary["steps"] == 3
    assert 0 <= summary["accuracy.after"] <= 1
    prompts, answers = set(), {row["question"]: str(row["answer"]) for row in ROWS}
    for _, rollouts in RolloutStore(inside / run / "rollouts"):
        assert rollouts.n_responses == 8
        prompts |= set(texts(rollouts, "prompt_text"))
        for prompt, answer in zip(texts(rollouts, "prompt_text"), texts(rollouts, "answer"), strict=True):
            assert answers[prompt] == answer
    evaluations = [json.loads(line) for line in (inside / run / "evaluations.jsonl").read_text().splitlines()]
    assert [e["sampled"]["pass@1"]["prompts"] for e in evaluations] == [4, 4]  # a fifth is held out
    assert prompts <= set(answers)
    assert main(["eval", run, "--samples", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 4


def test_questions_reach_the_model_as_its_chat_template_has_them(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapped = "--instruction 'Answer with a number. {prompt}' --steps 1"
    train(f"instruct --model model --tasks my.jsonl --verifier integer --run chat {SMALL} {wrapped}", capsys)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inside / "model")
    rollouts = RolloutStore(inside / "chat/rollouts").read(1)
    prompt = tokenizer.decode(rollouts.prompt_ids[rollouts.prompt_offsets[0] : rollouts.prompt_offsets[1]])
    question = texts(rollouts, "prompt_text")[0]
    assert prompt == f"<|user|>Answer with a number. {question}<|end|><|assistant|>"


def test_files_can_be_mixed_by_weight(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [{"question": f"What is {a} times 2?", "answer": 2 * a} for a in range(20)]
    (inside / "doubles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    tasks = "--tasks 0.9*my.jsonl '0.1*doubles.jsonl' --steps 12 --prompts-per-step 8 --group-size 2 --eval-prompts 0"
    train(f"instruct --model model --verifier integer --run mixed {SMALL} {tasks}", capsys)
    sources = [name for _, r in RolloutStore(inside / "mixed/rollouts") for name in texts(r, "task_source")[::2]]
    assert len(sources) == 96
    assert set(sources) == {"my", "doubles"}
    assert 2 <= sources.count("doubles") <= 22  # 9.6 expected


OWN = "quickstart --model digits(hidden=16,layers=1,heads=2) --warm-start "
OWN += "imitation(teacher='mine:teach',max_steps=2,decay=2) --tasks mine:tasks(count=5) "
OWN += "--credit mine:last_token_only(scale=2.0) --objective mine:squares(strength=0.5) clip "
OWN += "--max-new-tokens 4 --steps 2 --prompts-per-step 2 --group-size 3 --eval-prompts 4 --json"


def assert_own(run: Path, reward: Any) -> None:
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["of_my_own"] for line in metrics] == [2.0, 2.0]
    assert all("clip_fraction" in line for line in metrics)
    for _, rollouts in RolloutStore(run / "rollouts"):
        assert set(texts(rollouts, "task_source")) == {"pairs"}
        rewards = rollouts.column("episode:reward/outcome")
        assert rewards.tolist() == [reward(text) for text in texts(rollouts, "text")]
        expected = torch.zeros(rollouts.n_tokens)
        expected[rollouts.token_offsets[1:] - 1] = 2 * rewards.float()
        assert rollouts.column("credit/advantages").tolist() == expected.tolist()


def test_code_of_ones_own_in_the_current_folder(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(f"{shlex.join(OWN.split(' '))} --run here", capsys)
    assert_own(inside / "here", lambda text: len(text) / 4)


def test_code_of_ones_own_on_the_python_path(place: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "apportion"), "train", *OWN.split(" "), "--run", "there"]
    command += ["--verifier", "mine:at_most(limit=3)"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert_own(tmp_path / "there", lambda text: float(len(text) <= 3))


def test_a_model_of_ones_own(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inside / "models.py").write_text(
        "from apportion.models.digits import digit_llama\n\n\n"
        "def narrow(hidden=8, seed=0, dtype='float32'):\n    return digit_llama(hidden, 1, 2, seed=seed, dtype=dtype)\n"
    )
    tasks = "--tasks running_sum(digits=3,train=50,held_out=8) --max-new-tokens 3"
    train(f"instruct --model models:narrow(hidden=16) --verifier running_sum {SMALL} {tasks} --run narrow", capsys)
    saved = json.loads((inside / "narrow/checkpoints/step_000003/model/config.json").read_text())
    assert saved["hidden_size"] == 16
    assert digit_llama().config.hidden_size == 64


@pytest.mark.system
def test_smollm2_trains_on_twenty_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README does; the sampler's copy is in bfloat16, the trained weights are in float32."""
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = [str(Path(sys.executable).parent / "apportion"), "train", "instruct", "--tasks", "my.jsonl"]
    command += ["--verifier", "integer", "--steps", "5", "--eval-prompts", "4", "--run", "run", "--json"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - began
    print(f"five steps of SmolLM2: {seconds:.0f} s")
    summary = json.loads(done.stdout)
    assert summary["steps"] == 5
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["dtype"], config["sampling_dtype"]) == ("float32", "bfloat16")
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 5
    assert all(0 < line["mismatch_mean"] < 0.1 for line in metrics)
    assert max(line["reward"] for line in metrics) > 0  # it can add small numbers at times
    assert any(line["grad_norm"] > 0 for line in metrics)
    answered = texts(RolloutStore(tmp_path / "run/rollouts").read(5), "text")
    assert any(any(letter.isdigit() for letter in text) for text in answered)
    command = [command[0], "eval", "run", "--samples", "2", "--json"]
    measured = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert json.loads(measured.stdout)["prompts"] == 4, measured.stderr
