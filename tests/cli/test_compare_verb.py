"""``apportion compare``: its numbers are those of the library, its tokens are the ones that methods differ about."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion import credit
from apportion.cli.main import main
from apportion.credit import Clock
from apportion.rollouts import Rollouts, RolloutStore
from apportion.rollouts.store import write
from reference import agreement as naive
from runs import DIGITS, TABULAR, begin

SPECS = ["grpo", "tempo(norm_by_std=False, eps=0.0)", "pure"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps on a small transformer, with a process reward."""
    folder = tmp_path_factory.mktemp("compare") / "run"
    begin(folder, dataclasses.replace(DIGITS, annotators=("partial_sums",), prompts_per_step=3))
    return folder


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table, which has no tokenizer."""
    folder = tmp_path_factory.mktemp("tabular") / "run"
    begin(folder, TABULAR)
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    result = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(result, dict)
    return result


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main(["compare", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main(["compare", *map(str, arguments)]) == 2
    given = capsys.readouterr()
    assert given.out == ""
    assert given.err.count("\n") == 1
    return given.err


@dataclasses.dataclass
class Token:
    """A token as this test sees it, with what every method gives it."""

    step: int
    response: int
    place: int
    given: list[float]


def tokens_of(run: Path, specs: list[str], steps: list[int]) -> list[Token]:
    """Trained tokens of episodes whose rewards are all known, credited step by step."""
    found = []
    for step in steps:
        rollouts = RolloutStore(run / "rollouts").read(step)
        results = [credit.build(spec)(rollouts, None, Clock(step - 1, 4), "drop") for spec in specs]
        for b in range(rollouts.n_responses):
            start, end = rollouts.token_offsets[b : b + 2].tolist()
            if any(bool(result.unknown[b]) for result in results):
                continue
            found += [
                Token(step, b, t - start, [float(result.advantages[t]) for result in results])
                for t in range(start, end)
            ]
    return found


def test_the_numbers_are_those_of_plain_loops(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, run, "--credit", ",".join(SPECS))
    tokens = tokens_of(run, SPECS, [1, 2, 3, 4])
    columns = list(zip(*(token.given for token in tokens), strict=True))
    assert result["tokens"] == len(tokens)
    assert (result["steps"], result["groups"], result["responses"]) == ([1, 2, 3, 4], 12, 48)
    assert [method["credit"] for method in result["methods"]] == SPECS
    for method, column in zip(result["methods"], columns, strict=True):
        assert method["rms"] == pytest.approx(naive.rms(column))
        assert method["share_of_tokens"]["value"] == pytest.approx(naive.earning(column))
    assert [pair["credit"] for pair in result["pairs"]] == [SPECS[:2], [SPECS[0], SPECS[2]], SPECS[1:]]
    for pair in result["pairs"]:
        i, j = (SPECS.index(name) for name in pair["credit"])
        parts = [
            tuple([token.given[k] for token in tokens if token.step == step] for k in (i, j)) for step in range(1, 5)
        ]
        expected = {
            "pearson": naive.pearson(columns[i], columns[j]),
            "spearman": naive.spearman_of_parts(parts),
            "same_sign": naive.same_sign(columns[i], columns[j]),
        }
        for name, value in expected.items():
            assert pair[name]["value"] == pytest.approx(value), (pair["credit"], name)
            assert pair[name]["low"] <= pair[name]["high"]
        assert result["pearson"][i][j] == result["pearson"][j][i] == pair["pearson"]["value"]
        assert result["spearman"][i][j] == pair["spearman"]["value"]
        assert pair["tokens_with_both"] == sum(bool(t.given[i] and t.given[j]) for t in tokens)


def test_the_tokens_are_those_that_methods_differ_most_about(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, run, "--credit", ",".join(SPECS), "--top", "30")
    tokens = tokens_of(run, SPECS, [1, 2, 3, 4])
    largest: dict[tuple[int, int], tuple[float, Token]] = {}
    for token, apart in zip(tokens, naive.disagreement([token.given for token in tokens]), strict=True):
        key = (token.step, token.response)
        if key not in largest or apart > largest[key][0] + 1e-12:
            largest[key] = (apart, token)
    expected = sorted((apart for apart, _ in largest.values()), reverse=True)[:30]
    assert [record["apart"] for record in result["disagreements"]] == pytest.approx(expected)
    assert len({(record["step"], record["response"]) for record in result["disagreements"]}) == 30
    for record in result["disagreements"]:
        apart, token = largest[record["step"], record["response"]]
        assert record["apart"] == pytest.approx(apart)
        assert record["token"] == token.place
        assert list(record["advantages"].values()) == pytest.approx(token.given)
        units = list(record["in_rms"].values())
        assert max(units) - min(units) == pytest.approx(record["apart"])
        stored = RolloutStore(run / "rollouts").read(record["step"])
        assert record["id"] == int(stored.ids[stored.token_offsets[token.response] + token.place])
        assert record["group"] == int(stored.group_ids[token.response])
        assert record["prompt"] == stored.columns["response:prompt_text"].text[token.response]
        text = record["before"] + record["text"] + record["after"]
        assert text.replace("<pad>", "") == stored.columns["response:text"].text[token.response]
        reward = float(stored.column("episode:reward/outcome")[token.response])
        assert record["rewards"]["outcome"] == pytest.approx(reward)


def test_people_see_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, run, "--credit", ",".join(SPECS), "--top", "2")
    text = said(capsys, run, "--credit", ",".join(SPECS), "--top", "2")
    first = result["disagreements"][0]
    assert text.startswith(
        f"{run}, 4 steps from 1 to 4: {result['tokens']:,} trained tokens of 48 responses in 12 groups"
    )
    rows = [line.split() for line in text.splitlines()]
    pearson, spearman = result["pearson"], result["spearman"]
    assert [*rows[rows.index(["1", "2", "3"]) + 1][-2:]] == [f"{pearson[0][1]:.3f}", f"{pearson[0][2]:.3f}"]
    assert [*rows[rows.index(["1", "2", "3"]) + 3][-2:]] == [f"{spearman[2][0]:.3f}", f"{spearman[2][1]:.3f}"]
    pair = result["pairs"][0]["pearson"]
    assert f"{pair['value']:.3f} [{pair['low']:.3f}, {pair['high']:.3f}]" in text
    assert f"{first['apart']:.2f} apart at step {first['step']} group {first['group']} " in text
    assert f"{first['before']}>>{first['text']}<<{first['after']}" in text
    assert text.count(" apart at ") == 2
    assert "\x1b" not in text  # not a terminal


def test_steps_may_be_chosen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--credit", "grpo,tempo", "--top", "1"]
    for steps, chosen in (("2:3", [2, 3]), ("3:", [3, 4]), (":2", [1, 2]), ("4", [4]), ("0:99", [1, 2, 3, 4])):
        result = printed(capsys, run, *both, "--steps", steps)
        assert result["steps"] == chosen
        assert result["tokens"] == len(tokens_of(run, ["grpo", "tempo"], chosen))
        assert result["disagreements"][0]["step"] in chosen
    assert f"{run}, step 4: " in said(capsys, run, *both, "--steps", "4")


def test_methods_keep_state_and_see_the_clock(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "going.py").write_text(
        "from apportion.credit import Result, estimator\n\n\n"
        "def going(clocked):\n"
        "    @estimator(needs=('reward/outcome',), init=lambda: 0, reads_clock=clocked)\n"
        "    def go(work, state, clock):\n"
        "        said = 10 * clock.step + clock.total_steps if clocked else state\n"
        "        return Result(work.advantages + 1 + said, state=state + 1)\n\n"
        "    return go\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = printed(
        capsys, run, "--credit", "grpo,going:going(clocked=False),going:going(clocked=True)", "--top", "99"
    )
    given = {(r["step"], *list(r["advantages"].values())[1:]) for r in result["disagreements"]}
    assert given == {(step, step, 1 + 10 * (step - 1) + 4) for step in (1, 2, 3, 4)}
    file = tmp_path / "two.jsonl"
    write(Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[1.0, 0.0]), file)
    message = refused(capsys, file, "--credit", "grpo,going:going(clocked=True)")
    assert (
        "going:going(clocked=True): this credit method anneals over training and a file of rollouts has no" in message
    )


def test_a_table_has_numbers_for_text(tabular: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, tabular, "--credit", "grpo,none", "--top", "1")
    record = result["disagreements"][0]
    stored = RolloutStore(tabular / "rollouts").read(record["step"])
    start, end = stored.token_offsets[record["response"] : record["response"] + 2].tolist()
    words = [str(i) for i in stored.ids[start:end].tolist()]
    assert (record["before"] + record["text"] + record["after"]).split() == words
    assert record["text"].strip() == str(record["id"])


# Files


def file_of(folder: Path, **columns: Any) -> Path:
    rollouts = Rollouts.from_lists(
        [[1, 2], [1, 3], [4], [5]], groups=[0, 0, 1, 1], rewards=[1.0, 0.0, 1.0, 0.0], prompts=[[7]] * 4
    )
    for name, values in columns.items():
        rollouts = rollouts.with_column(f"response:{name}", values)
    path = folder / "file.jsonl"
    write(rollouts, path)
    return path


def test_a_file_without_a_tokenizer_shows_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, file_of(tmp_path), "--credit", "grpo,tempo")
    assert result["steps"] == []
    record = result["disagreements"][0]
    assert (record["step"], record["before"], record["text"], record["after"]) == (None, "", "1", " 2")
    assert record["rewards"] == {"outcome": 1.0}
    assert "2 groups are too few for intervals, which need 10" in result["notes"]
    assert result["pairs"][0]["pearson"]["low"] is None
    text = said(capsys, tmp_path / "file.jsonl", "--credit", "grpo,tempo")
    assert "response  >>1<< 2" in text
    # 1/sqrt(2) and as much again where a token decided, over an RMS of sqrt(1/2) and of sqrt(3/2).
    assert f"{1 - math.sqrt(1 / 3):.2f} apart at group 0 response 0 token 0; reward outcome 1.000" in text


def test_the_model_that_annotates_reads_the_tokens(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = RolloutStore(run / "rollouts").read(2)
    kept = {n: c for n, c in stored.columns.items() if n != "token:log_probs/reference"}
    path = tmp_path / "step.arrow"
    write(dataclasses.replace(stored, columns=kept), path)
    model = run / "checkpoints/step_000004/model"
    result = printed(capsys, path, "--credit", "grpo,token_dpo", "--annotate", model)
    assert result["made"] == {"token:log_probs/reference": f"checkpoint {model}"}
    record = result["disagreements"][0]
    assert set(record["text"]) <= set("0123456789=.<pad>")
    text = said(capsys, path, "--credit", "grpo,token_dpo", "--annotate", model)
    assert f"log_probs/reference: made now by checkpoint {model}, not by the sampler" in text


HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\u202eevil\x00\x9b31m [bold]no markup[/bold] \ud7ff"


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_of_the_rollouts_reaches_the_terminal_raw(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        {"group": HOSTILE, "ids": [1, 2], "reward": 1, "response": {"text": HOSTILE, "prompt_text": HOSTILE}},
        {"group": HOSTILE, "ids": [1, 3], "reward": 0, "response": {"text": HOSTILE, "prompt_text": HOSTILE}},
    ]
    path = tmp_path / "hostile.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "100")
    text = said(capsys, path, "--credit", "grpo,tempo")
    for raw in ("\x1b[2J", "\x1b]0;", "\x07", "\r", "\u202e", "\x00", "\x9b"):
        assert raw not in text
    assert "[bold]no markup[/bold]" in text.replace("\n", "")
    assert "\\x1b[2J" in text
    assert ("\x1b[" in text) == terminal  # rich's own
    assert main(["compare", str(path), "--credit", "grpo,tempo", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["disagreements"][0]
    assert first["prompt"] == first["whole"] == first["group"] == HOSTILE


# What is not there


def test_no_credit_has_no_correlation(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, run, "--credit", "grpo,none")
    assert result["pearson"] == [[1.0, None], [None, None]]
    (pair,) = result["pairs"]
    assert pair["pearson"] is pair["spearman"] is pair["same_sign"] is None
    assert "none gives no token credit, so it has no correlation" in result["notes"]
    text = said(capsys, run, "--credit", "grpo,none")
    assert "none gives no token credit" in text
    assert "nan" not in text
    assert not math.isnan(result["methods"][1]["rms"])


def test_missing_columns_are_refused_or_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, run, "--credit", "grpo,gae(lam=0.5),tempo")
    assert (
        "gae(lam=0.5) needs the column 'token:values/critic', which these rollouts lack: a critic makes it" in message
    )
    result = printed(capsys, run, "--credit", "grpo,gae(lam=0.5),tempo", "--skip-missing")
    assert [method["credit"] for method in result["methods"]] == ["grpo", "tempo"]
    assert [(s["credit"], s["column"]) for s in result["skipped"]] == [("gae(lam=0.5)", "token:values/critic")]
    text = said(capsys, run, "--credit", "grpo,gae(lam=0.5),tempo", "--skip-missing")
    assert "-  gae(lam=0.5) is left out: gae(lam=0.5) needs the column 'token:values/critic'" in text
    message = refused(capsys, run, "--credit", "grpo,gae", "--skip-missing")
    assert "fewer than two methods are left to compare" in message


def test_unknown_rewards_and_other_origins_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origins = ["policy", "policy", "policy", "demonstration", "policy"]
    rollouts = Rollouts.from_lists([[1], [2], [3], [4], [5]], groups=[0] * 5, rewards=[1.0, 0.0, None, 1.0, 0.5])
    logs = {name: torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0]) * by for name, by in (("old", 1), ("reference", 2))}
    for name, values in logs.items():
        rollouts = rollouts.with_column(f"log_probs/{name}", values)
    write(rollouts.with_column("response:origin", origins), tmp_path / "mixed.jsonl")
    result = printed(capsys, tmp_path / "mixed.jsonl", "--credit", "grpo,token_dpo")
    assert result["tokens"] == 3
    assert result["left_out"] == {"unknown": 1, "not_covered": 1}
    assert {record["id"] for record in result["disagreements"]} <= {1, 2, 5}
    text = said(capsys, tmp_path / "mixed.jsonl", "--credit", "grpo,token_dpo")
    assert "episodes left out because a reward is unknown: 1" in text
    # Methods that both look everywhere compare all of it.
    result = printed(capsys, tmp_path / "mixed.jsonl", "--credit", "none,token_dpo")
    assert result["tokens"] == 5


def test_nothing_to_compare(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[None, None]), tmp_path / "unknown.jsonl")
    assert "has no trained token" in refused(capsys, tmp_path / "unknown.jsonl", "--credit", "grpo,tempo")
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("config.json", "environment.json"):
        (empty / name).write_bytes((run / name).read_bytes())
    assert "has no stored rollouts: let it do a step first" in refused(capsys, empty, "--credit", "grpo,tempo")


def test_memory_does_not_grow_with_the_steps(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One step is alive at a time: a step is read only when the one before is let go.
    import gc
    import weakref

    alive: list[weakref.ref[Rollouts]] = []
    real = RolloutStore.read

    def reading(self: RolloutStore, step: int) -> Rollouts:
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1
        rollouts = real(self, step)
        alive.append(weakref.ref(rollouts))
        return rollouts

    monkeypatch.setattr(RolloutStore, "read", reading)
    assert main(["compare", str(run), "--credit", "grpo,tempo", "--json", "--top", "0"]) == 0
    assert len(alive) == 4
