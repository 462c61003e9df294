"""``apportion credit``: what is printed, what is written, and what the library gives are the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion import credit
from apportion.cli import credit as verb
from apportion.cli.main import main
from apportion.credit import Clock
from apportion.rollouts import Rollouts, RolloutStore, ragged
from apportion.rollouts.store import read, write
from apportion.training.measuring import open_checkpoint
from runs import DIGITS, begin

LOOP = "loop(min_abs_advantage=0.2)"
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


def test_stages_are_printed_where_they_are_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = str(file.with_name("unknown.jsonl"))
    plain = printed(capsys, LOOP, unknown, "--drop-unknown")
    assert all("stages" not in record for record in plain)
    records = printed(capsys, LOOP, unknown, "--drop-unknown", "--stages")
    assert [{k: v for k, v in record.items() if k != "stages"} for record in records] == plain
    for record in records:
        kinds = [stage["kind"] for stage in record["stages"]]
        assert kinds == ["estimator", "filter"]
        last = record["stages"][-1]["advantages"]
        assert last == ([None] * len(last) if record["unknown"] else record["advantages"])


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


# Groups one at a time


def interleaved(file: Path) -> Path:
    """The same records in another order: the first of every group, then the second of every group, and so on."""
    declared, *records = file.read_text().splitlines()
    path = file.with_name("interleaved.jsonl")
    path.write_text("\n".join([declared, *(records[i + g * 4] for i in range(4) for g in range(3))]) + "\n")
    return path


def watched_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many groups are credited at once, every time."""
    sizes: list[int] = []
    real = verb.credited

    def credited(method: Any, rollouts: Rollouts, *rest: Any) -> Any:
        sizes.append(rollouts.n_groups)
        return real(method, rollouts, *rest)

    monkeypatch.setattr(verb, "credited", credited)
    return sizes


@pytest.mark.parametrize("ending", ["jsonl", "arrow"])
def test_a_file_is_read_by_group_where_the_method_allows_it(
    ending: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = file.with_suffix(f".{ending}")
    if ending == "arrow":
        write(read(file), source)
    sizes = watched_reads(monkeypatch)
    printed(capsys, "tempo", str(source))
    assert sizes == [1, 1, 1]
    printed(capsys, "gae", str(source))  # whitens over the batch
    assert sizes[3:] == [3]
    printed(capsys, "gae", str(source), "--by-group")
    assert sizes[4:] == [1, 1, 1]
    printed(capsys, "tempo", str(source), "--annotators", "mine:noted")  # which may look at the batch
    assert sizes[7:] == [3]


@pytest.fixture(autouse=True)
def own_annotators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from apportion.annotations import Annotator\n\n\n"
        "def noted():\n"
        "    def apply(rollouts, policy):\n"
        "        assert policy is None\n"
        "        twos = torch.full((rollouts.n_tokens,), 2.0)\n"
        "        return rollouts.with_column('noted', twos).with_column('values/critic', twos)\n\n"
        "    return Annotator(apply, ('noted', 'values/critic'), reads_policy=False)\n\n\n"
        "def cut():\n"
        "    def apply(rollouts, policy):\n"
        "        return rollouts.with_spans('step', torch.tensor([0]), torch.tensor([1]))\n\n"
        "    return Annotator(apply, ('step:text',), reads_policy=False)\n\n\n"
        "def looking():\n"
        "    return Annotator(lambda rollouts, policy: rollouts, ('x',))\n\n\n"
        "def number():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_a_file_of_interleaved_groups_keeps_its_order(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed, sizes = interleaved(file), watched_reads(monkeypatch)
    together = printed(capsys, "tempo", str(file))
    records = printed(capsys, "tempo", str(mixed))
    assert sizes == [1, 1, 1, 3]
    assert [r["group"] for r in records] == [0, 1, 2] * 4
    assert [r["advantages"] for r in records] == [together[i + g * 4]["advantages"] for i in range(4) for g in range(3)]
    # Asked for group by group, each is gathered from all over the file.
    gathered = printed(capsys, "tempo", str(mixed), "--by-group")
    assert sizes[4:] == [1, 1, 1]
    assert gathered == together


def test_groups_owe_nothing_to_those_before_unless_the_method_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "counting.py").write_text(
        "from apportion.credit import Result, estimator\n\n\n"
        "def counting(by_group):\n"
        "    @estimator(needs=('reward/outcome',), init=lambda: 0, by_group=by_group)\n"
        "    def count(work, state, clock):\n"
        "        return Result(work.advantages + state + 1, state=state + 1)\n\n"
        "    return count\n"
    )
    for by_group, expected in ((True, [1, 1, 1]), (False, [1, 2, 3])):
        records = printed(capsys, f"counting:counting(by_group={by_group})", str(file), "--by-group")
        assert [r["advantages"][0] for r in records[::4]] == expected


