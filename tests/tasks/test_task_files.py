"""Tasks from files: every format, and every way a file can be wrong."""

from __future__ import annotations

import decimal
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from apportion.errors import InputError
from apportion.tasks import Source, Task, from_file

ROWS = [{"question": f"{a} + 1 =", "answer": str(a + 1), "level": a % 3} for a in range(10)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "jsonl": write_jsonl,
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}


def everything(source: Source) -> dict[str, Task]:
    return {task.text: task for task in (*source.train, *source.held_out)}


@pytest.mark.parametrize("ending", WRITERS)
def test_all_formats_give_the_same_tasks(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"sums.{ending}"
    WRITERS[ending](path, ROWS)
    source = from_file(path, held_out=0.3)
    assert (source.name, source.verifier, len(source.train), len(source.held_out)) == ("sums", "math", 7, 3)
    tasks = everything(source)
    assert {text: task.answer for text, task in tasks.items()} == {row["question"]: row["answer"] for row in ROWS}
    level = "2" if ending == "csv" else 2
    assert tasks["5 + 1 ="] == Task("5 + 1 =", "6", "sums", {"level": level})
    assert everything(from_file(path, held_out=0.3, name="other"))["5 + 1 ="].source == "other"
    jsonl = tmp_path / "sums.jsonl"
    write_jsonl(jsonl, ROWS)
    assert [t.text for t in source.held_out] == [t.text for t in from_file(jsonl, held_out=3).held_out]


@pytest.mark.parametrize(
    ("names", "prompt", "answer"),
    [
        (("prompt", "answer"), "prompt", "answer"),
        (("problem", "solution"), "problem", "solution"),
        (("instruction", "target"), "instruction", "target"),
        (("Question", "Label"), "Question", "Label"),
        (("question", "answer", "prompt", "solution"), "prompt", "answer"),
    ],
)
def test_columns_are_found_by_their_usual_names(
    names: tuple[str, ...], prompt: str, answer: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{name: f"{name} {number}" for name in names} for number in range(2)])
    task = everything(from_file(path, held_out=1))[f"{prompt} 0"]
    assert task.answer == f"{answer} 0"
    assert set(task.metadata) == set(names) - {prompt, answer}


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"prompt": "no", "ask": f"a{n}", "answer": "no", "x": {"gold": n}} for n in range(2)])
    task = everything(from_file(path, prompt="ask", answer="x.gold", held_out=1))["a1"]
    assert task.answer == "1"
    assert task.metadata == {"prompt": "no", "answer": "no", "x": {"gold": 1}}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_chat_messages_and_verl_files(ending: str, tmp_path: Path) -> None:
    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{n} + 1"}],
            "reward_model": {"style": "rule", "ground_truth": str(n + 1)},
        }
        for n in range(3)
    ]
    path = tmp_path / f"verl.{ending}"
    WRITERS[ending](path, rows)
    task = everything(from_file(path, held_out=1))["Add.\n2 + 1"]
    assert task.prompt == ({"role": "system", "content": "Add."}, {"role": "user", "content": "2 + 1"})
    assert task.answer == "3"
    assert task.metadata["data_source"] == "sums"


