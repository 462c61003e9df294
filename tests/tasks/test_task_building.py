"""What users write, and the task sources they get; every source keeps train and held-out apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from apportion.errors import InputError
from apportion.tasks import TASKS, Mixture, build_tasks, normalise

ONE_DIGIT = "min_terms=2, max_terms=2, min_digits=1, max_digits=1"
ROWS = [{"question": f"{a % 20} + 1 =", "answer": str(a % 20 + 1)} for a in range(30)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file of each format and a module of task sources."""
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "sums (1).json").write_text(json.dumps(ROWS))
    (tmp_path / "sums.csv").write_text("question,answer\n" + "".join(f"{r['question']},{r['answer']}\n" for r in ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "sums.parquet")
    (tmp_path / "my_task_module.py").write_text(
        "from apportion.tasks import Source, Task\n"
        "def make(name, train, held_out, seed=7):\n"
        "    tasks = lambda texts: tuple(Task(text, str(seed), 'mine') for text in texts)\n"
        "    return Source(name, tasks(train), tasks(held_out), 'exact')\n"
        "def nothing():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_task_module", None)


SOURCES = [
    "sums.jsonl",
    "sums (1).json",
    "sums.csv(held_out=3)",
    "sums.parquet",
    "file(path='sums.csv', prompt='question', answer='answer')",
    "running_sum(train=200, held_out=50)",
    "running_sum(digits=2, train=60, held_out=40)",
    f"chain_sum(size=500, {ONE_DIGIT})",
    f"reasoning_gym(dataset='chain_sum', size=500, held_out=100, {ONE_DIGIT})",
    "chain_sum(size=100)",
    "spell_backward(size=60)",
    "letter_counting(size=60)",
    "simple_equations(size=60)",
    "gsm_symbolic(size=20)",
    "coin_flip(size=60)",
    "my_task_module:make(name='mine', train=['a', 'b'], held_out=['c'])",
    ["0.7*running_sum(train=60, held_out=30, digits=2)", "0.3*running_sum(train=60, held_out=30, digits=2, name='b')"],
    [f"chain_sum(size=500, {ONE_DIGIT})", f"2*chain_sum(size=500, seed=1, name='other', {ONE_DIGIT})"],
    ("0.5*sums.jsonl", "0.5*sums.csv(name='again', seed=3)"),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("spec", SOURCES, ids=str)
def test_no_prompt_is_in_train_and_held_out(spec: str | list[str], seed: int, folder: Path) -> None:
    source = build_tasks(spec, seed=seed)
    train = {normalise(task.text) for task in source.train}
    held_out = [normalise(task.text) for task in source.held_out]
    assert train
    assert held_out
    assert not train & set(held_out)
    assert len(set(held_out)) == len(held_out)
    again = build_tasks(spec, seed=seed)
    assert (again.train, again.held_out) == (source.train, source.held_out)


@pytest.mark.parametrize("name", TASKS)
def test_every_registered_task_is_in_the_test_above(name: str) -> None:
    assert any(isinstance(spec, str) and spec.startswith(f"{name}(") for spec in SOURCES)


def test_one_digit_sums_in_the_usual_setting() -> None:
    source = build_tasks(f"chain_sum(size=2000, held_out=40, {ONE_DIGIT})")
    assert len({normalise(task.text) for task in source.train}) == 160
    assert len(source.held_out) == 40


def test_a_path_object_is_a_file(folder: Path) -> None:
    assert build_tasks(folder / "sums.csv", held_out=4, digits=3).name == "sums"


def test_defaults_go_to_builders_that_take_them_unless_the_spec_says(folder: Path) -> None:
    defaults = {"seed": 5, "held_out": 6, "digits": 4, "train": 30}
    assert len(build_tasks("running_sum", **defaults).train[0].text) == 5
    assert len(build_tasks("running_sum(digits=3)", **defaults).train[0].text) == 4
    assert len(build_tasks("sums.jsonl", **defaults).held_out) == 6
    assert len(build_tasks("sums.jsonl(held_out=2)", **defaults).held_out) == 2
    assert build_tasks("my_task_module:make(name='mine', train=['a'], held_out=[])", seed=5).train[0].answer == "5"


def test_a_data_set_by_its_bare_name_is_the_same_as_by_the_long_form() -> None:
    short = build_tasks("chain_sum(size=20, min_terms=3)")
    long = build_tasks("reasoning_gym(dataset='chain_sum', size=20, min_terms=3)")
    assert (short.name, short.train, short.held_out) == (long.name, long.train, long.held_out)


def test_weights_of_a_written_mixture(folder: Path) -> None:
    mixed = build_tasks([" 0.6 * sums.csv", ".3*running_sum(train=20, held_out=5)", "1e-1*gcd(size=20)"], seed=2)
    assert isinstance(mixed, Mixture)
    assert {part.name: round(part.weight, 9) for part in mixed.parts} == {"sums": 0.6, "running_sum": 0.3, "gcd": 0.1}
    equal = build_tasks(["sums.csv", "gcd(size=20)"])
    assert isinstance(equal, Mixture)
    assert [part.weight for part in equal.parts] == [0.5, 0.5]
    assert build_tasks("2*sums.csv").train == build_tasks("sums.csv").train


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "runing_sum",
            r"^unknown task 'runing_sum': did you mean 'running_sum'\? Known: .*running_sum.*; any reasoning-gym data "
            r"set, a file ending in \.jsonl, \.json, \.csv, \.parquet, or package\.module:name\.$",
        ),
        ("chain_smu(size=3)", r"^unknown task 'chain_smu': did you mean 'chain_sum'\? Known: .*chain_sum"),
        ("chain_sum(min_term=2)", r"^unknown setting of the reasoning-gym data set 'chain_sum' 'min_term': did you"),
        ("running_sum(digit=2)", r"^unknown argument of task 'running_sum' 'digit': did you mean 'digits'\? Known: "),
        ("running_sum(digits=", r"^cannot read 'running_sum\(digits=': expected name or name\(key=value, \.\.\.\)\.$"),
        ("sums.csv(ask='question')", r"^unknown argument of task 'file' 'ask': did you mean 'answer'\? Known: "),
        (
            "sums.txt",
            r"^cannot read tasks from 'sums\.txt': expected a file ending in \.jsonl, \.json, \.csv, \.parquet",
        ),
        ("data/sums", r"^cannot read tasks from 'data/sums': expected a file ending in"),
        ("absent.csv", r"^the task file 'absent\.csv' does not exist: give the path of a file that exists\.$"),
        ("reasoning_gym", r"^task 'reasoning_gym' needs dataset: write reasoning_gym\(dataset=\.\.\.\)\.$"),
        ("no_such_module:make", r"^cannot import 'no_such_module' for the task 'no_such_module:make': no module named"),
        ("my_task_module:mke", r"^unknown name in my_task_module 'mke': did you mean 'make'\?"),
        ("my_task_module:nothing", r"^my_task_module:nothing gave a int without name, train, held_out, verifier: exp"),
        (
            "my_task_module:make(name='mine', train=[], held_out=['a'])",
            r" gave no tasks to train on: expected at least one in its train part\.$",
        ),
        (
            "my_task_module:make(name='mine', train=['a', 'b'], held_out=['B '])",
            r" has the prompt 'b' in both train and held-out: divide by prompt text, as apportion\.tasks\.split",
        ),
        (
            "my_task_module:make(name='hers', train=['a', 'b'], held_out=['c'])",
            r" is called 'hers' but has tasks of the source 'mine': give both one name\.$",
        ),
        (["1.2.3*gcd"], r"^cannot read the weight '1\.2\.3' in '1\.2\.3\*gcd': write a number, as in 0\.7\*name\.$"),
        (["0*gcd(size=9)"], r"^gcd has the weight 0\.0 in a mixture: expected a positive number\.$"),
        ([], r"^a mixture was given no sources: expected at least one, with its weight\.$"),
        (["gcd(size=9)", "gcd(size=8)"], r"^two sources of a mixture are called 'gcd': tell them apart with name=, as"),
    ],
)
def test_unusable_specs(spec: str | list[str], message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        build_tasks(spec)


def test_an_unknown_name_without_reasoning_gym(monkeypatch: pytest.MonkeyPatch) -> None:
    import apportion.tasks.building as building

    monkeypatch.setattr(building, "data_set_names", lambda: ())
    with pytest.raises(InputError) as caught:
        build_tasks("chain_sum")
    assert str(caught.value).endswith('reasoning-gym is not installed, run pip install "apportion[train]".')