ROOM = 12 << 20
WITHIN = f"""
import re, resource, sys
from pathlib import Path
from apportion.cli.main import main
main(["credit", sys.argv[2], "small" + Path(sys.argv[3]).suffix])  # what is loaded once is loaded now
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + {ROOM}, used + {ROOM}))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on the memory of data are Linux's")
@pytest.mark.parametrize("ending", ["jsonl", "arrow"])
def test_a_file_larger_than_memory(ending: str, tmp_path: Path) -> None:
    groups, length = 200, 1500
    count = groups * 4
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 10, (count, length), generator=generator)
    rollouts = Rollouts.from_lists(
        ids.tolist(), groups=[i // 4 for i in range(count)], rewards=[float(i % 3) for i in range(count)]
    )
    rollouts = rollouts.with_column("log_probs/old", -torch.rand(count * length, generator=generator))
    assert rollouts.n_tokens * 12 > ROOM  # its tokens alone would not fit
    write(rollouts, tmp_path / f"large.{ending}")
    write(rollouts.select(torch.arange(8)), tmp_path / f"small.{ending}")

    def credited_within(method: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHIN, "credit", method, f"large.{ending}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    done = credited_within("tempo")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith(f"{count} responses, {count * length} tokens, ")
    # The limit is one: what asks for all groups at once does not get by with it.
    (tmp_path / "whole.py").write_text(
        "from apportion.credit import estimator\n\n\n"
        "def whole():\n"
        "    return estimator(needs=('reward/outcome',))(lambda work: work.down('outcome'))\n"
    )
    assert credited_within("whole:whole").returncode != 0


# Details


def test_details_of_spans_and_those_that_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollouts = Rollouts.from_lists([[1, 2, 3], [4], [5]], groups=[0, 0, 0], rewards=[1.0, 0.0, None])
    rollouts = rollouts.with_spans("step", torch.tensor([0, 2, 3, 4]), torch.tensor([2, 3, 4, 5]))
    rollouts = rollouts.with_reward("prm", torch.tensor([0.5, 1.0, -1.0, 0.0]), level="step")
    write(rollouts, tmp_path / "steps.jsonl")
    method = "pure(whiten=False, transform='strict_min')"
    records = printed(capsys, method, str(tmp_path / "steps.jsonl"), "--drop-unknown")
    name = "credit/transformed_reward"
    assert [r["spans"] for r in records] == [{"step": {name: rows}} for rows in ([-0.5, 1.0], [-1.0], [None])]
    records = printed(capsys, "tempo", str(tmp_path / "steps.jsonl"), "--drop-unknown")
    assert [r["credit/prefix_value_root"] for r in records] == [0.5, 0.5, None]
    assert records[2]["credit/prefix_value_after"] == [None]


def test_names_of_groups_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"group": "a\x1b[2J\nb", "ids": [1], "reward": r} for r in (0, 1)]
    (tmp_path / "names.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert main(["credit", "rloo", str(tmp_path / "names.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("group a\\x1b[2J\\nb episode 0: 1 tokens")
    assert [r["group"] for r in printed(capsys, "rloo", str(tmp_path / "names.jsonl"))] == ["a\x1b[2J\nb"] * 2


# Columns made on the way


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps on a small transformer."""
    folder = tmp_path_factory.mktemp("run") / "run"
    begin(folder, dataclasses.replace(DIGITS, annotators=("partial_sums",)))
    return folder