def test_message_fields_that_only_some_messages_have(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    first = [{"role": "user", "content": "a", "name": "Ann"}, {"role": "user", "content": "b"}]
    write_parquet(
        path, [{"prompt": first, "answer": "1"}, {"prompt": [{"role": "user", "content": "c"}], "answer": "2"}]
    )
    prompt = everything(from_file(path, held_out=1))["a\nb"].prompt
    assert prompt == ({"role": "user", "content": "a", "name": "Ann"}, {"role": "user", "content": "b"})


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("3", "3"),
        ("3.0", "3.0"),
        ("3.10", "3.10"),
        ("1e5", "1e5"),
        ("-0", "0"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ('" 3 "', " 3 "),
        ("null", None),
        ('""', None),
        ('"  "', None),
        ("NaN", None),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_answers_are_as_the_file_writes_them(written: str, answer: str | None, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{ending}"
    rows = [f'{{"prompt": "a", "answer": {written}, "x": 2.50}}', '{"prompt": "b", "answer": "1"}']
    path.write_text("\n".join(rows) if ending == "jsonl" else f"[{','.join(rows)}]")
    task = everything(from_file(path, held_out=1))["a"]
    assert task.answer == answer
    assert json.dumps(task.metadata) == '{"x": 2.5}'


@pytest.mark.parametrize(
    ("values", "answers"),
    [
        ([3, 4], ["3", "4"]),
        ([3.5, 4.0], ["3.5", "4.0"]),
        ([decimal.Decimal("3.50"), decimal.Decimal("4.00")], ["3.50", "4.00"]),
        ([True, False], ["true", "false"]),
        ([3, None], ["3", None]),
        ([3.0, float("nan")], ["3.0", None]),
    ],
)
def test_answers_in_parquet(values: list[Any], answers: list[str | None], tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, [{"prompt": name, "answer": value} for name, value in zip("ab", values, strict=True)])
    tasks = everything(from_file(path, held_out=1))
    assert [tasks["a"].answer, tasks["b"].answer] == answers


def test_csv_with_quotes_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.CSV"
    path.write_bytes('\ufeffprompt,answer\r\n"a, ""b""\nc",1\r\n\r\nd,\r\n'.encode())
    tasks = everything(from_file(path, held_out=1))
    assert {text: task.answer for text, task in tasks.items()} == {'a, "b"\nc': "1", "d": None}


def test_duplicates_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"prompt": text, "answer": "1"} for text in ("a", "A", "b", "a ", "c", "B")])
    for seed in range(8):
        source = from_file(path, held_out=1, seed=seed)
        assert len(source.train) == {"a": 3, "b": 4, "c": 5}[source.held_out[0].text.strip().casefold()]


def write(path: Path, content: str | bytes | list[dict[str, Any]]) -> None:
    if isinstance(content, list):
        WRITERS[path.suffix[1:]](path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)


