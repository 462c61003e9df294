"""Credit that the viewer shows is the credit that the library gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from apportion import credit
from apportion.cli.columns import Columns
from apportion.cli.compare import _open, compare
from apportion.cli.main import main
from apportion.errors import InputError
from apportion.rollouts import RolloutStore
from apportion.viewer.agreeing import Comparison
from apportion.viewer.session import Session
from viewer.worlds import write_jsonl, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("answers") / "run", steps=6, groups=3)


@pytest.mark.parametrize("spec", ["grpo", "tempo", "rloo", "reinforce_pp"])
def test_a_group_has_the_numbers_of_apportion_credit(run: Path, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credit", spec, str(run / "rollouts" / "step_000004.arrow"), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    session = Session([run])
    group = session.answer("group", {"part": "4", "group": "13", "credit": spec})
    expected = [a for record in records if record["group"] == 13 for a in record["advantages"]]
    assert group["credits"][spec]["advantages"] == expected
    details = group["credits"][spec]["details"].get("token", {})
    for name, values in details.items():
        assert values == [v for record in records if record["group"] == 13 for v in record[f"credit/{name}"]]


def test_stored_credit_is_what_the_run_stored(run: Path) -> None:
    session = Session([run])
    rollouts = session.sources[0].read(2)
    own = rollouts.select(rollouts.group_ids == 7)
    given = session.answer("group", {"part": "2", "group": "7"})["credits"]["stored"]
    assert given["advantages"] == own.column("credit/advantages").tolist()
    assert given["details"]["token"]["prefix_value_after"] == own.column("credit/prefix_value_after").tolist()


def test_stages_of_a_method_end_with_its_advantages(run: Path) -> None:
    session = Session([run], ["viewer.worlds:halved"])
    specs = "reinforce_pp\nstored\nviewer.worlds:halved"
    answer = session.answer("group", {"part": "4", "group": "13", "credit": specs})
    plain = session.answer("group", {"part": "4", "group": "13", "credit": "rloo"})["credits"]["rloo"]["advantages"]
    credits = answer["credits"]
    assert [stage["kind"] for stage in credits["viewer.worlds:halved"]["stages"]] == ["estimator", "modifier"]
    assert credits["viewer.worlds:halved"]["stages"][0]["values"] == pytest.approx(plain)
    assert credits["viewer.worlds:halved"]["stages"][1]["values"] is None, "the advantages themselves"
    assert [stage["stage"] for stage in credits["stored"]["stages"]] == ["prefix_change"], "TEMPO's, made anew"
    assert credits["reinforce_pp"]["stages"], "a method of the whole batch has stages too"


def test_stored_credit_of_another_making_has_no_stages(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (other / "config.json").write_text((run / "config.json").read_text().replace("tempo", "grpo"))
    stored = Session([other]).answer("group", {"part": "4", "group": "13"})["credits"]["stored"]
    assert stored["stages"] == []


def test_alternatives_have_texts_and_a_place_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1)
    store = RolloutStore(run / "rollouts")
    rollouts = store.read(1)
    ids = torch.stack([rollouts.ids, rollouts.ids + 1], 1)
    chances = torch.tensor([[0.5, 0.25]]).log().expand(rollouts.n_tokens, 2)
    some = torch.arange(rollouts.n_tokens) != 1
    rollouts = rollouts.with_column("top_ids/behaviour", ids, some).with_column(
        "top_log_probs/behaviour", chances, some
    )
    store.write(2, rollouts)
    group = Session([run]).answer("group", {"part": "2", "group": "2"})
    found = group["alternatives"]
    assert found["ids"][0] == [group["ids"][0], group["ids"][0] + 1]
    assert found["log_probs"][0] == [-0.69315, -1.38629]
    assert found["ids"][1] is found["log_probs"][1] is None
    assert found["texts"][str(group["ids"][0])] == str(group["ids"][0])
    assert not [name for name in group["columns"]["token"] if name.startswith("top_")]
    assert Session([run]).answer("group", {"part": "1", "group": "2"})["alternatives"] is None


def test_a_method_that_lacks_columns_is_offered_with_what_it_lacks(run: Path) -> None:
    session = Session([run])
    offered = {m["credit"]: m for m in session.answer("methods", {})["methods"]}
    assert offered["gae"]["missing"] == ["values/critic"]
    assert offered["stored"]["label"] == "as stored (tempo)"
    assert set(credit.METHODS) <= set(offered) | set(session.methods.refused)
    assert (
        "values/critic"
        in session.answer("group", {"part": "1", "group": "3", "credit": "gae"})["credits"]["gae"]["error"]
    )


def test_agreement_is_that_of_apportion_compare(run: Path) -> None:
    specs = ["grpo", "tempo", "none"]
    comparison = Comparison(Session([run]).sources[0], specs, Session([run]).methods, None)
    comparison.work()
    assert comparison.error is None
    found = comparison.result
    methods = {spec: credit.build(spec) for spec in specs}
    expected = compare(_open(run, None), methods, Columns(None, ()), 50, False)
    assert found["rms"] == expected.agreement.rms().tolist()
    assert found["tokens"] == expected.agreement.tokens
    assert found["pearson"][0][1][0] == pytest.approx(float(expected.pearson.value[0, 1]))
    assert found["pearson"][0][2][0] is None, "a method without credit has no correlation"
    first, other = found["tokens_apart"][0], expected.disagreements[0]
    assert (first["part"], first["group"], first["apart"]) == (
        other["step"],
        other["group"],
        pytest.approx(other["apart"]),
    )
    assert first["advantages"] == list(other["advantages"].values())
    most = {(part, group): value for part, group, value in found["by_group"]}
    assert most[first["part"], first["group"]] == pytest.approx(first["apart"])


def test_comparing_needs_two_methods_on_offer(run: Path) -> None:
    session = Session([run])
    with pytest.raises(InputError, match="at least two"):
        session.answer("agreement", {"credit": "grpo"})
    with pytest.raises(InputError, match="not among the methods"):
        session.answer("agreement", {"credit": "grpo\nos:system"})


def test_a_name_out_of_a_request_is_never_imported(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    answer = Session([run]).answer("group", {"part": "1", "group": "3", "credit": "trap:method"})
    assert "not among the methods" in answer["credits"]["trap:method"]["error"]


def test_a_method_named_at_the_start_is_on_offer(run: Path) -> None:
    spec = "tempo(norm_by_std=False)"
    session = Session([run], [spec])
    assert session.answer("methods", {})["defaults"][:2] == ["stored", spec]
    rollouts = session.sources[0].read(1)
    own = rollouts.select(rollouts.group_ids == 3)
    expected = credit.build(spec)(own).advantages.tolist()
    assert (
        session.answer("group", {"part": "1", "group": "3", "credit": spec})["credits"][spec]["advantages"] == expected
    )


def test_unknown_and_absent_rewards_are_told_apart(tmp_path: Path) -> None:
    records = [
        {"group": 0, "ids": [1], "reward": 1},
        {"group": 0, "ids": [2], "reward": None},
        {"group": 0, "ids": [3]},
    ]
    session = Session([write_jsonl(tmp_path / "mine.jsonl", records)])
    rewards = session.answer("group", {"credit": "none"})["rewards"]["outcome"]
    assert rewards == [{"value": 1.0, "asked": True}, {"value": None, "asked": True}, {"value": None, "asked": False}]


def test_turns_pairs_and_spans_are_there_where_the_rollouts_have_them(tmp_path: Path) -> None:
    records = [
        {"columns": {"response:state_key": {"dtype": "text"}}, "spans": ["step"], "pairs": True},
        {"group": 0, "episode": "a", "prompt_ids": [5], "ids": [8, 9], "response": {"state_key": "door"},
         "spans": {"step": {"ranges": [[0, 1]], "score/prm": [0.25]}}},
        {"group": 0, "episode": "a", "prompt_ids": [5, 8, 9, 6, 6], "ids": [7], "response": {"state_key": "hall"},
         "reward": 1},
        {"group": 0, "episode": "b", "prompt_ids": [5], "ids": [1], "response": {"state_key": "door"}, "reward": 0},
        {"pair": {"preferred": "a", "other": "b", "margin": 0.5}},
    ]  # fmt: skip
    group = Session([write_jsonl(tmp_path / "mine.jsonl", records)]).answer("group", {"credit": "none"})
    assert group["turns"]["columns"]["state_key"] == ["door", "hall", "door"]
    assert group["turns"]["episode"] == [0, 0, 1]
    assert group["prompts"] == {1: "6 6"}, "only what is new in the second prompt"
    assert group["spans"]["step"] == {"starts": [0], "ends": [1], "columns": {"score/prm": [0.25]}}
    assert group["pairs"] == {"preferred": [0], "other": [1], "columns": {"margin": [0.5]}}


@pytest.mark.parametrize(
    ("question", "query", "says"),
    [
        ("group", {"run": "7"}, "run 7 is not open"),
        ("group", {"part": "x"}, "part is 'x'"),
        ("group", {"part": "1", "group": "999"}, "no group 999"),
        ("group", {"part": "99", "group": "0"}, "no rollouts of step 99"),
        ("groups", {"from": "-1"}, "from is '-1'"),
        ("anything", {}, "unknown question"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    run: Path, question: str, query: dict[str, str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Session([run]).answer(question, query)