def stored(run: Path, step: int, *without: str) -> Path:
    """The rollouts of a step, but for some columns."""
    rollouts = RolloutStore(run / "rollouts").read(step)
    kept = {n: c for n, c in rollouts.columns.items() if not n.startswith("token:credit") and n not in without}
    path = run.parent / f"step_{step}_without_{len(without)}_{'_'.join(without).replace('/', '_')}.arrow"
    path.unlink(missing_ok=True)
    write(dataclasses.replace(rollouts, columns=kept), path)
    return path


def test_what_a_checkpoint_measures_is_what_the_trainer_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Before step 3 the policy had the weights of the checkpoint after step 2.
    whole, path = stored(run, 3), stored(run, 3, "token:log_probs/old")
    assert main(["credit", "token_dpo", str(path)]) == 2
    assert "(--annotate or --annotators may make it here)" in capsys.readouterr().err
    records = printed(capsys, "token_dpo", str(path), "--annotate", str(run / "checkpoints/step_000002"))
    old = read(whole).column("log_probs/old")
    first = open_checkpoint(str(run / "checkpoints/step_000000")).add(
        read(stored(run, 3, "token:log_probs/old")), ["log_probs/old"]
    )
    expected = 0.1 * (old - first.column("log_probs/old")).double()
    assert flat(records) == pytest.approx(expected.tolist(), abs=1e-5)
    assert max(map(abs, flat(records))) > 1e-4
    made = {
        "token:log_probs/old": f"checkpoint {run / 'checkpoints/step_000002'}",
        "token:log_probs/reference": f"checkpoint {run / 'checkpoints/step_000000'}",
    }
    assert all(record["made"] == made for record in records)
    # By the run's name it is the newest.
    records = printed(capsys, "token_dpo", str(path), "--annotate", str(run))
    assert records[0]["made"]["token:log_probs/old"] == f"checkpoint {run / 'checkpoints/step_000004'}"


