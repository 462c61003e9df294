"""What the documents say holds: examples run and print what is shown, links and names resolve, tables are the source's.

A fenced block is treated by its first word:

    python          run; a block of text right after it is what it prints
    console         lines that begin with ``$ `` are run and the lines below are what they print; ``apportion`` only
    diff NAME       applied to that file of a copy of the repository: ``+`` lines go below the line above them
    anything NAME   written to a file of that name in the folder where the document's blocks run, one after another

``...`` in an output stands for anything. After the first word, ``measured`` means that the numbers shown are those of
one run on one machine, so others may differ in them; ``slow`` leaves the block to ``make test-all``.

    python tests/test_docs.py --write      refresh what documents take from the source, between ``<!-- made: ... -->``
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import doctest
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import apportion
import method_pages
import speed_tables
import which_method
from apportion.annotations import ANNOTATORS
from apportion.cli.main import VERBS
from apportion.cli.main import main as run_apportion
from apportion.credit import METHODS
from apportion.environments import ENVIRONMENTS
from apportion.objectives import OBJECTIVES
from apportion.objectives.aggregate import AGGREGATIONS
from apportion.recipes import RECIPES
from apportion.rewards import VERIFIERS
from apportion.tasks import TASKS
from apportion.training.config import TrainConfig
from apportion.training.learners import LEARNERS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
RUN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/guide.md"]
TUTORIALS = sorted(ROOT.glob("docs/tutorials/*.md"))

FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
MADE = re.compile(r"(<!-- made: ([a-z ]+) -->)(.*?)(<!-- end -->)", re.DOTALL)


def named(path: Path) -> str:
    """A document's name from the repository's root."""
    return str(path.relative_to(ROOT))


each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=named)


# Blocks


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, the words after its backquotes, what it holds, and the output shown below it."""

    line: int
    words: tuple[str, ...]
    text: str
    output: str | None

    @property
    def language(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def file(self) -> str | None:
        """The file it holds, where it names one."""
        return next((word for word in self.words[1:] if "." in word), None)

    def is_(self, word: str) -> bool:
        return word in self.words


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document."""
    text = path.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    result = []
    for i, match in enumerate(found):
        after = found[i + 1] if i + 1 < len(found) else None
        shown = after is not None and after[1].strip() == "text" and not text[match.end() : after.start()].strip()
        line = text[: match.start()].count("\n") + 1
        result.append(Block(line, tuple(match[1].split()), match[2], after[2] if after is not None and shown else None))
    return result


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block and what is shown below each."""
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def assert_shown(printed: str, shown: str, measured: bool, where: str) -> None:
    """What was printed is what the document shows."""
    given, expected = (NUMBER.sub("0", text) if measured else text for text in (printed, shown))
    agree = doctest.OutputChecker().check_output(expected, given, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert agree, f"{where} shows\n{shown}\nbut this was printed\n{printed}"


def run_command(command: str) -> str:
    """Run an ``apportion`` command in this process; what it prints."""
    words = shlex.split(command)
    assert words[0] == "apportion", f"{command!r} is not run by this test: put it into a block that is not console"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = run_apportion(words[1:])
        except SystemExit as stop:
            code = stop.code
    assert not code, f"{command!r} ended with {code}:\n{printed.getvalue()}"
    return printed.getvalue()


def run_block(block: Block, path: Path, folder: Path, names: dict[str, Any]) -> None:
    """Run or write one block."""
    where = f"{named(path)}:{block.line}"
    if block.language == "diff":
        return
    if block.file is not None:
        (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.file).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * block.line + block.text, path, "exec"), names)
        assert_shown(printed.getvalue(), block.output or "", block.is_("measured"), where)
    elif block.language == "console":
        for command, shown in commands(block.text):
            assert_shown(run_command(command), shown, block.is_("measured"), f"{where}: {command}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def with_slow_blocks(path: Path) -> bool:
    return any(block.is_("slow") for block in blocks(path))


@pytest.mark.parametrize(
    ("path", "slow"),
    [
        *(pytest.param(path, False, id=named(path)) for path in RUN),
        *(
            pytest.param(path, True, id=f"{named(path)}, all", marks=pytest.mark.slow)
            for path in RUN
            if with_slow_blocks(path)
        ),
        *(pytest.param(path, False, id=named(path), marks=pytest.mark.system) for path in TUTORIALS),
    ],
)
def test_examples_run_and_print_what_is_shown(path: Path, slow: bool, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(path):
        if slow or not block.is_("slow"):
            run_block(block, path, folder, names)
    explained = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    for metrics in folder.glob("runs/*/metrics.jsonl"):
        for key in json.loads(metrics.read_text().splitlines()[0]):
            assert f"`{key}`" in explained, f"docs/guide.md does not say what {key!r} in metrics.jsonl means"


def test_the_method_of_contributing_passes_what_every_method_must(tmp_path: Path) -> None:
    """Its files and changes, made in a copy of the repository, pass the common suite and the golden vectors."""
    for part in ("src/apportion", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "pending.txt"):
        shutil.copy(ROOT / part, tmp_path)
    contributing = blocks(ROOT / "CONTRIBUTING.md")
    for block in contributing:
        if block.file is None:
            continue
        file = tmp_path / block.file
        if block.language == "diff":
            file.write_text(patched(file.read_text(encoding="utf-8"), block.text, block.file), encoding="utf-8")
        elif block.file.startswith(("src/", "tests/")):
            assert not file.exists(), f"{block.file} is there already: take another method for the example"
            file.write_text(block.text, encoding="utf-8")
    outside = next(block for block in contributing if block.file == "discounted.py")
    (tmp_path / "src/apportion/credit/discounted.py").write_text(outside.text, encoding="utf-8")
    suites = ("tests/test_architecture.py", "tests/credit/test_common.py", "tests/golden", "tests/reference")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "discounted", *suites],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "CI": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def patched(text: str, change: str, name: str) -> str:
    """A file with the ``+`` lines of a change put below the line above them."""
    lines, place = text.splitlines(), 0
    for line in change.splitlines():
        if line.startswith("+"):
            lines.insert(place, line[1:])
        else:
            assert lines.count(line[1:]) == 1, f"{name} has {line[1:]!r} {lines.count(line[1:])} times, expected once"
            place = lines.index(line[1:])
        place += 1
    return "\n".join(lines) + "\n"


# Names and links


def code_in(path: Path) -> str:
    """Everything a document shows as code: blocks, indented lines, and spans."""
    rest = FENCE.sub("", path.read_text(encoding="utf-8"))
    indented = re.findall(r"^ {4}(.*)$", rest, flags=re.MULTILINE)
    return "\n".join([*(block.text for block in blocks(path)), *indented, *CODE.findall(rest)])


def anchors(path: Path) -> set[str]:
    """What links into a document may name: its headings, as repositories on the web write them."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_document
def test_links_inside_the_repository_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^    .*$", "", FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    for target in LINK.findall(re.sub(r"(?<!\[)`[^`\n]+`(?!\])", "", prose)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{named(path)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(there), f"{named(path)} links to {target}, which has no such heading"


@each_document
def test_verbs_targets_and_files_that_are_named_exist(path: Path) -> None:
    code = code_in(path)
    verbs = set(re.findall(r"(?<!from )(?<!import )\bapportion ([a-z]+)", code))
    assert verbs <= set(VERBS), f"{named(path)} names verbs that do not exist"
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", code)) <= targets, f"{named(path)} names make targets not there"
    made_here = {block.file for block in blocks(path)}
    for file in re.findall(r"(?<![\w/.])((?:src|tests|docs|benchmarks)/[\w/.-]*[\w/])", code):
        assert (ROOT / file).exists() or file in made_here, f"{named(path)} names {file}, which does not exist"


# What is made from the source


def settings() -> str:
    """Every setting of a training run by section, from the docstrings of its fields."""
    source = (Path(apportion.__file__).parent / "training/config.py").read_text(encoding="utf-8")
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    body = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "TrainConfig").body
    lines: list[str] = [""]
    for node, following in itertools.pairwise(body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above = source.splitlines()[node.lineno - 2].strip()
        if above.startswith("# "):
            lines += ["", f"### {above[2:]}", "", "| setting | kind | default | what it is |", "|---|---|---|---|"]
        field = fields[node.target.id]
        said = following.value.value if isinstance(following, ast.Expr) else None  # type: ignore[attr-defined]
        assert isinstance(said, str), f"the setting {field.name} has no docstring"
        text = " ".join(said.split())
        if other := field.metadata.get("only_with"):
            text += f" Only with `{flag(other)}`."
        kind = ast.unparse(node.annotation).replace("tuple[str, ...]", "several str")
        row = f"`{flag(field.name)}`", f"`{kind}`", typed(getattr(TrainConfig(), field.name)), text
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |")
    return "\n".join(lines) + "\n\n"


def recipes() -> str:
    """What every recipe sets, where it differs from the defaults."""
    made = {name: builder() for name, builder in RECIPES.items()}
    lines = ["", "", f"| setting | {' | '.join(f'`{name}`' for name in made)} |", "|---" * (len(made) + 1) + "|"]
    for field in dataclasses.fields(TrainConfig):
        default = getattr(TrainConfig(), field.name)
        values = [getattr(config, field.name) for config in made.values()]
        if any(value != default for value in values):
            cells = ["" if value == default else typed(value) for value in values]
            lines.append(f"| `{flag(field.name)}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def flag(setting: str) -> str:
    """A setting on the command line."""
    return "--" + setting.replace("_", "-")


def typed(value: Any) -> str:
    """A value as it is written on the command line."""
    words = value if isinstance(value, tuple) else (value,)
    return " ".join(f"`{word}`" for word in words)


def names_of(registered: dict[str, Any]) -> Callable[[], str]:
    return lambda: " " + ", ".join(f"`{name}`" for name in registered) + " "


MAKERS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "recipes": recipes,
    "credit methods": names_of(METHODS),
    "objectives": names_of(OBJECTIVES),
    "aggregations": names_of(AGGREGATIONS),
    "verifiers": names_of(VERIFIERS),
    "task sources": names_of(TASKS),
    "environments": names_of(ENVIRONMENTS),
    "annotators": names_of(ANNOTATORS),
    "learners": names_of(LEARNERS),
    "credit speed": speed_tables.credit_speed,
    "prefix training speed": lambda: speed_tables.ratios("prefix_training"),
    "sampling speed": lambda: speed_tables.ratios("sampling"),
    "trl step speed": lambda: speed_tables.ratios("trl_step"),
    "viewer speed": speed_tables.viewer_speed,
}


def refreshed(text: str) -> str:
    """A document with what it takes from the source made anew."""
    return MADE.sub(lambda match: match[1] + MAKERS[match[2]]() + match[4], text)


@each_document
def test_what_is_made_from_the_source_is_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == refreshed(text), f"{named(path)} is out of date: run python tests/test_docs.py --write"


def test_every_setting_is_in_the_table() -> None:
    table = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(TrainConfig):
        assert f"| `{flag(field.name)}` |" in table


def test_every_method_has_a_page_and_it_is_up_to_date() -> None:
    made = dict(method_pages.pages())
    assert set(method_pages.FOLDER.rglob("*.md")) == set(made), "run python tests/test_docs.py --write"
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{named(path)} is out of date: run tests/test_docs.py --write"


def test_the_guide_to_methods_is_what_was_measured(tmp_path: Path) -> None:
    assert which_method.PAGE.read_text(encoding="utf-8") == which_method.page(), "run python tests/test_docs.py --write"
    for name in ("calibration.json", "claims.json", "studies/trees.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(which_method.DOCS / name, tmp_path / name)
    text = (tmp_path / "claims.json").read_text()
    found = json.loads(text)
    for claim in found["claims"]:
        if (claim["method"], claim["title"]) == ("imitation", "a warm start"):
            claim["verdict"] = "not reproduced"
    (tmp_path / "claims.json").write_text(json.dumps(found))
    with pytest.raises(which_method.Changed, match="the claim imitation: a warm start is not reproduced"):
        which_method.page(which_method.Figures(tmp_path))
    (tmp_path / "claims.json").write_text(text)
    worlds = (tmp_path / "calibration.json").read_text()
    found = json.loads(worlds)
    for row in found["methods"]:
        if row["spec"] == "rloo":
            row["angle"] = row["largest_angle"] = 3.0
    (tmp_path / "calibration.json").write_text(json.dumps(found))
    with pytest.raises(which_method.Changed, match="rloo is exact in every world"):
        which_method.page(which_method.Figures(tmp_path))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_docs.py --write")
    shutil.rmtree(method_pages.FOLDER, ignore_errors=True)
    for page, text in method_pages.pages():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    which_method.PAGE.write_text(which_method.page(), encoding="utf-8")
    for document in DOCUMENTS:
        document.write_text(refreshed(document.read_text(encoding="utf-8")), encoding="utf-8")