GOOD = '{"prompt": "a", "answer": "1"}\n'


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("f.jsonl", "", {}, "f.jsonl is empty: expected at least two rows with a prompt and an answer."),
        ("f.jsonl", "\n \n", {}, "f.jsonl is empty: expected at least two rows with a prompt and an answer."),
        ("f.json", "", {}, "f.json is empty: expected at least two rows with a prompt and an answer."),
        ("f.json", "[]", {}, "f.json is empty: expected at least two rows with a prompt and an answer."),
        ("f.csv", "", {}, "f.csv is empty: expected at least two rows with a prompt and an answer."),
        ("f.csv", "prompt,answer\n", {}, "f.csv is empty: expected at least two rows with a prompt and an answer."),
        (
            "f.jsonl",
            GOOD + "\n" + '{"prompt": "b" "answer"}\n',
            {},
            "line 3 of f.jsonl is not JSON (Expecting ',' delimiter at column 16): mend or remove that line.",
        ),
        (
            "f.jsonl",
            GOOD + "[" * 100_000,
            {},
            "line 2 of f.jsonl is not JSON (nested too deeply): mend or remove that line.",
        ),
        ("f.jsonl", GOOD + "[1, 2]\n", {}, "line 2 of f.jsonl is a JSON list, expected an object with named columns."),
        ("f.json", '["a"]', {}, "row 1 of f.json is a JSON str, expected an object with named columns."),
        ("f.json", '{"a": 1}', {}, "f.json holds a JSON object, expected a list of objects, one a task."),
        (
            "f.json",
            GOOD + GOOD,
            {},
            "f.json is not JSON (Extra data at line 2): mend it, or name it .jsonl if it has one object a line.",
        ),
        (
            "f.jsonl",
            b'{"prompt": "\xff\xfe"}',
            {},
            "f.jsonl is not UTF-8 text (byte 12): save it in that encoding.",
        ),
        (
            "f.csv",
            "prompt,answer\na,1\nb,1,2\n",
            {},
            "line 3 of f.csv has 3 fields where the header has 2: mend that line; text with commas belongs in double "
            "quotes.",
        ),
        (
            "f.csv",
            'prompt,answer\na,1\nb,"x"y\n',
            {},
            "line 3 of f.csv is not CSV (',' expected after '\"'): mend that line.",
        ),
        (
            "f.csv",
            "prompt,answer,prompt\na,1,b\n",
            {},
            "f.csv names a column twice in its header: give each its own name.",
        ),
        (
            "f.jsonl",
            [{"text": "a", "answer": 1}],
            {},
            "f.jsonl has no prompt column: expected one of prompt, question, problem, instruction, found text, "
            "answer; name the right one with prompt=.",
        ),
        (
            "f.parquet",
            [{"prompt": "a", "gold": 1}],
            {},
            "f.parquet has no answer column: expected one of answer, solution, target, label, ground_truth, "
            "reward_model.ground_truth, found prompt, gold; name the right one with answer=.",
        ),
        (
            "f.csv",
            [{"prompt": "a", "total": 1}],
            {"answer": "totals"},
            "unknown column of f.csv 'totals': did you mean 'total'? Known: prompt, total.",
        ),
        (
            "f.jsonl",
            [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": None}, {"prompt": " ", "answer": 1}],
            {},
            "line 3 of f.jsonl has no prompt: 'prompt' is empty; fill it in or remove the row.",
        ),
        (
            "f.parquet",
            [{"prompt": "a", "answer": 1}, {"prompt": None, "answer": 1}],
            {},
            "row 2 of f.parquet has no prompt: 'prompt' is empty; fill it in or remove the row.",
        ),
        (
            "f.jsonl",
            [{"prompt": "a", "answer": 1}, {"answer": 1}],
            {},
            "line 2 of f.jsonl has no prompt: 'prompt' is empty; fill it in or remove the row.",
        ),
        (
            "f.jsonl",
            [{"prompt": [], "answer": 1}],
            {},
            "line 1 of f.jsonl has no prompt: 'prompt' is empty; fill it in or remove the row.",
        ),
        (
            "f.jsonl",
            [{"prompt": 7, "answer": 1}],
            {},
            "line 1 of f.jsonl has a prompt of type int in 'prompt': expected text or a list of chat messages.",
        ),
        (
            "f.jsonl",
            [{"prompt": [{"role": "user", "text": "a"}], "answer": 1}],
            {},
            "line 1 of f.jsonl has the chat message {'role': 'user', 'text': 'a'} in 'prompt': expected an object of "
            "texts with 'role' and 'content'.",
        ),
        (
            "f.jsonl",
            [{"prompt": ["hello"], "answer": 1}],
            {},
            "line 1 of f.jsonl has the chat message 'hello' in 'prompt': expected an object of texts with 'role' and "
            "'content'.",
        ),
        (
            "f.jsonl",
            [{"prompt": "a", "answer": ["1"]}],
            {},
            "line 1 of f.jsonl has an answer of type list in 'answer': expected text or a number.",
        ),
        (
            "f.csv",
            [{"prompt": "a", "answer": ""}, {"prompt": "b", "answer": " "}],
            {},
            "f.csv has no answers: all 2 values of 'answer' are empty; fill them in or name another column with "
            "answer=.",
        ),
        (
            "f.jsonl",
            GOOD + GOOD,
            {},
            "f.jsonl has 1 distinct prompts in 2 tasks, so holding out 0.2 of them leaves none to train on: ask for "
            "held_out below 1, or give more different prompts.",
        ),
    ],
)
def test_bad_files(
    name: str, content: str | bytes | list[dict[str, Any]], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path, content)
    with pytest.raises(InputError) as caught:
        from_file(path, **settings)
    assert str(caught.value) == message


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        from_file("sums.txt")
    assert str(caught.value) == (
        "cannot read tasks from 'sums.txt': expected a file ending in .jsonl, .json, .csv, .parquet."
    )
    with pytest.raises(InputError) as caught:
        from_file("not-there.jsonl")
    assert str(caught.value) == ("the task file 'not-there.jsonl' does not exist: give the path of a file that exists.")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder.csv' is a folder: give the path of a file that exists\."):
        from_file(folder)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_bad_parquet(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^f.parquet cannot be read as Parquet \(.+\): write it anew\.$"):
        from_file(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.parquet"
    write_parquet(path, ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError) as caught:
        from_file(path)
    assert str(caught.value) == 'reading Parquet needs pyarrow: run pip install "apportion[train]".'