def test_columns_that_are_there_stay(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = stored(run, 3), run.parent / "annotated.jsonl"
    out.unlink(missing_ok=True)
    checkpoint = ["--annotate", str(run / "checkpoints/step_000004/model")]
    assert main(["credit", "token_dpo", str(path), *checkpoint, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"log_probs/reference: made now by checkpoint {checkpoint[1]}, not by the sampler" in said
    assert "log_probs/old" not in said
    before, after = read(path), read(out)
    assert torch.equal(after.column("log_probs/old"), before.column("log_probs/old"))
    assert after.columns["token:log_probs/reference"].maker == f"checkpoint {checkpoint[1]}"
    assert main(["credit", "grpo", str(path), *checkpoint]) == 0  # which needs nothing more
    assert "made now" not in capsys.readouterr().out
    # The annotator makes two columns; the critic's values are there, so only the other is new.
    valued = read(path).with_column("values/critic", torch.full((before.n_tokens,), 5.0))
    write(valued, run.parent / "valued.arrow")
    records = printed(capsys, "gae(whiten=False)", str(run.parent / "valued.arrow"), "--annotators", "mine:noted")
    assert set(records[0]["made"]) == {"token:noted"}
    reward = before.column("episode:reward/outcome")[0]
    assert records[0]["advantages"][0] == pytest.approx(float(reward) - 5)
    (run.parent / "valued.arrow").unlink()


def test_attention_is_measured_by_the_registered_annotator(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored(run, 3)
    records = printed(capsys, "attention_rhythm", str(path), "--annotate", str(run))
    by = f"annotator attention_rhythm with checkpoint {run / 'checkpoints/step_000004'}"
    assert records[0]["made"] == {"token:waad/old": by, "token:fai/old": by}
    gamma = flat(records, "credit/gamma")
    assert min(gamma) == 1
    assert max(gamma) > 1
    # With other settings, whoever needs them says how they are to be made.
    assert main(["credit", "attention_rhythm(window=2)", str(path), "--annotate", str(run)]) == 2
    assert "needs 'waad/old' made with window=2" in capsys.readouterr().err
    given = ["--annotate", str(run), "--annotators", "attention_rhythm(window=2)"]
    assert printed(capsys, "attention_rhythm(window=2)", str(path), *given)


def test_stored_rollouts_are_scored_by_annotators(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = read(stored(run, 3))
    bare = dataclasses.replace(
        whole, columns={n: c for n, c in whole.columns.items() if not n.startswith("step:")}, spans={}
    )
    path = run.parent / "bare.arrow"
    path.unlink(missing_ok=True)
    write(bare, path)
    method = "pure(whiten=False)"
    assert main(["credit", method, str(path)]) == 2
    assert "reward/prm" in capsys.readouterr().err
    records = printed(capsys, method, str(path), "--annotators", "partial_sums", "--drop-unknown")
    assert flat(records) == credit.build(method)(whole, unscored="drop").advantages.double().tolist()
    assert records[0]["made"]["step:reward/prm"] == "annotator partial_sums"
    assert (
        "made" not in printed(capsys, method, str(stored(run, 3)), "--annotators", "partial_sums", "--drop-unknown")[0]
    )


def test_columns_that_cannot_be_made(run: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, bare = stored(run, 3), stored(run, 3, "token:log_probs/old")
    model = str(run / "checkpoints/step_000004/model")
    shutil.copytree(run, file.parent / "torn")
    torn = file.parent / "torn/checkpoints/step_000004"
    (torn / "model/model.safetensors").write_bytes(b"torn")
    first_lost = file.parent / "first_lost"
    shutil.copytree(run, first_lost)
    shutil.rmtree(first_lost / "checkpoints/step_000000")
    many = Rollouts.from_lists([[1] * 70], groups=[0], rewards=[1.0])
    write(many, file.parent / "long.jsonl")
    write(Rollouts.from_lists([[1]], groups=[0], rewards=[1.0], prompts=[[99]]), file.parent / "foreign.jsonl")
    cut = str(file.parent / "cut.jsonl")
    write(read(file).with_spans("step", torch.tensor([1]), torch.tensor([3])), cut)
    cases = {
        ("token_dpo", str(bare), "--annotate", model): "would both come from",
        ("token_dpo", str(path), "--annotate", "./gone"): "there is no model folder './gone'",
        ("token_dpo", str(path), "--annotate", str(torn)): "has no whole checkpoint",
        ("token_dpo", str(path), "--annotate", str(first_lost)): "is not whole, and the reference policy is its",
        ("gae", str(path), "--annotate", str(run)): "needs the column 'token:values/critic'",
        ("token_dpo", str(file.parent / "long.jsonl"), "--annotate", str(run)): "have 70 tokens, and the model of",
        ("token_dpo", str(file.parent / "foreign.jsonl"), "--annotate", str(run)): "have token 99, and the model of",
        ("grpo", str(path), "--annotators", "mine:looking"): "looks at a model, and there is none: name one with",
        ("grpo", str(path), "--annotators", "mine:number"): "made a int, expected an Annotator",
        ("grpo", str(path), "--annotators", "partial_sum"): "did you mean 'partial_sums'?",
        (
            "grpo",
            str(path),
            "--annotators",
            "mine:cut",
        ): "annotator 'mine:cut': column 'step:reward/prm' has ",
        ("grpo", cut, "--annotators", "mine:cut"): "marks other spans of kind 'step' than the rollouts bring",
        ("grpo", str(file), "--annotators", "partial_sums"): "partial_sums needs the column 'response:text'",
    }
    for arguments, message in cases.items():
        capsys.readouterr()
        assert main(["credit", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert message in said, (arguments, said)
        assert said.count("\n") == 1
