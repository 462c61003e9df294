"""apportion grams: from rollouts to a file that the annotator reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apportion.annotations.planning_grams import read_grams
from apportion.cli.main import main
from apportion.rollouts.store import RolloutStore, read

RIGHT = [f"{word}. Let's try another way. {word} {word}" for word in ("one", "two", "three", "four")]
WRONG = ["That is just wrong. Seven", "That is just wrong. Eight"]


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    texts = [*((text, 1.0) for text in RIGHT), *((text, 0.0) for text in WRONG)]
    records = [
        {"group": i // 3, "ids": [i, 1], "reward": reward, "response": {"text": text}}
        for i, (text, reward) in enumerate(texts)
    ]
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(*words: Any) -> int:
    return main(["grams", *map(str, words)])


def test_phrases_of_correct_solutions_are_written(rollouts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = rollouts.with_name("grams.json")
    assert run(rollouts, "--out", out, "--top-fraction", 1.0) == 0
    shared = [
        "another way",
        "let's try",
        "let's try another",
        "let's try another way",
        "try another",
        "try another way",
    ]
    assert list(read_grams(str(out))) == [gram for gram in shared if len(gram.split()) >= 3]
    said = capsys.readouterr().out
    assert said.startswith("3 phrases in ")
    assert f"from 4 solutions, in {out}" in said
    content = json.loads(out.read_text())
    assert content["settings"]["source"] == str(rollouts)
    assert content["settings"]["min_solutions"] == 2


def test_a_run_s_folder_is_read_step_by_step(rollouts: Path, tmp_path: Path) -> None:
    whole, run_folder = read(rollouts), tmp_path / "run"
    store = RolloutStore(run_folder / "rollouts")
    for step, group in enumerate(whole.groups(), start=1):
        store.write(step, group)
    for source, out in ((rollouts, "one.json"), (run_folder, "two.json")):
        assert run(source, "--out", tmp_path / out, "--min-words", 2, "--top-fraction", 0.5) == 0
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["clusters"] == two["clusters"]
    assert any("another way" in cluster["grams"] for cluster in one["clusters"])


def test_another_reward_and_threshold(rollouts: Path, tmp_path: Path) -> None:
    assert run(rollouts, "--out", tmp_path / "all.json", "--threshold", -1.0, "--top-fraction", 1.0) == 0
    assert "that is just wrong" in read_grams(str(tmp_path / "all.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "grams needs a run or a file of rollouts"),
        (("rollouts.jsonl",), "grams needs --out FILE, ending in .json"),
        (("rollouts.jsonl", "--out", "grams.txt"), "grams needs --out FILE, ending in .json"),
        (("rollouts.jsonl", "--out", "rollouts.json"), "rollouts.json exists already"),
        (("nothing.jsonl", "--out", "grams.json"), "nothing.jsonl is not a file that exists"),
        (("folder", "--out", "grams.json"), "folder holds no rollouts of a run"),
        (("rollouts.jsonl", "--out", "grams.json", "--component", "style"), "mining needs the column"),
        (("rollouts.jsonl", "--out", "grams.json", "--threshold", "1"), "occurs in 2 of the 0 distinct solutions"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    words: tuple[str, ...],
    said: str,
    rollouts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(rollouts.parent)
    (rollouts.parent / "folder").mkdir()
    (rollouts.parent / "rollouts.json").write_text("")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (rollouts.parent / "grams.json").exists()
