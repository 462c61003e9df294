"""How long the live page takes to open a run of 10,000 responses of 500 tokens, and how large its report is.

    python benchmarks/viewer.py           a table
    python benchmarks/viewer.py --json    rows

Needs chromium. A row is {name, seconds: {median, min, max}, machine}: time by the clock, for a browser waits for a
server. Every repeat begins with a server that has read nothing; *the run page* and *the list of all groups* are counted
from its start, the list until all groups are in it; the pages of groups from a click, with everything drawn. The
report's row has ``megabytes`` too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measure import machine, spread

from apportion import credit
from apportion.rollouts import Rollouts, RolloutStore
from apportion.viewer.report import make_report
from apportion.viewer.server import Server
from apportion.viewer.session import Session

STEPS, GROUPS, SIZE, LENGTH, VOCABULARY = 25, 25, 16, 500, 1000
WAIT = 60_000


def step(number: int) -> Rollouts:
    """A step's rollouts with what a run stores; responses to a prompt share beginnings."""
    generator = torch.Generator().manual_seed(number)
    count = GROUPS * SIZE
    ids = torch.randint(VOCABULARY, (count, LENGTH), generator=generator)
    forks = torch.randint(1, LENGTH, (count,), generator=generator)
    for b in range(count):
        ids[b, : forks[b]] = ids[b - b % SIZE, : forks[b]]
    rewards = (torch.rand(count, generator=generator) < 0.4).double()
    rollouts = Rollouts(
        ids=ids.flatten(),
        token_offsets=torch.arange(count + 1) * LENGTH,
        response_offsets=torch.arange(count + 1),
        group_ids=torch.arange(count) // SIZE + number * GROUPS,
        prompt_ids=torch.arange(GROUPS * 3) % VOCABULARY,
        prompt_offsets=torch.arange(GROUPS + 1) * 3,
        prompts=torch.arange(count) // SIZE,
    )
    log_probs = -torch.rand(count * LENGTH, generator=generator)
    rollouts = (
        rollouts.with_statistic("log_probs/behaviour", log_probs, "sampling")
        .with_statistic("log_probs/old", log_probs, "trainer")
        .with_statistic("entropy/old", torch.rand(count * LENGTH, generator=generator), "trainer")
        .with_column("response:prompt_text", [f"question {b // SIZE} of step {number}" for b in range(count)])
        .with_reward("outcome", rewards, maker="verifier")
    )
    return credit.METHODS["tempo"]()(rollouts).record()


def write_run(folder: Path) -> Path:
    """The folder of such a run."""
    store = RolloutStore(folder / "rollouts")
    (folder / "config.json").write_text(json.dumps({"credit": "tempo", "model": "none", "steps": STEPS}))
    with (folder / "metrics.jsonl").open("w") as metrics:
        for number in range(1, STEPS + 1):
            store.write(number, step(number))
            line = {"step": number, "reward": number / STEPS, "entropy": 1 / number, "groups_mixed": 1.0}
            metrics.write(json.dumps(line) + "\n")
    return folder


@contextmanager
def served(run: Path) -> Iterator[str]:
    """A server that has read nothing yet."""
    session = Session([run])
    session.watch()
    server = Server(session).start()
    try:
        yield server.url
    finally:
        session.close()
        server.shutdown()
        server.server_close()


def until(page: Any, expression: str) -> None:
    """Wait until something holds on a page."""
    for _ in range(WAIT // 10):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(10)
    sys.exit(f"the page never got to {expression}")


def opened(browser: Any, run: Path) -> dict[str, float]:
    """Seconds of every thing that is looked at, once."""
    took: dict[str, float] = {}
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.set_default_timeout(WAIT)

    def timed(name: str, since: float, ready: Callable[[], Any]) -> None:
        ready()
        took[name] = time.perf_counter() - since

    began = time.perf_counter()
    with served(run) as address:
        page.goto(address)
        timed("the run page", began, lambda: page.wait_for_selector(".chart"))
        page.goto("about:blank")
    began = time.perf_counter()
    with served(run) as address:
        every = f"(document.querySelector('#count')?.textContent ?? '').startsWith('{STEPS * GROUPS} of')"
        page.goto(f"{address}#/groups")
        timed("the list of all groups", began, lambda: until(page, every))
        page.wait_for_selector(".rows .row")
        began = time.perf_counter()
        page.click(".rows .row >> nth=1")
        timed("a group", began, lambda: page.wait_for_selector(".tok"))
        began = time.perf_counter()
        page.select_option('select[name="credit"]', "grpo")
        titled = ".legend-title:has-text('grpo')"
        timed("the group under another method", began, lambda: page.wait_for_selector(titled))
    page.close()
    return took


def reported(run: Path) -> tuple[float, float]:
    """Seconds to make a report, and its megabytes."""
    began = time.perf_counter()
    session = Session([run])
    session.listings[0].catch_up()
    report = make_report(session)
    return time.perf_counter() - began, len(report.html) / 1e6


def measured(repeats: int) -> list[dict[str, Any]]:
    """Rows."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        sys.exit("this needs chromium, which is not installed: run apt-get install -y chromium.")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "run" / "rollouts").mkdir(parents=True)
        run = write_run(Path(place) / "run")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            opened(browser, run)
            times = [opened(browser, run) for _ in range(repeats)]
            browser.close()
        seconds, megabytes = reported(run)
    rows = [
        {"name": name, "seconds": {k: round(v, 3) for k, v in spread([t[name] for t in times]).items()}}
        for name in times[0]
    ]
    rows.append(
        {"name": "a report of it", "seconds": {k: round(seconds, 3) for k in ("median", "min", "max")}}
        | {"megabytes": round(megabytes, 2)}
    )
    return [row | {"machine": machine()} for row in rows]


def main() -> None:
    """Print a table, or the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="repeats")
    arguments = parser.parse_args()
    rows = measured(arguments.repeats)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        size = f"  {row['megabytes']} MB" if "megabytes" in row else ""
        took = row["seconds"]
        print(f"{row['name']:32} {took['median']:7.3f} s [{took['min']:.3f}, {took['max']:.3f}]{size}")


if __name__ == "__main__":
    main()
