"""JSONL: records as people write them, what null means, streaming, and files that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion.errors import InputError
from apportion.rollouts import Rollouts, join, read_jsonl, stream_jsonl, write_jsonl
from naive import entries, plain, plain_pairs
from strategies import assert_same

torch.set_num_threads(1)

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "rollouts.md"


def written(path: Path, *records: dict[str, Any] | str) -> Path:
    """A file of these records, one a line."""
    path = path / "given.jsonl"
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records))
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def column(rollouts: Rollouts, name: str) -> list[Any]:
    return entries(rollouts.columns[name])


def test_the_canonical_record(tmp_path: Path) -> None:
    rollouts = Rollouts.from_lists([[8, 9, 2], [7]], groups=[3, 3], prompts=[[5], [5]], rewards=[1.0, None])
    rollouts = rollouts.with_column("trained", torch.tensor([True, True, False, True]))
    rollouts = rollouts.with_statistic(
        "log_probs/old", torch.tensor([-0.1, -2.5, -1.0, -0.7]), "trainer", window=(1, 2)
    )
    rollouts = rollouts.with_column("response:origin", ("policy", None))
    rollouts = rollouts.with_spans("step", torch.tensor([0, 3]), torch.tensor([2, 4]))
    rollouts = rollouts.with_column(
        "step:score/prm", torch.tensor([[0.5, 1.0], [0.0, 0.0]]), torch.tensor([True, False])
    )
    rollouts = rollouts.with_pairs(torch.tensor([0]), torch.tensor([1])).with_column("pair:margin", torch.tensor([2.0]))
    write_jsonl(rollouts, tmp_path / "a.jsonl")
    schema = {"schema": "apportion.rollouts/1"}
    assert records(tmp_path / "a.jsonl") == [
        schema
        | {
            "columns": {
                "episode:reward/outcome": {"dtype": "float64"},
                "episode:scored/outcome": {"dtype": "bool"},
                "token:trained": {"dtype": "bool"},
                "token:log_probs/old": {
                    "dtype": "float32",
                    "maker": "trainer",
                    "parameters": {"window": {"__tuple__": [1, 2]}},
                },
                "response:origin": {"dtype": "text"},
                "step:score/prm": {"dtype": "float32", "width": 2},
                "pair:margin": {"dtype": "float32"},
            },
            "spans": ["step"],
            "pairs": True,
        },
        schema | {"pair": {"preferred": 0, "other": 1, "margin": 2.0}},
        schema
        | {
            "group": 3,
            "episode": 0,
            "prompt_index": 0,
            "prompt_ids": [5],
            "ids": [8, 9, 2],
            "token": {"trained": [True, True, False], "log_probs/old": [-0.1, -2.5, None]},
            "response": {"origin": "policy"},
            "episode_columns": {"reward/outcome": 1.0},
            "spans": {"step": {"ranges": [[0, 2]], "score/prm": [[0.5, 1.0]]}},
        },
        schema
        | {
            "group": 3,
            "episode": 1,
            "prompt_index": 1,
            "prompt_ids": [5],
            "ids": [7],
            "token": {"trained": [True], "log_probs/old": [-0.7]},
            "episode_columns": {"reward/outcome": None},
            "spans": {"step": {"ranges": [[0, 1]]}},
        },
    ]


def test_the_shortest_record(tmp_path: Path) -> None:
    rollouts = read_jsonl(
        written(
            tmp_path,
            {"group": "b", "ids": [17, 4], "reward": 1},
            "",
            {"group": "a", "ids": [17], "reward": None},
            {"group": "b", "ids": [17, 5], "reward": True},
            {"group": "b", "ids": []},
        )
    )
    assert rollouts.group_ids.tolist() == [0, 1, 0, 0]
    assert column(rollouts, "episode:group_name") == ["b", "a", "b", "b"]
    assert column(rollouts, "episode:scored/outcome") == [True, False, True, None]
    assert rollouts.columns["episode:reward/outcome"].tensor.dtype == torch.float64
    assert column(rollouts, "episode:reward/outcome") == [1.0, 0.0, 1.0, None]
    assert rollouts.prompts.tolist() == [0, 0, 0, 0]
    assert rollouts.trained.all()


def test_short_forms_and_long_forms_are_the_same(tmp_path: Path) -> None:
    short = {"group": 0, "ids": [1], "rewards": {"format": 0.5, "outcome": None}, "prompt": "?", "response": "!"}
    long = {
        "schema": "apportion.rollouts/1",
        "group": 0,
        "episode": 9,
        "prompt_ids": [],
        "ids": [1],
        "response": {"text": "!", "prompt": "?"},
        "episode_columns": {"reward/format": 0.5, "reward/outcome": None},
    }
    assert_same(read_jsonl(written(tmp_path, short)), read_jsonl(written(tmp_path, long)))
    spans = {"group": 0, "ids": [1, 2], "spans": {"step": [[0, 1], [1, 2]]}}
    assert read_jsonl(written(tmp_path, spans)).spans["step"].ends.tolist() == [1, 2]


def test_an_episodes_columns_may_stand_in_any_of_its_records(tmp_path: Path) -> None:
    turns = [{"group": 0, "episode": "x", "ids": [i]} for i in range(3)]
    turns[2]["reward"] = 1.0
    rollouts = read_jsonl(written(tmp_path, *turns, {"group": 0, "ids": [4], "reward": 0.0}))
    assert rollouts.response_offsets.tolist() == [0, 3, 4]
    assert column(rollouts, "episode:reward/outcome") == [1.0, 0.0]
    turns[0]["reward"] = 0.5
    with pytest.raises(InputError, match=r"line 3: 'episode:reward/outcome' is 1.0, but an earlier record .* says 0.5"):
        read_jsonl(written(tmp_path, *turns))


def test_null_in_a_list_of_rewards_is_unknown_unless_scored_says_absent(tmp_path: Path) -> None:
    token = {"reward/a": [1, None, None], "scored/a": [True, False, None], "reward/b": [None, 0, 1]}
    path = written(tmp_path, {"group": 0, "ids": [1, 2, 3], "token": token}, {"group": 0, "ids": [4]})
    rollouts = read_jsonl(path)
    assert column(rollouts, "token:scored/a") == [True, False, None, None]
    assert column(rollouts, "token:reward/a") == [1.0, 0.0, None, None]
    assert column(rollouts, "token:scored/b") == [False, True, True, None]
    write_jsonl(rollouts, tmp_path / "again.jsonl")
    assert records(tmp_path / "again.jsonl")[1]["token"] == {
        "reward/a": [1.0, None, None],
        "scored/a": [True, False, None],
        "reward/b": [None, 0.0, 1.0],
    }
    assert_same(read_jsonl(tmp_path / "again.jsonl"), rollouts)


def test_several_critics_may_be_ragged(tmp_path: Path) -> None:
    step = {"ranges": [[0, 1], [1, 2], [2, 3]], "reward/critics": [[1, None, 0], [0.5], None]}
    rollouts = read_jsonl(written(tmp_path, {"group": 0, "ids": [1, 2, 3], "spans": {"step": step}}))
    assert column(rollouts, "step:scored/critics") == [[True, False, True], [True, False, False], [False] * 3]
    assert column(rollouts, "step:reward/critics") == [[1.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0] * 3]


def test_dtypes_follow_the_entries_where_no_record_declares_them(tmp_path: Path) -> None:
    first = {"policy_version": 3, "bonus": 1, "done": True, "temperature": 1, "agent": "a", "odd": None}
    second = {"policy_version": 4, "bonus": 0.5, "done": False, "temperature": 1, "agent": None}
    token = {"trained": [1, 0], "log_probs/old": [-1, 0]}
    path = written(
        tmp_path,
        {"group": 0, "ids": [1, 2], "response": first, "token": token},
        {"group": 0, "ids": [], "response": second},
    )
    rollouts = read_jsonl(path)
    dtypes = {name: c.tensor.dtype for name, c in rollouts.columns.items() if isinstance(c.values, torch.Tensor)}
    assert dtypes == {
        "token:trained": torch.bool,
        "token:log_probs/old": torch.float64,
        "response:policy_version": torch.int64,
        "response:bonus": torch.float64,
        "response:done": torch.bool,
        "response:temperature": torch.float64,
        "response:odd": torch.float64,
    }
    assert column(rollouts, "response:agent") == ["a", None]
    assert column(rollouts, "response:odd") == [None, None]


def test_trained_and_weight_are_one_where_a_record_does_not_mention_them(tmp_path: Path) -> None:
    token = {"trained": [0, 1], "weight": [0.5, 0.5]}
    rollouts = read_jsonl(written(tmp_path, {"group": 0, "ids": [1, 2], "token": token}, {"group": 0, "ids": [3]}))
    assert rollouts.trained.tolist() == [False, True, True]
    assert rollouts.weight.tolist() == [0.5, 0.5, 1.0]


def test_a_columns_record_may_come_last_and_says_what_entries_cannot(tmp_path: Path) -> None:
    declared = {"log_probs/old": {"dtype": "float32", "maker": "trainer"}, "episode:note": {"dtype": "text"}}
    path = written(
        tmp_path,
        {"group": 0, "ids": [1], "token": {"log_probs/old": [-1]}},
        {"columns": declared, "spans": ["turn"], "pairs": True},
    )
    rollouts = read_jsonl(path)
    assert rollouts.columns["token:log_probs/old"].tensor.dtype == torch.float32
    assert rollouts.columns["token:log_probs/old"].maker == "trainer"
    assert column(rollouts, "episode:note") == [None]
    assert len(rollouts.spans["turn"].starts) == 0
    assert plain_pairs(rollouts) == []
    with pytest.raises(InputError, match="line 2: a columns record after the first response, expected it first"):
        list(stream_jsonl(path))


def test_equal_prompts_are_stored_once_unless_numbered_differently(tmp_path: Path) -> None:
    lines = [{"group": 0, "ids": [i], "prompt_ids": prompt} for i, prompt in enumerate([[1, 2], [3], [1, 2]])]
    assert read_jsonl(written(tmp_path, *lines)).prompts.tolist() == [0, 1, 0]
    numbered = [line | {"prompt_index": number} for line, number in zip(lines, [7, 5, 6], strict=True)]
    rollouts = read_jsonl(written(tmp_path, *numbered))
    assert rollouts.prompts.tolist() == [2, 0, 1]
    assert [episode["responses"][0]["prompt"] for episode in plain(rollouts)] == [[1, 2], [3], [1, 2]]


def test_float32_is_written_with_few_digits(tmp_path: Path) -> None:
    values = torch.tensor([0.1, 1 / 3, 1e-30, 123456.789, 3e38, -0.0])
    write_jsonl(Rollouts.from_lists([[0] * 6], groups=[0]).with_column("x", values), tmp_path / "a.jsonl")
    assert '"x":[0.1,0.333333343,' in (tmp_path / "a.jsonl").read_text()
    assert torch.equal(read_jsonl(tmp_path / "a.jsonl").column("x"), values)


def test_names_that_are_keys_of_their_record_cannot_be_written(tmp_path: Path) -> None:
    rollouts = Rollouts.from_lists([[1]], groups=[0]).with_spans("step", torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(InputError, match="'step:ranges' cannot be written, 'ranges' is a key of its record"):
        write_jsonl(rollouts.with_column("step:ranges", torch.zeros(1)), tmp_path / "a.jsonl")


def test_the_documentation_reads(tmp_path: Path) -> None:
    blocks = re.findall(r"```jsonl\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    rollouts = [read_jsonl(written(tmp_path, block)) for block in blocks]
    assert len(rollouts) == 3
    assert column(rollouts[0], "episode:scored/outcome") == [True, True, False, None]
    assert plain_pairs(rollouts[1]) == [(0, 1, [0.8])]
    assert column(rollouts[2], "step:scored/critics") == [[True, False, True]]


# Streaming


def test_a_stream_holds_one_group_and_gives_the_pairs_within(tmp_path: Path) -> None:
    lines = [{"group": g, "episode": e, "ids": [e]} for g, e in [("x", 1), ("x", 2), ("y", 3), ("y", 4)]]
    pairs = [{"pair": {"preferred": p, "other": o}} for p, o in [(4, 3), (1, 3), (2, 1), (1, 2)]]
    groups = list(stream_jsonl(written(tmp_path, *pairs, *lines)))
    assert [group.group_ids.tolist() for group in groups] == [[0, 0], [1, 1]]
    assert [plain_pairs(group) for group in groups] == [[(1, 0, []), (0, 1, [])], [(1, 0, [])]]
    whole = read_jsonl(written(tmp_path, *lines, *pairs))
    assert plain(join(groups)) == plain(whole)
    assert plain_pairs(whole) == [(3, 2, []), (0, 2, []), (1, 0, []), (0, 1, [])]


def test_a_stream_gives_a_group_before_it_reads_the_next(tmp_path: Path) -> None:
    groups = stream_jsonl(written(tmp_path, {"group": 0, "ids": [1]}, {"group": 1, "ids": [2]}, "not JSON"))
    assert next(groups).ids.tolist() == [1]
    with pytest.raises(InputError, match="line 3 is not JSON"):
        next(groups)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [{"group": 0, "ids": [1]}, {"group": 1, "ids": [2]}, {"group": 0, "ids": [3]}],
            "line 3: group 0 comes again after another began, .*: sort the file by group",
        ),
        (
            [{"group": 0, "episode": 0, "ids": [1]}, {"group": 1, "ids": [2]}, {"pair": {"preferred": 0, "other": 0}}],
            "line 3: a pair of episode 0, whose group is complete, expected pairs before the end of their group",
        ),
        (
            [{"pair": {"preferred": 8, "other": 0}}, {"group": 0, "episode": 0, "ids": [1]}],
            "line 1: a pair of episode 8, expected episodes that are in this file",
        ),
    ],
)
def test_files_that_cannot_be_streamed(tmp_path: Path, lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(stream_jsonl(written(tmp_path, *lines)))


# Files that cannot be used

GOOD = {"group": 0, "ids": [1, 2]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"group": 0, "ids": [1', r"is not JSON \(.*\), expected one object a line"),
        ("[1, 2]", r"is \[1, 2\], expected an object"),
        ('"text"', "is 'text', expected an object"),
        (GOOD | {"schema": "apportion.rollouts/2"}, "was written with schema 'apportion.rollouts/2', expected 'apport"),
        ({"ids": [1]}, "a record without 'group', expected the number or name of the group"),
        ({"group": None, "ids": [1]}, "group is null, expected a number or a name"),
        ({"group": 1.5, "ids": [1]}, "'group' is 1.5, expected an integer or text"),
        ({"group": 2**70, "ids": [1]}, "'group' is 1180591620717411303424, expected an integer"),
        ({"group": "x", "ids": [1]}, "group is 'x', but earlier records have groups of the other kind"),
        ({"group": 0}, "a record without 'ids', expected the token ids"),
        ({"group": 0, "ids": "text"}, "ids is 'text', expected a list of integers"),
        ({"group": 0, "ids": [1, 2.5]}, r"ids is \[1, 2.5\], expected a list of integers"),
        ({"group": 0, "ids": [True]}, r"ids is \[True\], expected a list of integers"),
        ({"group": 0, "ids": [2**64]}, "ids has an integer beyond 64 bits"),
        (GOOD | {"prompt_ids": [None]}, r"prompt_ids is \[None\], expected a list of integers"),
        (GOOD | {"prompt_index": "a"}, "prompt_index is 'a', expected an integer"),
        (GOOD | {"episode": [1]}, r"'episode' is \[1\], expected an integer or text"),
        (GOOD | {"episode": "one"}, "episode 'one' comes again after another began"),
        (GOOD | {"rewrad": 1.0}, "unknown key 'rewrad': did you mean 'reward'?"),
        (GOOD | {"token": [1, 2]}, r"'token' is \[1, 2\], expected an object"),
        (GOOD | {"token": {"x": [1.0]}}, "'token:x' is 1 entries, expected a list of 2, one a token"),
        (GOOD | {"token": {"x": 1.0}}, "'token:x' is 1.0, expected a list of 2, one a token"),
        (GOOD | {"token": {"x": [1.0, "a"]}}, "'token:x' holds float and str, expected numbers"),
        (GOOD | {"token": {"x": [1.0, [2.0]]}}, "'token:x' holds float and list, expected numbers"),
        (GOOD | {"token": {"x": [["a"], ["b"]]}}, "'token:x' holds str, expected numbers"),
        (GOOD | {"token": {"x": [[1, 2], [1]]}}, "'token:x' has rows of .* expected 2 numbers each: only rewards may"),
        (GOOD | {"token": {"x": [[1, 2], [1, None]]}}, "'token:x' has rows of .* with 1 nulls"),
        (GOOD | {"token": {"x": [[[1]], [[2]]]}}, "'token:x' holds list, expected numbers"),
        (GOOD | {"response": {"x": {"y": 1}}}, "'response:x' holds dict, expected numbers"),
        ('{"group": 0, "ids": [1], "token": {"x": [NaN]}}', "'token:x' has a number that is not finite: write null"),
        ('{"group": 0, "ids": [1], "token": {"x": [1e999]}}', "'token:x' has a number that is not finite"),
        (GOOD | {"token": {"trained": [1, 2]}}, "'token:trained' has int entries, which do not fit a column of bool"),
        (GOOD | {"reward": "good"}, "'episode:reward/outcome' has text entries, which do not fit a column of float64"),
        (GOOD | {"reward": 1.0, "rewards": {"outcome": 1.0}}, "episode:reward/outcome is given twice"),
        (GOOD | {"spans": {"step": [[0, 3]]}}, r"ranges of 'step' are \[\[0, 3\]\], expected sorted disjoint"),
        (GOOD | {"spans": {"step": [[1, 1]]}}, "ranges of 'step' are .*, expected sorted disjoint"),
        (GOOD | {"spans": {"step": [[0, 2], [1, 2]]}}, "ranges of 'step' are .*, expected sorted disjoint"),
        (GOOD | {"spans": {"step": [[-1, 1]]}}, "ranges of 'step' are .*, expected sorted disjoint"),
        (GOOD | {"spans": {"step": [0, 1]}}, r"ranges of 'step' are \[0, 1\], expected \[\[start, end\], ...\]"),
        (GOOD | {"spans": {"step": {"score": [1]}}}, "spans of kind 'step' lack 'ranges'"),
        (GOOD | {"spans": {"token": [[0, 1]]}}, "'token' cannot be a kind of span"),
        (GOOD | {"spans": {"a:b": [[0, 1]]}}, "'a:b' cannot be a kind of span"),
        ({"pair": {"preferred": "one"}}, "a pair without both 'preferred' and 'other'"),
        ({"pair": {"preferred": "one", "other": "nobody"}}, "a pair of episode 'nobody', expected episodes that are"),
        ({"pair": {"preferred": "one", "other": 1.5}}, "'other' is 1.5, expected an integer or text"),
        ({"pair": {}, "ids": [1]}, "unknown key 'ids'"),
        ({"columns": {"x": {"dtpye": "float32"}}}, "column 'x': unknown key 'dtpye': did you mean 'dtype'?"),
        ({"columns": {"x": {"dtype": "float31"}}}, "column 'x': unknown dtype 'float31': did you mean 'float32'?"),
        ({"columns": {"x": {"width": -1}}}, "column 'x': width is -1, expected a number of entries a row"),
        ({"columns": {"x": {"parameters": [1]}}}, r"column 'x': parameters is \[1\], expected an object"),
        ({"columns": {"x": 3}}, "column 'x' is 3, expected an object"),
        ({"columns": {}, "spans": "step"}, "spans of a columns record is 'step', expected a list of kinds"),
        ({"columns": {}, "span": []}, "unknown key 'span': did you mean 'spans'?"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: dict[str, Any] | str, message: str) -> None:
    path = written(tmp_path, GOOD | {"episode": "one"}, GOOD | {"episode": "two"}, line)
    with pytest.raises(InputError, match=message) as error:
        read_jsonl(path)
    assert str(error.value).startswith(f"{path}, line 3")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty, expected one record a response"),
        (["", "  "], "is empty, expected one record a response"),
        ([{"columns": {"stpe:x": {}}}], "the columns record declares 'stpe:x', expected a level"),
        (
            [{"columns": {"x": {"dtype": "int8"}}}, GOOD | {"token": {"x": [1, 300]}}],
            "line 2: 'token:x' has int entries, which do not fit a column of int8",
        ),
        (
            [{"columns": {"x": {"dtype": "float32"}}}, GOOD | {"token": {"x": [1, 1e300]}}],
            "line 2: 'token:x' has float entries, which do not fit a column of float32",
        ),
        (
            [{"columns": {"x": {"dtype": "int8"}}}, {"columns": {"token:x": {"dtype": "int16"}}}],
            "line 2: column 'token:x' is declared twice and differently",
        ),
        (
            [GOOD | {"token": {"x": [1, 2]}}, GOOD | {"token": {"x": ["a", "b"]}}],
            "line 1: 'token:x' has int entries, which do not fit a column of text",
        ),
        (
            [GOOD | {"token": {"x": [1, 2]}}, GOOD | {"token": {"x": [[1], [2]]}}],
            "line 1: 'token:x' has single entries as rows, expected lists",
        ),
        (
            [GOOD | {"reward": 1.0}, GOOD | {"response": {"reward/outcome": 1.0}}],
            "given.jsonl: the reward 'reward/outcome' lives at two levels",
        ),
        ([GOOD | {"token": {"log_probs/old": [1, 2]}}], "given.jsonl: .* has a log-probability of 2, expected at most"),
        ([GOOD | {"token": {"trained": [1, None]}}], "given.jsonl: column 'token:trained' has missing entries"),
        (
            [{"pair": {"preferred": 0, "other": 0}}, *({"group": g, "episode": 0, "ids": []} for g in (0, 1))],
            "line 3: episode 0 is in two groups and the file has pairs, which name episodes only",
        ),
    ],
)
def test_a_file_that_does_not_fit_together(tmp_path: Path, lines: list[dict[str, Any] | str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_jsonl(written(tmp_path, *lines))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"group": 0, "ids": [1]}\r\n{"group": 0, "ids": [2], "prompt": "\xff"}\n')
    with pytest.raises(InputError, match="line 2 is not JSON"):
        read_jsonl(path)
    path.write_bytes(b'\xef\xbb\xbf{"group": 0, "ids": [1]}\r\n{"group": 0, "ids": [2]}')
    assert read_jsonl(path).ids.tolist() == [1, 2]
