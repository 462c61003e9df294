"""A report holds what it says, stays small, and its one script is the page's modules."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from apportion.cli.main import main
from apportion.viewer import report as reports
from apportion.viewer.bundle import bundle
from apportion.viewer.report import choose, key, make_report
from apportion.viewer.server import static_files
from apportion.viewer.session import Session
from viewer.worlds import write_jsonl, write_run


def opened(html: str) -> dict[str, Any]:
    """What a report carries."""
    (text,) = re.findall(r'<script type="application/json" id="apportion-data">(.*?)</script>', html, re.DOTALL)
    data = json.loads(text)
    data["answers"] = {name: json.loads(gzip.decompress(base64.b64decode(t))) for name, t in data["answers"].items()}
    return data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("reports") / "run", steps=5, groups=3)


def test_it_holds_curves_chosen_groups_and_credit_of_every_method(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.html"
    assert main(["report", str(run), "-o", str(path), "--groups", "7"]) == 0
    assert "7 of 15 groups" in capsys.readouterr().out
    held = opened(path.read_text())
    answers = held["answers"]
    assert answers["run?run=0"]["curves"]["reward"] == [0.2, 0.4, 0.6, 0.8, 1.0]
    rows = answers["groups?run=0"]["rows"]
    assert len(rows) == 7
    assert {row[0] for row in rows} == {1, 2, 3, 4, 5}
    for row in rows:
        group = answers[key("group", run=0, part=row[0], group=row[1])]
        assert set(group["credits"]) == {"stored", "grpo"}, "tempo is what was stored"
    assert answers[key("agreement", run=0, credit="stored\ngrpo")]["groups"] == 15


def test_groups_are_chosen_evenly_over_steps() -> None:
    rows = [
        [part, 10 * part + g, None, None, "", 2, 2, [], None, "mixed", 1.0, None, 1.0]
        for part in range(1, 101)
        for g in range(2)
    ]
    chosen = choose(rows, 10)
    assert [row[0] for row in chosen] == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]
    assert len(choose(rows, 150)) == 150
    assert len(choose(rows, 1000)) == 200
    assert choose(rows, 0) == []


def test_it_stays_under_the_limit_and_says_what_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session([write_run(tmp_path / "run", steps=6, groups=2, size=6, length=60)])
    session.listings[0].catch_up()
    whole = make_report(session)
    assert whole.groups == whole.chosen == 12
    room = len(whole.html) - 10_000
    monkeypatch.setattr(reports, "LIMIT", room)
    monkeypatch.setattr(reports, "RESERVE", 4000)
    cut = make_report(session)
    assert len(cut.html) < room
    assert cut.groups < cut.chosen == 12
    assert len(opened(cut.html.decode())["answers"]["groups?run=0"]["rows"]) == cut.groups > 0


def test_only_its_own_script_and_styles_may_run(run: Path) -> None:
    session = Session([run])
    session.listings[0].catch_up()
    html = make_report(session, 1).html.decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert "unsafe" not in policy
    for kind, pattern in (("script", r"<script>(.*?)</script>"), ("style", r"<style>(.*?)</style>")):
        (content,) = re.findall(pattern, html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html


def test_no_text_of_a_model_can_end_the_element_it_lies_in(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!-- --><style>"
    records = [{"group": evil, "ids": [1], "reward": 1.0, "prompt": evil, "response": evil, "token": {"text": [evil]}}]
    path = write_jsonl(tmp_path / "<b>evil.jsonl", records)
    session = Session([path])
    session.listings[0].catch_up()
    html = make_report(session).html.decode()
    assert html.count("<script") == html.count("</script>") == 2
    assert "alert(1)" not in html
    assert "<b>" not in html.replace('<b>"', "")


def test_modules_of_the_page_fit_into_one_script() -> None:
    modules = {name: content.decode() for name, content in static_files().items() if name.endswith(".js")}
    script = bundle(modules, "app.js")
    assert all(f'modules["{name}"] = ' in script for name in modules), "a module that nothing imports"
    for name, source in modules.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", source), (
            name
        )
    with pytest.raises(ValueError, match=r"in a circle: a\.js -> b\.js -> a\.js"):
        bundle({"a.js": 'import { b } from "./b.js";\n', "b.js": 'import { a } from "./a.js";\n'}, "a.js")
    with pytest.raises(ValueError, match="in a form that"):
        bundle({"a.js": "export default 1;\n"}, "a.js")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["RUN"], "needs a file to write"),
        (["RUN", "-o", "report.txt"], "does not end in .html"),
        (["RUN", "-o", "no/such/folder/report.html"], "expected a file in an existing folder"),
        (["RUN", "-o", "report.html", "--groups", "-1"], "--groups is -1"),
        (["RUN", "-o", "report.html", "--credit", "tempa"], "did you mean 'tempo'"),
        (["nowhere", "-o", "report.html"], "nowhere does not exist"),
        ([], "needs a run or a file"),
    ],
)
def test_what_cannot_be_reported_is_refused(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *(str(run) if word == "RUN" else word for word in words)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
