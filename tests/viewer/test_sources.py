"""What is on disk is read as it is: growing, torn, empty, of another version; the viewer writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from apportion.errors import InputError
from apportion.rollouts import Rollouts, RolloutStore
from apportion.viewer.session import Session
from apportion.viewer.source import Source
from cli.places import snapshot
from viewer.worlds import batch, tear, write_jsonl, write_run


def listed(session: Session) -> Session:
    for listing in session.listings:
        listing.catch_up()
    return session


def test_a_run_is_listed_group_by_group_with_what_its_rewards_and_credit_say(tmp_path: Path) -> None:
    session = listed(Session([write_run(tmp_path / "run", steps=3)]))
    answer = session.answer("groups", {"run": "0"})
    columns = session.answer("runs", {})["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in answer["rows"]]
    assert [(row["part"], row["group"]) for row in rows] == [(1, 2), (1, 3), (2, 4), (2, 5), (3, 6), (3, 7)]
    for row in rows:
        rollouts = session.sources[0].read(row["part"])
        group = rollouts.select(rollouts.group_ids == row["group"])
        rewards = group.column("episode:reward/outcome")
        assert row["rewards"] == rewards.tolist()
        assert row["mean"] == pytest.approx(float(rewards.mean()))
        assert row["credit"] == pytest.approx(float(group.column("credit/advantages").abs().max()))
        assert row["entropy"] == pytest.approx(float(group.column("entropy/old").double().mean()))
        alike = len(set(rewards.tolist())) == 1
        assert row["health"] == (("right" if rewards[0] >= 1 else "wrong") if alike else "mixed")


def test_steps_that_appear_while_looking_are_listed_and_rewritten_ones_are_listed_anew(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=2)
    session = listed(Session([folder]))
    store = session.sources[0]._store
    store.write(3, batch(1, 2, 4, first_group=90))
    session.listings[0].catch_up()
    answer = session.answer("groups", {"run": "0", "from": "4"})
    assert [(row[0], row[1]) for row in answer["rows"]] == [(3, 90)]
    store.drop_after(2)
    store.write(3, batch(1, 3, 4, first_group=95))
    session.listings[0].catch_up()
    again = session.answer("groups", {"run": "0"})
    assert again["edition"] == answer["edition"] + 1
    assert (again["rows"][-1][1], again["count"]) == (95, 5)


def test_an_empty_run_says_so_and_answers(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    session = listed(Session([tmp_path]))
    assert session.answer("run", {"run": "0"})["curves"] == {}
    assert session.answer("groups", {"run": "0"})["rows"] == []
    assert session.answer("methods", {"run": "0"})["methods"] == []
    with pytest.raises(InputError, match="no steps"):
        session.answer("group", {"run": "0", "part": "1", "group": "0"})


def test_a_torn_step_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=3)
    torn = folder / "rollouts" / "step_000002.arrow"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    session = listed(Session([folder]))
    answer = session.answer("groups", {"run": "0"})
    assert sorted({row[0] for row in answer["rows"]}) == [1, 3]
    (complaint,) = answer["complaints"]
    assert "step_000002.arrow is not a whole Arrow file" in complaint


def test_torn_and_broken_lines_of_metrics_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=3)
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 4, "reward": "high"}\nnonsense\n{"step": 5, "rew')
    (folder / "summary.json").write_text('{"steps": ')
    overview = Source(folder).overview()
    assert overview["curves"]["step"] == [1, 2, 3, 4]
    assert overview["curves"]["reward"][3] is None
    assert [c for c in overview["complaints"] if "line 5" in c or "summary.json is not whole JSON" in c] == overview[
        "complaints"
    ]
    assert len(overview["complaints"]) == 2


def test_what_is_wrong_with_metrics_is_said_beside_what_is_wrong_with_steps(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=3)
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write("nonsense\n")
    tear(folder, 2)
    said = listed(Session([folder])).answer("run", {})["complaints"]
    assert [any(word in one for one in said) for word in ("line 4 of metrics.jsonl", "step_000002.arrow")] == [True] * 2


def test_numbers_that_are_not_finite_are_words_in_settings_and_null_in_measurements(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=1)
    (folder / "config.json").write_text('{"max_grad_norm": Infinity, "steps": 1e999, "least": -1e999, "rate": 1.5}')
    (folder / "summary.json").write_text('{"seconds": NaN}')
    (folder / "evaluations.jsonl").write_text(
        '{"step": 0, "greedy": {"value": NaN, "low": -Infinity, "high": 1e999}}\n'
    )
    overview = Session([folder]).answer("run", {})
    assert overview["config"] == {
        "max_grad_norm": "Infinity", "steps": "Infinity", "least": "-Infinity", "rate": 1.5,
    }  # fmt: skip
    assert overview["summary"] == {"seconds": "NaN"}
    assert overview["evaluations"] == [{"step": 0, "greedy": {"value": None, "low": None, "high": None}}]
    assert overview["complaints"] == []
    assert Source(folder).clock(1) is not None
    json.dumps(overview, allow_nan=False)


def test_the_range_of_rewards_grows_with_what_is_listed_and_starts_again_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    store = RolloutStore(folder / "rollouts")
    for step, rewards in enumerate([[None, None], [20.0, 35.0], [10.0, None]], 1):
        store.write(step, Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=rewards))
    session = Session([folder])
    assert session.answer("runs", {})["runs"][0]["rewards"] is None
    assert listed(session).answer("runs", {})["runs"][0]["rewards"] == (10.0, 35.0)
    store.drop_after(1)
    store.write(2, Rollouts.from_lists([[1], [2]], groups=[0, 0], rewards=[0.0, 1.0]))
    assert listed(session).answer("groups", {})["rewards"] == (0.0, 1.0)


def test_a_file_of_another_version_is_refused_by_its_version(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=1)
    path = folder / "rollouts" / "step_000001.arrow"
    table = pa.ipc.open_file(path).read_all()
    metadata = json.loads(table.schema.metadata[b"apportion"]) | {"schema": "apportion.rollouts/9"}
    newer = table.replace_schema_metadata({b"apportion": json.dumps(metadata).encode()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, newer.schema) as writer:
        writer.write_table(newer)
    session = listed(Session([folder]))
    assert "schema 'apportion.rollouts/9', expected 'apportion.rollouts/1'" in session.listings[0].complaints[1]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b'{"group": 0, "ids": [1], "response": "\xff\xfe"}\n', "UTF-8|JSON"), (b"not json\n", "JSON")],
)
def test_a_broken_rollouts_file_is_said_in_a_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    session = listed(Session([path]))
    (complaint,) = session.answer("groups", {"run": "0"})["complaints"]
    assert any(word in complaint for word in says.split("|"))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Source(tmp_path / "absent")
    with pytest.raises(InputError, match=r"neither config\.json nor rollouts/"):
        Source(tmp_path)


def test_looking_changes_no_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=2)
    before = snapshot(folder)
    session = listed(Session([folder]))
    session.answer("group", {"run": "0", "part": "1", "group": "2", "credit": "grpo"})
    session.comparison(0, ["grpo", "tempo"]).work()
    assert snapshot(folder) == before


def test_a_file_without_credit_is_credited_by_the_first_method_that_can(tmp_path: Path) -> None:
    records = [{"group": "a", "ids": [1, 2], "reward": 1}, {"group": "a", "ids": [1, 3], "reward": 0}]
    session = listed(Session([write_jsonl(tmp_path / "mine.jsonl", records)]))
    assert session.answer("methods", {"run": "0"})["defaults"] == ["grpo", "tempo"]
    row = session.answer("groups", {"run": "0"})["rows"][0]
    assert row[2] == "a"
    assert row[-1] == pytest.approx(2**-0.5, abs=1e-5)
