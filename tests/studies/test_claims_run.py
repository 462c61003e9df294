"""Claims are measured until they have a verdict, in any number of processes, and however often a run is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cards
import pytest

from apportion.errors import InputError, RunStopped
from apportion.studies.claims_entries import _read_by, entries, entries_of
from apportion.studies.claims_page import page, report
from apportion.studies.claims_processes import Processes
from apportion.studies.claims_run import FILE, Folder, Result, run

HERE = Path(__file__).parent


def found(folder: Path, **settings: Any) -> dict[str, Any]:
    """What a run says that does not depend on the clock."""
    said = report(run(entries_of("cards"), Folder(folder), **settings), "apportion claims")
    return timeless(said)


def timeless(said: Any) -> Any:
    if isinstance(said, dict):
        return {key: timeless(value) for key, value in said.items() if key not in ("cpu_seconds", "commits", "machine")}
    return [timeless(part) for part in said] if isinstance(said, list) else said


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return found(tmp_path_factory.mktemp("unbroken"), again=True)


def test_as_many_seeds_as_a_verdict_takes(unbroken: dict[str, Any]) -> None:
    verdicts = {c["title"]: (c["on_first_seeds"], c["seeds"]) for c in unbroken["claims"]}
    assert verdicts == {
        "large": ("reproduced", 6),
        "small": ("not reproduced", 6),
        "open": ("inconclusive", 20),
        "late": ("reproduced", 20),
        "lucky": ("reproduced", 6),
    }
    assert unbroken["claims"][0]["figures"]["seed"] == list(range(6))


def test_what_is_reproduced_is_measured_on_other_seeds(unbroken: dict[str, Any]) -> None:
    again = {
        claim["title"]: part and (part["verdict"], part["figures"]["seed"][0])
        for claim in unbroken["claims"]
        for part in [claim["again"]]
    }
    assert again == {
        "large": ("reproduced", 1000),
        "small": None,
        "open": None,
        "late": ("reproduced", 1000),
        "lucky": ("not reproduced", 1000),
    }
    standing = {claim["title"]: claim["verdict"] for claim in unbroken["claims"]}
    first = {claim["title"]: claim["on_first_seeds"] for claim in unbroken["claims"]}
    assert standing == {**first, "lucky": "inconclusive"}
    shown = page(
        {**unbroken, "commits": ["abc"], "machine": "a machine", "cpu_seconds": 60.0, "claims": timed(unbroken)}
    )
    counts = "2 reproduced, 1 not reproduced, 2 inconclusive; of 3 reproduced on first seeds, 2 held on others."
    assert counts in shown
    assert "| `grpo` | Says lucky. | Against lucky. | 0.5 | +1.01 " in shown
    assert "not reproduced: +0.01 [" in shown


def timed(said: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**claim, "cpu_seconds": 1.0} for claim in said["claims"]]


def test_several_processes_find_the_same(unbroken: dict[str, Any], tmp_path: Path) -> None:
    assert found(tmp_path, again=True, processes=3) == unbroken


def test_nothing_is_measured_twice(unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CLAIMS_LOG", str(log))
    assert found(tmp_path / "kept", again=True) == unbroken
    first = log.read_text().splitlines()
    assert len(first) == len(set(first)) == 6 + 6 + 20 + 20 + 6 + 6 + 20 + 6
    assert found(tmp_path / "kept", again=True) == unbroken
    assert log.read_text().splitlines() == first


def test_other_seeds_are_asked_for(tmp_path: Path) -> None:
    claims = {c["title"]: c for c in found(tmp_path, offset=200)["claims"]}
    assert claims["lucky"]["verdict"] == "not reproduced"
    assert claims["lucky"]["figures"]["seed"] == list(range(200, 206))
    assert claims["lucky"]["again"] is None


def begin(folder: Path, **environment: str) -> subprocess.Popen[str]:
    code = (
        "from pathlib import Path\n"
        "from apportion.studies.claims_entries import entries_of\n"
        "from apportion.studies.claims_run import Folder, run\n"
        "if __name__ == '__main__':\n"
        f"    run(entries_of('cards'), Folder(Path({str(folder)!r})), processes=2, again=True)\n"
    )
    script = folder.with_suffix(".py")
    script.write_text(code)
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, **environment, "PYTHONPATH": path}, text=True
    )


def lines(folder: Path) -> int:
    file = folder / FILE
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_killed_again_and_again_it_ends_in_the_same(unbroken: dict[str, Any], tmp_path: Path) -> None:
    folder, rng = tmp_path / "struck", random.Random(5)
    for wanted in (9, 55):
        process = begin(folder, CLAIMS_SECONDS="0.02")
        while lines(folder) < wanted and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    # The instant between two bytes of a line: what a kill inside a write leaves.
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: -len(whole.splitlines()[-1]) // 2])
    before = lines(folder)
    assert found(folder, again=True) == unbroken
    assert before < lines(folder) == 90


def test_processes_end_when_the_one_that_asks_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = begin(tmp_path / "struck", CLAIMS_LOG=str(log), CLAIMS_SECONDS="0.05")
    while not log.exists() and process.poll() is None:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    assert children
    deadline = time.monotonic() + 60
    while any(running(child) for child in children):
        assert time.monotonic() < deadline, f"still running: {children}"
        time.sleep(0.05)


def running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_dies_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with Processes[str](1) as pool:
        _, process = pool.idle[0]
        pool.begin("asker", entries_of("cards")[0], 0)
        assert next(iter(pool.ended()))[:2] == ("asker", 0)
        process.kill()
        process.join()
        pool.busy[pool.idle.pop()[0]] = process, "asker", "grpo: large", 1
        with pytest.raises(
            RunStopped, match="measured 'grpo: large' on seed 1 ended with -9: what was measured is kept"
        ):
            list(pool.ended())
    assert lines(folder.file.parent) == 0


def test_a_claim_whose_file_has_changed_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "changing"
    place.mkdir()
    text = (HERE / "cards.py").read_text()
    (place / "changing_cards.py").write_text(text)
    monkeypatch.syspath_prepend(str(place))
    before = entries_of("changing_cards")[0]
    (place / "changing_cards.py").write_text(text + "# a word more\n")
    after = entries_of("changing_cards")[0]
    assert before.source != after.source
    folder = Folder(tmp_path / "kept")
    run([after], folder)
    assert folder.get(after, 0) is not None
    assert folder.get(before, 0) is None
    assert lines(tmp_path / "kept") == 6
    (missed,) = run([before], folder)
    assert (missed.verdict, missed.failed) == (None, "seed 0: its file has changed meanwhile: run it again")
    assert lines(tmp_path / "kept") == 6


def test_tools_that_a_claim_takes_count_as_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "with_tools.py").write_text("from apportion.studies.tabular import Trained\nfrom cards import CLAIMS\n")
    (tmp_path / "without_tools.py").write_text("from cards import CLAIMS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "apportion.studies.tabular" in _read_by("with_tools")
    assert _read_by("without_tools") == {"without_tools"}


def test_a_claim_that_fails_says_where_and_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_cards.py").write_text("from cards import CLAIMS, FAILING\nCLAIMS = (*FAILING, CLAIMS[0])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    *failing, large = run(entries_of("failing_cards"), Folder(tmp_path / "kept"), again=True)
    fails, endless, constant, breaks_later = failing
    line = (HERE / "cards.py").read_text().splitlines().index('        raise ValueError("seed 3 | it is")') + 1
    assert fails.failed == f"seed 3: ValueError: seed 3 | it is (cards.py:{line})"
    assert "lack 'effect' or are not finite" in endless.failed
    assert constant.failed == "its effect is 1 on every seed, so that it measures nothing of chance"
    assert [result.verdict for result in (*failing, large)] == [None, None, None, "reproduced", "reproduced"]
    assert (breaks_later.standing, large.standing) == ("inconclusive", "reproduced")
    said = report([*failing, large], "apportion claims")
    assert "not measured: seed 3: ValueError: seed 3 \\| it is" in page(said)
    counts = "1 reproduced, 1 inconclusive, 3 not measured; of 2 reproduced on first seeds, 1 held on others."
    assert counts in page(said)
    assert json.loads(json.dumps(said, allow_nan=False)) == said


def test_figures_of_other_names_on_other_seeds_are_no_result(tmp_path: Path) -> None:
    folder, entry = Folder(tmp_path), entries_of("cards")[0]
    run([entry], folder)
    odd = json.loads((tmp_path / FILE).read_text().splitlines()[2])
    odd["figures"]["other"] = 1.0
    with (tmp_path / FILE).open("a") as file:
        file.write(json.dumps(odd) + "\n")
    result = Result(entry, 0)
    result.look(Folder(tmp_path))
    assert (result.verdict, result.failed) == (None, "its figures have other names on other seeds")


def test_bad_folders_names_and_numbers_are_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"claim": 1}\n')
    with pytest.raises(InputError, match=f"{FILE}:1 is not a measurement of a claim"):
        Folder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        Folder(tmp_path / "file" / "inside")
    with pytest.raises(InputError, match="unknown claim of 'tempa'"):
        entries(["tempa"])
    with pytest.raises(InputError, match="processes is 0"):
        run([], Folder(tmp_path / "new"), processes=0)
    assert cards.CLAIMS
